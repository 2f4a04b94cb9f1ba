"""The public keys that verify the client assertions of a client's programs (RFC 7523), over REST."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from typing import Annotated, Any

import msgspec
from msgspec import UNSET, UnsetType

from kms.access import clients, policy, public_keys, step_up
from kms.access.policy import Permission
from kms.access.public_keys import PublicKey
from kms.access.verification_key import VerificationKey, public_key_from_jwk, public_key_from_pem
from kms.approvals.deciding import end_calls_made_with
from kms.errors import AlreadyExists, Conflict, NotFound, ValidationFailed
from kms.operations.core.declare import Answer, EmptyRequest, Request, operation
from kms.operations.core.service import Call, Service
from kms.operations.core.types import Moment

_MOST = 20
_FACTOR_WITHIN = timedelta(minutes=5)
Pem = Annotated[str, msgspec.Meta(max_length=16_384)]


class AddPublicKeyRequest(Request):
    """A public key on P-256, P-384, P-521 or Ed25519, or an RSA public key: a JWK in `jwk`, or PEM in `public_key`.

    After `expires_at` nobody can log in with it.
    """

    jwk: dict[str, Any] | None = None
    public_key: Pem | None = None
    expires_at: Moment | None = None


class PublicKeyView(Answer):
    """A public key of a client. `kid` is its RFC 7638 thumbprint, `algorithm` the recommended one for assertions."""

    kid: str
    client_id: str
    algorithm: str
    algorithms: list[str]
    jwk: dict[str, Any]
    created_at: datetime
    expires_at: datetime | UnsetType = UNSET


class PublicKeyList(Answer):
    """The public keys of a client."""

    items: list[PublicKeyView]
    next_cursor: str | None


@operation(
    "POST",
    "/api/v1/clients/<client_id>/public-keys",
    permission=Permission.SESSIONS_MANAGE,
    request=AddPublicKeyRequest,
    status=201,
)
def add_public_key(service: Service, call: Call, request: AddPublicKeyRequest, client_id: str) -> PublicKeyView:
    """Add a public key to a client: whoever has its private key can then log in as the client.

    A client can do this for itself if a person gave a second factor within the last five minutes; an administrator
    can do it for other clients.
    """
    caller, now = call.known_caller, service.clock()
    policy.require_over(caller, client_id, Permission.CLIENTS_MANAGE)
    if client_id == caller.client_id:
        step_up.require_unnarrowed(caller)
        step_up.require(caller, _FACTOR_WITHIN, now)
    key = _key(request)
    if request.expires_at is not None and request.expires_at <= now:
        raise ValidationFailed("expires_at: must lie in the future.")
    made = PublicKey(client_id, key.kid, dict(key.jwk), now, request.expires_at)
    with service.change(call) as change:
        call.target = clients.get(change, client_id).client_id
        if change.find(PublicKey, client_id, key.kid) is not None:
            raise AlreadyExists(f"{client_id} has this key already: {key.kid}.")
        if len(change.matching(PublicKey, client_id=client_id)) >= _MOST:
            raise Conflict(f"{client_id} has {_MOST} public keys. Delete one first.")
        change.insert(made)
        call.credential = public_keys.credential_of(key.kid)
    return _view(made)


@operation("GET", "/api/v1/clients/<client_id>/public-keys", permission=Permission.SESSIONS_MANAGE)
def list_public_keys(service: Service, call: Call, request: EmptyRequest, client_id: str) -> PublicKeyList:
    """List the public keys with which a client can log in."""
    policy.require_over(call.known_caller, client_id, Permission.CLIENTS_READ)
    with service.vault.read() as snapshot:
        call.target = clients.get(snapshot, client_id).client_id
        found = snapshot.matching(PublicKey, client_id=client_id, order_by="created_at")
    return PublicKeyList(items=[_view(each) for each in found], next_cursor=None)


@operation("DELETE", "/api/v1/clients/<client_id>/public-keys/<kid>", permission=Permission.SESSIONS_MANAGE)
def delete_public_key(service: Service, call: Call, request: EmptyRequest, client_id: str, kid: str) -> PublicKeyView:
    """Delete a public key; the sessions and access keys obtained with it end on every worker before this answers."""
    policy.require_over(call.known_caller, client_id, Permission.CLIENTS_MANAGE)
    with service.change(call) as change:
        call.target = clients.get(change, client_id).client_id
        keys = {each.kid: each for each in change.matching(PublicKey, client_id=client_id)}
        if kid not in keys:
            raise NotFound("There is no such public key of this client.")
        public_keys.end(change, keys[kid])
        call.credential = public_keys.credential_of(kid)
        end_calls_made_with(change, call.credential, client_id, call.known_caller.client_id, service.clock())
    return _view(keys[kid])


class EndedCertificateView(Answer):
    """A certificate with which the client can no longer log in; `thumbprint` is the SHA-256 of its DER, as hex."""

    client_id: str
    thumbprint: str


@operation("DELETE", "/api/v1/clients/<client_id>/certificates/<thumbprint>", permission=Permission.SESSIONS_MANAGE)
def end_certificate(
    service: Service, call: Call, request: EmptyRequest, client_id: str, thumbprint: str
) -> EndedCertificateView:
    """Refuse a certificate from now on, and end all sessions that any certificate of the client opened.

    They have ended on every worker once this answers. The service need not have seen the certificate before. Sessions
    of the client's other certificates end too, because one certificate can have two encodings with different
    thumbprints; those other certificates can log in again.
    """
    policy.require_over(call.known_caller, client_id, Permission.CLIENTS_MANAGE)
    if not re.fullmatch("[0-9a-f]{64}", thumbprint):
        raise NotFound("A thumbprint is the SHA-256 of a certificate in DER: 64 hexadecimal digits in lower case.")
    with service.change(call) as change:
        call.target = clients.get(change, client_id).client_id
        public_keys.end_certificate(change, client_id, thumbprint, service.clock())
        call.credential = public_keys.CERTIFICATE + thumbprint
        end_calls_made_with(change, call.credential, client_id, call.known_caller.client_id, service.clock())
    return EndedCertificateView(client_id=client_id, thumbprint=thumbprint)


def _key(request: AddPublicKeyRequest) -> VerificationKey:
    if request.jwk is not None and request.public_key is None:
        return public_key_from_jwk(request.jwk)
    if request.public_key is not None and request.jwk is None:
        return public_key_from_pem(request.public_key)
    raise ValidationFailed("jwk, public_key: give one of them.")


def _view(key: PublicKey) -> PublicKeyView:
    algorithms = public_key_from_jwk(key.jwk).algorithms
    return PublicKeyView(
        kid=key.kid,
        client_id=key.client_id,
        algorithm=algorithms[0],
        algorithms=list(algorithms),
        jwk=key.jwk,
        created_at=key.created_at,
        expires_at=key.expires_at or UNSET,
    )
