"""The check of the whole vault against its head: once for a database, a slice at a time, going on where it was."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta

from kms.operations.core.service import Service
from kms.vault import claims, tables
from kms.vault.checking import fits

INTEGRITY = "integrity"
"""The task of that name (see `vault.claims`)."""
_CLAIM = timedelta(minutes=2)
_KEEP_SECONDS = 30.0
_SHARE = 10  # of ten moments it takes one, so that nobody who uses keys notices


def check_integrity(service: Service, is_stopping: Callable[[], bool] = lambda: False) -> None:
    """Compare every table with the head if that is due and no other worker does it; stop trusting where one differs.

    Raises Unavailable.
    """
    vault = service.vault
    every = tables.authenticated_tables()
    longest = max(_CLAIM, service.settings.integrity_interval)
    claim = claims.take(vault, INTEGRITY, service.clock(), _CLAIM, str(every[0].name), longest)
    if claim is None:
        return
    for table in every:
        if str(table.name) < claim.position:
            continue
        if is_stopping():
            return
        if not fits(vault, table, _Pause(service, str(table.name))):
            service.metrics.integrity_failures.inc()
            vault.stop_trusting(f"The rows of {table.name} are not those that the service wrote.")
            return
    claims.keep(vault, INTEGRITY, service.clock() + service.settings.integrity_interval)
    service.metrics.integrity_checked.set(service.clock().timestamp())


def checked_state(service: Service) -> str:
    """How far the check is, for an operator to read."""
    claim = claims.look(service.vault, INTEGRITY)
    if claim.position:
        return f"integrity check: under way, at the table {claim.position}\n"
    return "integrity check: done, the next one is set\n" if claim.until else "integrity check: due\n"


class _Pause:
    """Called between slices, waits so long that the slices take their share of the time and no more."""

    def __init__(self, service: Service, table: str) -> None:
        self._service = service
        self._table = table
        self._began = self._kept = time.monotonic()

    def __call__(self) -> None:
        now = time.monotonic()
        time.sleep((now - self._began) * (_SHARE - 1))
        if now - self._kept > _KEEP_SECONDS:
            claims.keep(self._service.vault, INTEGRITY, self._service.clock() + _CLAIM, self._table)
            self._kept = now
        self._began = time.monotonic()
