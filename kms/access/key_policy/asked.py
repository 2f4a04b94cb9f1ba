"""What a key policy is asked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class Asked:
    """Somebody wants to do something with a key: all of it that stays the same from one message to the next.

    `action` is AWS's name without `kms:`. `principals` are our words for the caller: `client:ID`, `role:admin`
    (`user`, `auditor`) and, for a session that came by a role of an issuer, `issuer-role:NAME`. `is_owner` says that
    the key is the caller's own. `source` is the address of the caller, None where it has none.

    The rest is for CreateGrant (and for RevokeGrant and ListGrants, as far as there is any): AWS's names of the
    operations that are granted, the ARNs of who gets the grant and who may retire it, and whether the grant asks for
    `EncryptionContextEquals` or `EncryptionContextSubset`.
    """

    action: str
    principals: frozenset[str]
    is_owner: bool
    key_id: str
    source: str | None = None
    grant_operations: frozenset[str] | None = None
    grantee: str | None = None
    retiring: str | None = None
    grant_constraint: str | None = None


@dataclass(frozen=True, slots=True)
class Circumstances:
    """What can change from one message to the next.

    `context` is the encryption context, None where there is none. `now` is needed for conditions on the time only:
    without it they are about a key that is absent. `second_factor_age` is in seconds, None for a caller that proved
    none. `is_session` is false for long-lived credentials, which AWS says nothing of a second factor for.
    """

    context: Mapping[str, str] | None = None
    now: datetime | None = None
    second_factor_age: float | None = None
    is_session: bool = True
