"""Access keys over REST: a client makes them for its own programs, in a session that had a second factor."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Annotated

import msgspec
from msgspec import UNSET, UnsetType

from kms.access import access_keys, policy, sessions
from kms.access.access_keys import AccessKey
from kms.access.model import is_of_person
from kms.access.policy import Permission
from kms.access.ratelimit import RateClass
from kms.approvals.deciding import end_calls_made_with
from kms.errors import Conflict, NotFound, ValidationFailed
from kms.operations.core.declare import Answer, EmptyRequest, Request, operation
from kms.operations.core.service import Call, Service

_MOST = 100


class CreateAccessKeyRequest(Request):
    """What the new access key shall be.

    `expires_in` is in seconds, at least 60. The longest that it can be, and its default, is the setting
    `KMS_ACCESS_KEY_LIFETIME`. `with_session_token` also makes a session token, which every request must then carry
    in the header `X-Amz-Security-Token` beside its signature. `scope` narrows what the access key may do, as it
    narrows a session. With `needs_second_factor` the key can only be exchanged, together with a TOTP code, for
    short-lived access keys (STS `GetSessionToken`, `AssumeRole`); the setting `KMS_MFA_ACCESS_KEY_LIFETIME` then
    limits `expires_in`.
    """

    expires_in: Annotated[int, msgspec.Meta(ge=60, le=315_360_000)] | None = None
    with_session_token: bool = False
    needs_second_factor: bool = False
    scope: Annotated[str, msgspec.Meta(max_length=8192)] = ""


class AccessKeyAnswer(Answer, kw_only=True):
    """The new access key. Its secret and its session token are shown only in this answer."""

    access_key_id: str
    secret_access_key: str
    session_token: str | UnsetType = UNSET
    expires_at: datetime


class AccessKeyView(Answer):
    """An access key without its secret."""

    access_key_id: str
    client_id: str
    created_at: datetime
    expires_at: datetime
    needs_second_factor: bool = False
    scope: str | UnsetType = UNSET


class AccessKeyList(Answer):
    """The caller's access keys that have not expired."""

    items: list[AccessKeyView]
    next_cursor: str | None


@operation(
    "POST",
    "/api/v1/access-keys",
    permission=Permission.SESSIONS_MANAGE,
    rate_class=RateClass.GENERATE,
    request=CreateAccessKeyRequest,
    status=201,
    checked_upfront=True,
    example={"expires_in": 3600},
)
def create_access_key(service: Service, call: Call, request: CreateAccessKeyRequest) -> AccessKeyAnswer:
    """Make an access key for programs that sign their requests as AWS programs do (Signature Version 4).

    Its expiry is set now and cannot be extended. If the caller's session was opened by a program (by a key, a
    token or an access key), or was made from another session, the access key expires no later than that session.
    """
    caller, settings = call.known_caller, service.settings
    longest = settings.mfa_access_key_lifetime if request.needs_second_factor else settings.access_key_lifetime
    narrowed = sessions.narrowed_scope(caller, frozenset(request.scope.split()))
    if narrowed is not None and narrowed.is_metrics_only:
        longest = max(longest, settings.metrics_token_lifetime)
    if request.needs_second_factor and request.with_session_token:
        raise ValidationFailed("with_session_token: not together with needs_second_factor.")
    lifetime = longest if request.expires_in is None else timedelta(seconds=request.expires_in)
    if lifetime > longest:
        raise ValidationFailed(f"expires_in: at most {int(longest.total_seconds())} seconds.")
    now = service.clock()
    expires_at = now + lifetime
    is_child = caller.token is not None and caller.token.parent is not None
    if (is_child or not is_of_person(caller.credential)) and caller.expires_at is not None:
        expires_at = min(expires_at, caller.expires_at)  # no program may make itself live on
    with service.change(call) as change:
        # Those with a session token are as many as sessions: STS gives one to each program that asks.
        if not request.with_session_token and access_keys.lasting(change, caller.client_id, _MOST) >= _MOST:
            raise Conflict(f"There are {_MOST} access keys of this client. Delete some first.")
        minted = access_keys.mint(
            change,
            caller,
            now,
            expires_at,
            scope=narrowed.words if narrowed is not None else frozenset(),
            with_session_token=request.with_session_token,
            needs_second_factor=request.needs_second_factor,
        )
        call.target = minted.record.access_key_id
    return AccessKeyAnswer(
        access_key_id=minted.record.access_key_id,
        secret_access_key=minted.secret,
        session_token=minted.session_token or UNSET,
        expires_at=minted.record.expires_at,
    )


@operation("GET", "/api/v1/access-keys", permission=Permission.SESSIONS_MANAGE, checked_upfront=True)
def list_access_keys(service: Service, call: Call, request: EmptyRequest) -> AccessKeyList:
    """List the caller's access keys that have not expired; if there are very many, the newest thousand."""
    with service.vault.read() as snapshot:
        found = access_keys.in_force(snapshot, call.known_caller.client_id, service.clock())
    return AccessKeyList(items=[_view(each) for each in found], next_cursor=None)


@operation(
    "DELETE", "/api/v1/access-keys/<access_key_id>", permission=Permission.SESSIONS_MANAGE, checked_upfront=True
)
def delete_access_key(service: Service, call: Call, request: EmptyRequest, access_key_id: str) -> AccessKeyView:
    """Delete an access key, and end the sessions and access keys obtained with it, on all workers.

    Once this has answered no worker accepts them. Clients can delete their own access keys, administrators also those
    of others.
    """
    caller = call.known_caller
    with service.change(call) as change:
        found = change.find(AccessKey, access_key_id) if access_keys.is_access_key_id(access_key_id) else None
        is_own = found is not None and found.client_id == caller.client_id
        if found is None or not (is_own or policy.has_permission(caller, Permission.CLIENTS_MANAGE)):
            raise NotFound("There is no such access key of yours.")
        call.target = found.access_key_id
        sessions.end_access_key(change, found)
        end_calls_made_with(change, sessions.credential_of(found), found.client_id, caller.client_id, service.clock())
    return _view(found)


def _view(key: AccessKey) -> AccessKeyView:
    return AccessKeyView(
        access_key_id=key.access_key_id,
        client_id=key.client_id,
        created_at=key.created_at,
        expires_at=key.expires_at,
        needs_second_factor=key.needs_second_factor,
        scope=" ".join(sorted(key.scope)) or UNSET,
    )
