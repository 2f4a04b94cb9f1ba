"""Keys whose material is kept elsewhere and lent to the service: it comes wrapped, and can be taken back."""

from __future__ import annotations

import hmac
from dataclasses import replace
from datetime import datetime

from kms.access.policy import Permission
from kms.access.ratelimit import RateClass
from kms.crypto.keytype import KeyMaterial
from kms.crypto.registry import key_type
from kms.errors import Conflict, KeyStateConflict, ValidationFailed
from kms.keys.ids import KeyId
from kms.keys.lifecycle import awaits_material, effective_state
from kms.keys.model import Key, KeyState, KeyVersion, Origin
from kms.operations.core.declare import EmptyRequest, FromAnswerOf, Request, operation
from kms.operations.core.key_access import authorized_key
from kms.operations.core.service import Call, Service
from kms.operations.core.types import Moment
from kms.operations.keys.manage import CreateKeyRequest, spec_of, stored
from kms.operations.keys.views import KeyView, shown_now
from kms.operations.transfer.importing import Format, StandingAlgorithm, consume_wrapping_key, unwrapped_import
from kms.vault.change import Change

_CAN_BE_LENT = frozenset({KeyState.PRE_ACTIVATION, KeyState.ACTIVE, KeyState.SUSPENDED})


class ImportMaterialRequest(Request):
    """The material under a wrapping key, in a `format` as for an import; after `valid_until` it is forgotten."""

    wrapping_key_id: str
    wrapped_key: bytes
    algorithm: StandingAlgorithm | None = None
    format: Format | None = None
    valid_until: Moment | None = None


@operation(
    "POST",
    "/api/v1/keys/external",
    permission=Permission.KEYS_CREATE,
    rate_class=RateClass.GENERATE,
    request=CreateKeyRequest,
    status=201,
    location="/api/v1/keys/{key_id}",
    example={"type": "xaes-256-gcm", "key_id": "lent"},
)
def create_external_key(service: Service, call: Call, request: CreateKeyRequest) -> KeyView:
    """Make a key that waits for its material; until then it is refused every use."""
    spec = replace(spec_of(service, call, request), origin=Origin.IMPORTED)
    return stored(service, call, spec, KeyMaterial(None))


@operation(
    "POST",
    "/api/v1/keys/<key_id>/material",
    permission=Permission.KEYS_UPDATE,
    rate_class=RateClass.GENERATE,
    request=ImportMaterialRequest,
    slow=True,
    example={
        "wrapping_key_id": FromAnswerOf("create_wrapping_key", "wrapping_key_id", "0" * 32),
        "wrapped_key": FromAnswerOf("export_key", "wrapped_key", "AAECAwQFBgcICQoLDA0ODw=="),
    },
)
def import_material(service: Service, call: Call, request: ImportMaterialRequest, key_id: KeyId) -> KeyView:
    """Give a key the material that it waits for: any at first, later only the same again."""
    now = service.clock()
    if request.valid_until is not None and request.valid_until <= now:
        raise ValidationFailed("valid_until: must lie in the future.")
    with service.vault.read() as snapshot:
        seen = authorized_key(snapshot, call, Permission.KEYS_UPDATE, key_id)
    imported = unwrapped_import(service, call, request, key_type(seen.type))
    material = imported.material
    assert material.private is not None
    with service.change(call) as change:
        key, version = _external(change, call, key_id, now)
        fingerprint = fingerprint_of(change, key, material.private)
        if version.fingerprint is not None and not hmac.compare_digest(version.fingerprint, fingerprint):
            raise Conflict(f"{key.key_id} had other material before; only the same can come again.")
        consume_wrapping_key(change, imported)
        expires_at = now + key.cryptoperiod
        after = replace(
            version,
            activate_at=max(version.activate_at, now),
            expires_at=expires_at,
            process_until=expires_at + service.cryptoperiods.process_after,
            material=change.seal_material(key, version.version, version.type, material.private),
            public_key=material.public,
            fingerprint=fingerprint,
            material_until=request.valid_until,
        )
        change.replace(version, after)
    return shown_now(service, call)


@operation("DELETE", "/api/v1/keys/<key_id>/material", permission=Permission.KEYS_UPDATE, example={})
def delete_material(service: Service, call: Call, request: EmptyRequest, key_id: str) -> KeyView:
    """Forget the material of such a key at once; the key waits until the same comes again."""
    with service.change(call) as change:
        key, version = _external(change, call, key_id, service.clock())
        if version.material is None:
            raise KeyStateConflict(f"{key.key_id} has no material at the moment.")
        forget_material(change, version)
    return shown_now(service, call)


def fingerprint_of(change: Change, key: Key, material: bytes) -> bytes:
    """A keyed fingerprint that recognises the same material later; computing it needs the root key."""
    return change.derived_keys.credential_hash("material", key.uid, material)


def forget_material(change: Change, version: KeyVersion) -> None:
    """Take the material of a version away, all but by what it is known again."""
    change.replace(version, replace(version, material=None, public_key=None, material_until=None))


def _external(change: Change, call: Call, key_id: str, now: datetime) -> tuple[Key, KeyVersion]:
    """The key and its only version, which can be without material. Raises Conflict, KeyStateConflict."""
    key = authorized_key(change, call, Permission.KEYS_UPDATE, key_id)
    version = change.find(KeyVersion, key.uid, key.latest_version)
    assert version is not None
    is_external = version.fingerprint is not None or awaits_material(version, now)
    if not is_external or key.latest_version != 1:
        raise Conflict(f"{key.key_id} was not made to wait for material; import its next version instead.")
    if key.deletion_at is not None:
        raise KeyStateConflict(f"{key.key_id} is to be deleted. Cancel that first.")
    state = effective_state(version, now)
    if state not in _CAN_BE_LENT:
        raise KeyStateConflict(f"{key.key_id} is {state}; it takes no material any more.")
    call.version = version.version
    return key, version
