"""Keys of the service itself, sealed in the vault: what signs the revocation list and the audit log, and the like."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from kms.errors import IntegrityFailure
from kms.vault import sealed_columns, tables
from kms.vault.change import Change
from kms.vault.records import stored_in
from kms.vault.sealing import SealBroken
from kms.vault.transaction import Snapshot


@stored_in(tables.service_keys)
@dataclass(frozen=True, slots=True)
class ServiceKey:
    """A key of the service itself; `material` is sealed."""

    name: str
    material: bytes
    created_at: datetime


def has(snapshot: Snapshot, name: str) -> bool:
    """Whether the service has a key of that name."""
    return snapshot.find(ServiceKey, name) is not None


def keep(change: Change, name: str, material: bytes, now: datetime) -> None:
    """Keep `material` as the service's key of that name, which must be new."""
    change.insert(ServiceKey(name, change.derived_keys.seal(material, sealed_columns.service_key(name)), now))


def material_of(snapshot: Snapshot, name: str) -> bytes | None:
    """The material of a key of the service; None where there is no such key. Raises IntegrityFailure."""
    stored = snapshot.find(ServiceKey, name)
    if stored is None:
        return None
    try:
        return snapshot.derived_keys.open(stored.material, sealed_columns.service_key(name))
    except SealBroken:
        raise IntegrityFailure(f"The service's key for the {name} was altered outside the service.") from None
