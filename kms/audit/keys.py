"""The keys of the audit log: what signs its checkpoints, and what codes the lines of spools. Both stay for ever."""

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

_LOG, _SPOOLS = "audit log", "audit spools"


def has_keys(snapshot: Snapshot) -> bool:
    """Whether the vault has them."""
    return spool_key(snapshot) is not None


def ensure_keys(change: Change, now: datetime) -> None:
    """Make them where there are none yet."""
    if not has_keys(change):
        service_keys.keep(change, _LOG, Ed25519PrivateKey.generate().private_bytes_raw(), now)
        service_keys.keep(change, _SPOOLS, secrets.token_bytes(32), now)


def spool_key(snapshot: Snapshot) -> bytes | None:
    """The key for the codes of spools, 32 bytes; None where the vault has none yet. Raises IntegrityFailure."""
    return service_keys.material_of(snapshot, _SPOOLS)


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
