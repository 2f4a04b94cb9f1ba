"""Many keys at once: rotate and revoke, up to a thousand in one transaction."""

from __future__ import annotations

from collections.abc import Sequence

from kms.access.policy import Permission
from kms.access.ratelimit import RateClass
from kms.crypto.keytype import KeyMaterial, KeyType
from kms.errors import Refusal
from kms.keys.ids import KeyId
from kms.keys.model import Key, KeyVersion
from kms.operations.core.declare import MOST_ITEMS, Request, operation
from kms.operations.core.service import Call, Service
from kms.operations.keys.state_changes import RevokeKeyRequest, next_material, revoke, rotate
from kms.operations.keys.views import KeySummary, summary_members
from kms.vault.change import Change


class RotateKeyRequest(Request):
    """The id or alias of the key to rotate."""

    key_id: KeyId


class RevokeNamedKeyRequest(RevokeKeyRequest, kw_only=True):
    """The id or alias of the key to revoke, the reason (RFC 5280), and when it was compromised, if that is known."""

    key_id: KeyId


_Made = tuple[str, tuple[KeyType, KeyMaterial]]


def _rotate_batch(
    service: Service, call: Call, items: Sequence[RotateKeyRequest | Refusal]
) -> list[KeySummary | Refusal]:
    """Rotate each of the items, in one transaction."""

    def made(item: RotateKeyRequest | Refusal) -> _Made | Refusal:
        if isinstance(item, Refusal):
            return item
        try:
            return item.key_id, next_material(service, call, item.key_id)
        except Refusal as refusal:
            return refusal

    def act(change: Change, own: Call, asked: _Made) -> KeySummary:
        return _summary(service, *rotate(service, own, change, *asked))

    results = service.change_each(call, [made(item) for item in items], act)
    call.key_id = call.version = None
    return results


def _revoke_batch(
    service: Service, call: Call, items: Sequence[RevokeNamedKeyRequest | Refusal]
) -> list[KeySummary | Refusal]:
    """Revoke each of the items, in one transaction."""

    def act(change: Change, own: Call, item: RevokeNamedKeyRequest) -> KeySummary:
        return _revoked(service, own, change, item)

    return service.change_each(call, items, act)


@operation(
    "POST",
    "/api/v1/keys/rotate",
    permission=Permission.KEYS_ROTATE,
    rate_class=RateClass.GENERATE,
    request=RotateKeyRequest,
    slow=True,
    batched=True,
    batch_function=_rotate_batch,
    at_once=MOST_ITEMS,
    example={"key_id": "spare"},
)
def rotate_named_key(service: Service, call: Call, request: RotateKeyRequest) -> KeySummary:
    """Make the next version of a key, or of up to a thousand keys in one transaction."""
    material = next_material(service, call, request.key_id)
    with service.change(call) as change:
        return _summary(service, *rotate(service, call, change, request.key_id, material))


@operation(
    "POST",
    "/api/v1/keys/revoke",
    permission=Permission.KEYS_REVOKE,
    request=RevokeNamedKeyRequest,
    batched=True,
    batch_function=_revoke_batch,
    at_once=MOST_ITEMS,
    example={"key_id": "retired", "reason": "superseded"},
)
def revoke_named_key(service: Service, call: Call, request: RevokeNamedKeyRequest) -> KeySummary:
    """Revoke a key, or up to a thousand keys in one transaction; every worker knows it once this has answered."""
    with service.change(call) as change:
        return _revoked(service, call, change, request)


def _revoked(service: Service, call: Call, change: Change, request: RevokeNamedKeyRequest) -> KeySummary:
    key = revoke(service, call, change, request.key_id, request.reason, request.compromised_at)
    return _summary(service, key, change.latest_versions(key, 1)[0])


def _summary(service: Service, key: Key, latest: KeyVersion) -> KeySummary:
    return KeySummary(**summary_members(key, latest, service.clock()))
