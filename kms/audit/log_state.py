"""What a vault knows of its audit log: the key, and the tree that its own row speaks of."""

from __future__ import annotations

import time
from pathlib import Path

from kms.audit import keys
from kms.audit.checkpoint import Checkpoint
from kms.audit.exclusive import STAGING
from kms.audit.note import Ed25519Key, signed
from kms.vault.folded import audit_log
from kms.vault.store import Vault

_ATTEMPTS, _PAUSE_SECONDS = 40, 0.05


def key_and_state(vault: Vault, directory: Path, origin: str) -> tuple[Ed25519Key, list[bytes]]:
    """The key, and the tree of the database as a checkpoint, which the log must continue; none before it begins.

    It waits a moment for a fold whose files are being written into `directory`. Raises Refusal.
    """
    with vault.read() as snapshot:
        log = audit_log(snapshot)
        signer = keys.log_signer(snapshot, origin)
    if not log.size:
        return signer.key, []
    for _ in range(_ATTEMPTS):
        if not log.staged or not (directory / STAGING / log.staged).exists():
            break
        time.sleep(_PAUSE_SECONDS)
    return signer.key, [bytes(signed(Checkpoint(log.origin, log.size, log.root).text, signer))]
