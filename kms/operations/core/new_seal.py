"""What a start does about a seal that is to take the place of another one (see `kms.vault.resealing`)."""

from __future__ import annotations

import structlog

from kms.audit.entry import SUCCESS, AuditEntry, timestamp
from kms.clock import Clock, utc_now
from kms.errors import IntegrityFailure
from kms.vault import resealing
from kms.vault.keyslots import NEXT, SEAL, SealRecord
from kms.vault.store import Vault

_FILE = "file"


def settle_seal(vault: Vault, clock: Clock = utc_now) -> None:
    """Make the new seal the only one, if this process has opened the vault by it. Raises Unavailable."""
    opened = vault.opened_by
    if opened is None or vault.host.distrust is not None:
        return
    name = SealRecord.decoded(opened.seal).name
    try:
        if opened.slot == NEXT:
            _take_over(vault, name, clock)
        elif opened.slot == SEAL:
            _remind(vault, name)
    except IntegrityFailure as failure:  # the vault is open, so its keys can be used
        structlog.get_logger().critical("the keyslots are not as the service wrote them", reason=failure.detail)


def _take_over(vault: Vault, name: str, clock: Clock) -> None:
    entry = AuditEntry(1, timestamp(clock()), "start", "prove_seal", SUCCESS, "local", target=name)
    old = resealing.take_over(vault, entry.line().decode())
    if old is not None:
        by_hand = " Remove the file with its key by hand." if old == _FILE else ""
        structlog.get_logger().critical(
            f"the new seal `{name}` has opened the vault; from now on the old one, `{old}`, opens nothing.{by_hand}"
        )


def _remind(vault: Vault, name: str) -> None:
    with vault.read() as snapshot:
        waits = resealing.waiting(snapshot)
    if waits is not None:
        structlog.get_logger().warning(
            f"a new seal, `{waits}`, waits for a start that proves it, and this start has used the old one, "
            f"`{name}`: set KMS_SEAL={waits} and what it needs, or drop it (`kms vault reseal --abandon`)"
        )
