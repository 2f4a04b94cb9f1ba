"""Grants as they are shown."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from msgspec import UNSET, UnsetType

from kms.access.model import ContextRule, Effect, Grant
from kms.operations.core.declare import Answer


class GrantView(Answer):
    """A grant. It covers only keys of `owner` (`*`: of every client); `permission` is the first of `permissions`."""

    grant_id: str
    owner: str
    subject: str
    permission: str
    permissions: list[str]
    key_pattern: str
    created_at: datetime
    effect: Effect = Effect.ALLOW
    conditions: dict[str, Any] | UnsetType = UNSET
    context_equals: dict[str, str] | UnsetType = UNSET
    context_subset: dict[str, str] | UnsetType = UNSET
    retired_by: str | UnsetType = UNSET
    name: str | UnsetType = UNSET
    aws_operations: list[str] | UnsetType = UNSET


def grant_view(grant: Grant) -> GrantView:
    """A grant with its conditions."""
    has = grant.context_rule
    return GrantView(
        grant_id=grant.grant_id,
        owner=grant.owner,
        subject=grant.subject,
        permission=grant.permission,
        permissions=sorted(grant.permissions),
        key_pattern=grant.key_pattern,
        created_at=grant.created_at,
        effect=grant.effect,
        conditions=_shown_conditions(grant) or UNSET,
        context_equals=grant.context if has is ContextRule.EQUALS else UNSET,
        context_subset=grant.context if has is ContextRule.SUBSET else UNSET,
        retired_by=grant.retired_by or UNSET,
        name=grant.name or UNSET,
        aws_operations=sorted(grant.words) or UNSET,
    )


def _shown_conditions(grant: Grant) -> dict[str, Any]:
    given = {
        "source": sorted(grant.source),
        "not_before": grant.not_before,
        "not_after": grant.not_after,
        "second_factor_within": grant.second_factor_within,
    }
    return {name: value for name, value in given.items() if value}
