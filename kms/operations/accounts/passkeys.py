"""The passkeys by which people log in, over REST, in the JSON forms of browsers (WebAuthn Level 3)."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Annotated

import msgspec
from msgspec import UNSET, UnsetType

from kms.access import challenges, clients, passkeys, policy, step_up, webauthn
from kms.access.model import Caller
from kms.access.passkeys import Passkey
from kms.access.policy import Permission
from kms.access.ratelimit import RateClass
from kms.access.webauthn import Base64Url, RegistrationResponse
from kms.approvals.deciding import end_calls_made_with
from kms.errors import Conflict, NotFound, PermissionDenied
from kms.operations.core.declare import Answer, EmptyRequest, Request, operation
from kms.operations.core.service import Call, Service

_MOST = 20
_FACTOR_WITHIN = timedelta(minutes=5)
_TIMEOUT = int(challenges.LIFETIME.total_seconds() * 1000)
_SERVICE_NAME = "KMS"


class Credential(Answer):
    """PublicKeyCredentialDescriptorJSON; `id` in base64url."""

    id: Base64Url
    type: str = "public-key"
    transports: list[str] | UnsetType = UNSET


class RelyingPartyEntity(Answer):
    """PublicKeyCredentialRpEntity: the host of this service."""

    id: str
    name: str = _SERVICE_NAME


class UserEntity(Answer, rename="camel"):
    """PublicKeyCredentialUserEntityJSON: the client. `id` is in base64url and says nothing of it."""

    id: Base64Url
    name: str
    display_name: str


class KeyParameters(Answer):
    """PublicKeyCredentialParameters: a COSE algorithm."""

    alg: int
    type: str = "public-key"


class AuthenticatorSelection(Answer, rename="camel"):
    """AuthenticatorSelectionCriteria: asks for a discoverable credential and for user verification."""

    resident_key: str = "required"
    require_resident_key: bool = True
    user_verification: str = "required"


class PasskeyCreationOptions(Answer, rename="camel"):
    """PublicKeyCredentialCreationOptionsJSON, for `PublicKeyCredential.parseCreationOptionsFromJSON()`.

    `timeout` is in milliseconds; bytes are base64url.
    """

    rp: RelyingPartyEntity
    user: UserEntity
    challenge: Base64Url
    pub_key_cred_params: list[KeyParameters]
    timeout: int
    exclude_credentials: list[Credential]
    authenticator_selection: AuthenticatorSelection
    attestation: str = "none"


class PasskeyRequestOptions(Answer, rename="camel"):
    """PublicKeyCredentialRequestOptionsJSON, for `PublicKeyCredential.parseRequestOptionsFromJSON()`.

    `timeout` is in milliseconds; bytes are base64url.
    """

    challenge: Base64Url
    timeout: int
    rp_id: str
    allow_credentials: list[Credential]
    user_verification: str = "required"


class AddPasskeyRequest(Request):
    """`name` is a label for people; `response` is what the browser gave for the creation options."""

    name: Annotated[str, msgspec.Meta(min_length=1, max_length=64, pattern=r"^[^\x00-\x1f\x7f]+\Z")]
    response: RegistrationResponse


class PasskeyView(Answer):
    """A passkey of a client. `backup_eligible` says that it may be synchronised to several devices."""

    passkey_id: str
    client_id: str
    name: str
    backup_eligible: bool
    transports: list[str]
    created_at: datetime
    last_used_at: datetime | UnsetType = UNSET


class PasskeyList(Answer):
    """The passkeys of a client, the oldest first."""

    items: list[PasskeyView]
    next_cursor: str | None


@operation(
    "POST",
    "/auth/passkey/options",
    permission=None,
    rate_class=RateClass.PUBLIC,
    hot=True,
    is_public=True,
)
def passkey_request_options(service: Service, call: Call, request: EmptyRequest) -> PasskeyRequestOptions:
    """Get options for logging in, or for confirming a session, with a passkey; they name no client.

    The browser's answer goes to `POST /auth/token` or `POST /auth/second-factor` within five minutes, once.
    """
    return PasskeyRequestOptions(
        challenge=webauthn.encoded(service.passkeys.login_challenge()),
        timeout=_TIMEOUT,
        rp_id=service.passkeys.party.id,
        allow_credentials=[],
    )


@operation("POST", "/api/v1/clients/<client_id>/passkeys/options", permission=Permission.SESSIONS_MANAGE)
def passkey_creation_options(
    service: Service, call: Call, request: EmptyRequest, client_id: str
) -> PasskeyCreationOptions:
    """Get options for adding a passkey to your own client; needs a second factor from the last five minutes."""
    _require_own(call.known_caller, client_id, service.clock())
    call.target = client_id
    with service.vault.read() as snapshot:
        known = snapshot.matching(Passkey, client_id=client_id, order_by="created_at")
    handle = passkeys.user_handle(service.vault.derived_keys, client_id)
    return PasskeyCreationOptions(
        rp=RelyingPartyEntity(id=service.passkeys.party.id),
        user=UserEntity(id=webauthn.encoded(handle), name=client_id, display_name=client_id),
        challenge=webauthn.encoded(service.passkeys.creation_challenge(client_id)),
        pub_key_cred_params=[KeyParameters(alg=each) for each in webauthn.ALGORITHMS],
        timeout=_TIMEOUT,
        exclude_credentials=[
            Credential(id=webauthn.encoded(each.credential_id), transports=sorted(each.transports) or UNSET)
            for each in known
        ],
        authenticator_selection=AuthenticatorSelection(),
    )


@operation(
    "POST",
    "/api/v1/clients/<client_id>/passkeys",
    permission=Permission.SESSIONS_MANAGE,
    request=AddPasskeyRequest,
    status=201,
)
def add_passkey(service: Service, call: Call, request: AddPasskeyRequest, client_id: str) -> PasskeyView:
    """Add a passkey to your own client: whoever has it can log in as that client.

    Nobody can do this for another client, not even an administrator. It needs a second factor that was given in the
    last five minutes.
    """
    _require_own(call.known_caller, client_id, service.clock())
    verified = service.passkeys.verified(client_id, request.response)  # which may take long: no change waits for it
    with service.change(call) as change:
        call.target = clients.get(change, client_id).client_id
        if len(change.matching(Passkey, client_id=client_id)) >= _MOST:
            raise Conflict(f"{client_id} has {_MOST} passkeys. Delete one first.")
        made = service.passkeys.add(change, verified, request.name)
        call.credential = passkeys.credential_of(made.passkey_id)
    return _view(made)


@operation("GET", "/api/v1/clients/<client_id>/passkeys", permission=Permission.SESSIONS_MANAGE)
def list_passkeys(service: Service, call: Call, request: EmptyRequest, client_id: str) -> PasskeyList:
    """List the passkeys with which a client can log in."""
    policy.require_over(call.known_caller, client_id, Permission.CLIENTS_READ)
    with service.vault.read() as snapshot:
        call.target = clients.get(snapshot, client_id).client_id
        found = snapshot.matching(Passkey, client_id=client_id, order_by="created_at")
    return PasskeyList(items=[_view(each) for each in found], next_cursor=None)


@operation("DELETE", "/api/v1/clients/<client_id>/passkeys/<passkey_id>", permission=Permission.SESSIONS_MANAGE)
def delete_passkey(
    service: Service, call: Call, request: EmptyRequest, client_id: str, passkey_id: str
) -> PasskeyView:
    """Delete a passkey; the sessions and access keys obtained with it end on every worker before this answers."""
    policy.require_over(call.known_caller, client_id, Permission.CLIENTS_MANAGE)
    with service.change(call) as change:
        call.target = clients.get(change, client_id).client_id
        keys = {each.passkey_id: each for each in change.matching(Passkey, client_id=client_id)}
        if passkey_id not in keys:
            raise NotFound("There is no such passkey of this client.")
        passkeys.end(change, keys[passkey_id])
        call.credential = passkeys.credential_of(passkey_id)
        end_calls_made_with(change, call.credential, client_id, call.known_caller.client_id, service.clock())
    return _view(keys[passkey_id])


def _require_own(caller: Caller, client_id: str, now: datetime) -> None:
    """Raise PermissionDenied, or InsufficientUserAuthentication, unless `caller` may add a passkey to that client."""
    if client_id != caller.client_id:
        raise PermissionDenied("Only a client itself adds passkeys: its person holds them.")
    step_up.require_unnarrowed(caller)
    step_up.require(caller, _FACTOR_WITHIN, now)


def _view(passkey: Passkey) -> PasskeyView:
    return PasskeyView(
        passkey_id=passkey.passkey_id,
        client_id=passkey.client_id,
        name=passkey.name,
        backup_eligible=passkey.backup_eligible,
        transports=sorted(passkey.transports),
        created_at=passkey.created_at,
        last_used_at=passkey.last_used_at or UNSET,
    )
