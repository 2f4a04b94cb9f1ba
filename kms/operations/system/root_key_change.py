"""Going on with a change of the root key that `kms vault rotate-root-key` has begun and not finished."""

from __future__ import annotations

from collections.abc import Callable

import structlog

from kms.audit.entry import SUCCESS, AuditEntry, timestamp
from kms.operations.core.request_ids import new_request_id
from kms.operations.core.service import Service
from kms.pacing import Pace
from kms.vault import root_keys

_SHARE = 10  # it works a tenth of the time, so that it does not slow down the use of keys


def go_on_with_root_key(service: Service, is_stopping: Callable[[], bool]) -> None:
    """Bring the vault under its newest root key, if that is under way and nobody else does it. Raises Unavailable."""
    vault = service.vault
    keyset = vault.derived_keys.keyset
    if len(keyset.root_keys) == 1:
        return
    left = root_keys.renew_rows(vault, service.clock, Pace(_SHARE), is_stopping)
    if left is None:
        return
    if left.rows:
        structlog.get_logger().critical(
            "the root key before stays in use: some rows are not as the service wrote them; "
            "see `python -m kms vault rotate-root-key`",
            rows=len(left.rows),
        )
        root_keys.put_off(vault, service.clock())
        return
    at = timestamp(service.clock())
    target = f"root key {keyset.oldest}"
    entry = AuditEntry(1, at, new_request_id(), "retire_root_key", SUCCESS, "local", target=target)
    root_keys.end(vault, left.number, entry.line().decode())
    structlog.get_logger().warning(
        f"the vault is under root key {keyset.newest} now; {target} opens nothing any more"
    )
