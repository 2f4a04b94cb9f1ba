"""The integrity check: compares the whole vault with its head, slice by slice, by one worker for each database.

A check that was interrupted goes on where it stopped.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta

from kms.operations.core.service import Service
from kms.pacing import Pace
from kms.vault import claims, tables
from kms.vault.checking import fits

INTEGRITY = "integrity"
"""The task of that name (see `vault.claims`)."""
_CLAIM = timedelta(minutes=2)
_KEEP_SECONDS = 30.0
_SHARE = 10  # it works a tenth of the time, so that it does not slow down the use of keys


def check_integrity(service: Service, is_stopping: Callable[[], bool] = lambda: False) -> None:
    """Compare every table with the head, if that is due and no other worker does it.

    If a table differs, the database is not trusted any more and keys are not used. Raises Unavailable.
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
    """A line of text that says how far the integrity check is, for operators."""
    claim = claims.look(service.vault, INTEGRITY)
    if claim.position:
        return f"integrity check: under way, at the table {claim.position}\n"
    return "integrity check: done, the next one is set\n" if claim.until else "integrity check: due\n"


class _Pause:
    """Called between slices, keeps the pace and the claim."""

    def __init__(self, service: Service, table: str) -> None:
        self._service = service
        self._table = table
        self._pace = Pace(_SHARE)
        self._kept = time.monotonic()

    def __call__(self) -> None:
        self._pace()
        now = time.monotonic()
        if now - self._kept > _KEEP_SECONDS:
            claims.keep(self._service.vault, INTEGRITY, self._service.clock() + _CLAIM, self._table)
            self._kept = now
