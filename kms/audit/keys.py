"""The keys of the audit log, which stay for ever: they sign its checkpoints, code lines of spools, and hash."""

from __future__ import annotations

import secrets
from datetime import datetime

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from kms.audit.note import Ed25519Key, Ed25519Signer
from kms.errors import IntegrityFailure
from kms.vault import service_keys
from kms.vault.change import Change
from kms.vault.folded import audit_log
from kms.vault.transaction import Snapshot

_LOG, _SPOOLS, _HASHES = "audit log", "audit spools", "audit hashes"


def has_keys(snapshot: Snapshot) -> bool:
    """Whether the vault has them."""
    return all(service_keys.has(snapshot, each) for each in (_LOG, _SPOOLS, _HASHES))


def ensure_keys(change: Change, now: datetime) -> None:
    """Make them where there are none yet."""
    for name in (_LOG, _SPOOLS, _HASHES):
        if not service_keys.has(change, name):
            made = Ed25519PrivateKey.generate().private_bytes_raw() if name == _LOG else secrets.token_bytes(32)
            service_keys.keep(change, name, made, now)


def spool_key(snapshot: Snapshot) -> bytes | None:
    """The key for the codes of spools, 32 bytes; None where the vault has none yet. Raises IntegrityFailure."""
    return service_keys.material_of(snapshot, _SPOOLS)


def hash_key(snapshot: Snapshot) -> bytes | None:
    """The key for what entries show hashed, 32 bytes; None where the vault has none yet. Raises IntegrityFailure."""
    return service_keys.material_of(snapshot, _HASHES)


def log_key(snapshot: Snapshot) -> Ed25519PrivateKey:
    """The key that signs checkpoints. Raises IntegrityFailure."""
    material = service_keys.material_of(snapshot, _LOG)
    if material is None:
        raise IntegrityFailure("The key that signs the audit log was removed from the vault.")
    return Ed25519PrivateKey.from_private_bytes(material)


def log_signer(snapshot: Snapshot, origin: str) -> Ed25519Signer:
    """What signs checkpoints: under the name of the log, or as `origin` before it begins. Raises IntegrityFailure."""
    return Ed25519Signer(audit_log(snapshot).origin or origin, log_key(snapshot))


def verifier_key(snapshot: Snapshot, origin: str) -> Ed25519Key:
    """What verifies checkpoints. Arguments and errors as for `log_signer`."""
    return log_signer(snapshot, origin).key
