"""Keys whose material is kept outside the service: it is imported wrapped, and can be removed and imported again."""

from __future__ import annotations

import hmac
from dataclasses import replace
from datetime import datetime

from msgspec.structs import asdict

from kms.access.policy import Permission
from kms.access.ratelimit import RateClass
from kms.crypto.keytype import KeyMaterial
from kms.crypto.registry import key_type
from kms.errors import Conflict, KeyStateConflict, ValidationFailed
from kms.keys.ids import KeyId
from kms.keys.lifecycle import effective_state, external_material
from kms.keys.model import Key, KeyState, KeyVersion, Origin
from kms.operations.core.declare import FromAnswerOf, Request, operation
from kms.operations.core.key_access import VersionNumber, authorized_key
from kms.operations.core.service import Call, Service
from kms.operations.core.types import Moment
from kms.operations.keys import key_factory
from kms.operations.keys.manage import CreateKeyRequest, spec_of, stored
from kms.operations.keys.views import KeyView, shown_now
from kms.operations.transfer.importing import (
    Format,
    StandingAlgorithm,
    UnwrappedImport,
    consume_wrapping_key,
    unwrapped_import,
)
from kms.vault.change import Change

_CAN_BE_LENT = frozenset({KeyState.PRE_ACTIVATION, KeyState.ACTIVE, KeyState.SUSPENDED})


class ImportMaterialRequest(Request):
    """Key material, wrapped under a wrapping key; `format` and `algorithm` are as for an import.

    After `valid_until` the service forgets the material; without it, it keeps the material. Once the key has had
    material, only the same can be imported again. Other material needs `next_version` true, and is put in force by
    the next rotation. `version` refuses the request unless the material is that of this version.
    """

    wrapping_key_id: str
    wrapped_key: bytes
    algorithm: StandingAlgorithm | None = None
    format: Format | None = None
    valid_until: Moment | None = None
    next_version: bool = False
    version: VersionNumber | None = None


class ImportedMaterialView(KeyView, kw_only=True):
    """The key; `imported_version` is the number of the version to which the material belongs."""

    imported_version: int


class DeleteMaterialRequest(Request):
    """`version` is the version whose material is removed, by default the latest."""

    version: VersionNumber | None = None


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
    """Make a key without material. Every use of it is refused until its material is imported."""
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
def import_material(
    service: Service, call: Call, request: ImportMaterialRequest, key_id: KeyId
) -> ImportedMaterialView:
    """Import material into a key made for it: its first, the same again after a removal, or its next version's."""
    now = service.clock()
    if request.valid_until is not None and request.valid_until <= now:
        raise ValidationFailed("valid_until: must lie in the future.")
    with service.vault.read() as snapshot:
        seen = authorized_key(service, snapshot, call, Permission.KEYS_UPDATE, key_id)
    imported = unwrapped_import(service, call, request, key_type(seen.type))
    material = imported.material
    assert material.private is not None
    with service.change(call) as change:
        key, latest = _external(service, change, call, key_id)
        if key.deletion_at is not None:
            raise KeyStateConflict(f"{key.key_id} is to be deleted. Cancel that first.")
        if (state := effective_state(latest, now)) not in _CAN_BE_LENT:
            raise KeyStateConflict(f"{key.key_id} is {state}; it takes no material any more.")
        fingerprint = fingerprint_of(change, key, material.private)
        version = _place(change, key, latest, fingerprint, request, now)
        consume_wrapping_key(change, imported)
        if version is None:
            version = key_factory.set_pending_rotation(change, key, material, fingerprint, request.valid_until, now)
        else:
            change.replace(version, _with_material(service, change, key, version, imported, fingerprint, request))
        call.version = version.version
    return ImportedMaterialView(**asdict(shown_now(service, call)), imported_version=version.version)


def _place(
    change: Change, key: Key, latest: KeyVersion, fingerprint: bytes, request: ImportMaterialRequest, now: datetime
) -> KeyVersion | None:
    """The version to which the material belongs; None if it is new material, for the key's next version.

    Raises Conflict for material other than the request says, and KeyStateConflict if other material already waits for
    the next rotation, or if the version was destroyed or compromised.
    """
    if latest.fingerprint is None:
        return latest
    known = next(
        (
            each
            for each in change.versions(key)
            if each.fingerprint is not None and hmac.compare_digest(each.fingerprint, fingerprint)
        ),
        None,
    )
    if known is not None and known.state in {KeyState.DESTROYED, KeyState.COMPROMISED}:
        raise KeyStateConflict(f"Version {known.version} of {key.key_id} is {known.state}; it takes no material.")
    if not request.next_version:
        if known is None or request.version not in (None, known.version):
            raise Conflict(f"{key.key_id} had other material before; only the same can come again.")
        return known
    if known is not None and known.version <= key.latest_version:
        raise Conflict(f"{key.key_id} has had this material before; its next version needs other.")
    if known is None and key_factory.pending_rotation(change, key, now) is not None:
        raise KeyStateConflict(
            f"Other material waits for the next rotation of {key.key_id}. Rotate or delete it first."
        )
    return known


def _with_material(
    service: Service,
    change: Change,
    key: Key,
    version: KeyVersion,
    imported: UnwrappedImport,
    fingerprint: bytes,
    request: ImportMaterialRequest,
) -> KeyVersion:
    """`version` with its material. If it is the latest version, its cryptoperiod begins now."""
    material, now = imported.material, service.clock()
    assert material.private is not None
    given = replace(
        version,
        material=change.seal_material(key, version.version, version.type, material.private),
        public_key=material.public,
        fingerprint=fingerprint,
        material_until=request.valid_until,
    )
    if version.version != key.latest_version:
        return given
    expires_at = now + key.cryptoperiod
    return replace(
        given,
        activate_at=max(version.activate_at, now),
        expires_at=expires_at,
        process_until=expires_at + service.cryptoperiods.process_after,
    )


@operation(
    "DELETE",
    "/api/v1/keys/<key_id>/material",
    permission=Permission.KEYS_UPDATE,
    request=DeleteMaterialRequest,
    example={},
)
def delete_material(service: Service, call: Call, request: DeleteMaterialRequest, key_id: str) -> KeyView:
    """Remove the material of a version of such a key at once; the same material can be imported again later.

    Until then every use of that version is refused. If the material waits for the next rotation, its version is
    removed as well.
    """
    with service.change(call) as change:
        key, latest = _external(service, change, call, key_id)
        number = request.version or latest.version
        version = change.find(KeyVersion, key.uid, number)
        if version is None or version.material is None:
            raise KeyStateConflict(f"{key.key_id} has no material at the moment.")
        if version.state is KeyState.COMPROMISED:
            raise KeyStateConflict(f"{key.key_id} is {version.state}; its material stays as it is.")
        call.version = number
        if number > key.latest_version:
            change.delete(version)
        else:
            forget_material(change, version)
    return shown_now(service, call)


def fingerprint_of(change: Change, key: Key, material: bytes) -> bytes:
    """A keyed fingerprint that recognises the same material later; computing it needs the root key."""
    return change.derived_keys.credential_hash("material", key.uid, material)


def forget_material(change: Change, version: KeyVersion) -> None:
    """Remove the material of a version, but keep the fingerprint by which it is recognised later."""
    change.replace(version, replace(version, material=None, public_key=None, material_until=None))


def _external(service: Service, change: Change, call: Call, key_id: str) -> tuple[Key, KeyVersion]:
    """The key and its latest version. Raises Conflict unless the key was made for external material."""
    key = authorized_key(service, change, call, Permission.KEYS_UPDATE, key_id)
    latest = change.find(KeyVersion, key.uid, key.latest_version)
    assert latest is not None
    if external_material(latest, service.clock()) is None:
        raise Conflict(f"{key.key_id} was not made to wait for material; import its next version instead.")
    call.version = latest.version
    return key, latest
