"""What happens by itself in a running service: rotations that are due, old rows removed, the vault checked.

Every worker of every node runs this. A rotation is claimed in a transaction before it is carried out, so that
it happens once; where the claimant dies, the claim runs out and another worker takes it.
"""

from __future__ import annotations

import random
import threading
from dataclasses import replace
from datetime import datetime, timedelta

import structlog

from kms.access import lockout
from kms.access.access_keys import AccessKey
from kms.access.model import Token
from kms.crypto.registry import key_type
from kms.errors import Conflict, KeyRevoked, Refusal, Unavailable
from kms.keys.lifecycle import effective_state
from kms.keys.model import Key, KeyState, KeyVersion
from kms.operations import provision
from kms.operations.external import forget_material
from kms.operations.life import remove
from kms.operations.service import Call, Service, new_request_id
from kms.vault import tables
from kms.vault.records import microseconds
from kms.vault.rows import WrappingKey

_TICK_SECONDS = 1.0
_CLAIM = timedelta(minutes=1)
_CLEANING_INTERVAL = timedelta(minutes=10)
_ROWS_AT_ONCE = 500


class Schedule:
    """A thread that does what is due, from `start` to `stop`."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="schedule", daemon=True)
        # Spread, so that the workers of one boot do not all scan the vault in the same second.
        self._next_cleaning = service.clock() + _CLEANING_INTERVAL * random.uniform(0.5, 1.5)  # noqa: S311
        self._next_check = service.clock() + service.settings.integrity_interval * random.uniform(0.5, 1.5)  # noqa: S311

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End after what is under way."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(timeout=10)

    def tick(self) -> None:
        """Do everything that is due now. Raises Refusal where the vault cannot be reached."""
        now = self._service.clock()
        rotate_due_keys(self._service, now)
        delete_due_keys(self._service, now)
        self._service.last_uses.write_if_due()
        if now >= self._next_cleaning:
            self._next_cleaning = now + _CLEANING_INTERVAL
            remove_old_rows(self._service, now)
        if now >= self._next_check:
            self._next_check = now + self._service.settings.integrity_interval
            check_integrity(self._service)

    def _run(self) -> None:
        while not self._stopping.wait(_TICK_SECONDS):
            self._service.metrics.add_up()
            try:
                self.tick()
            except Refusal as refusal:
                structlog.get_logger().warning("scheduled work put off", reason=refusal.detail)
            except Exception:  # noqa: BLE001  # one bad key must not end the schedule
                structlog.get_logger().exception("scheduled work failed")


def rotate_due_keys(service: Service, now: datetime) -> None:
    """Rotate every key whose rotation period has passed."""
    due = tables.keys.c.next_rotation_at <= microseconds(now)
    with service.vault.read() as snapshot:
        keys = snapshot.select(Key, due, order_by=tables.keys.c.next_rotation_at, limit=_ROWS_AT_ONCE)
    for key in keys:
        try:
            claimed = _claim(service, key, now)
            if claimed is not None:
                _rotate(service, claimed)
        except Unavailable:
            raise
        except Refusal as refusal:  # one key must not keep the others waiting
            structlog.get_logger().warning("rotation put off", key_id=key.key_id, reason=refusal.detail)


def _claim(service: Service, seen: Key, now: datetime) -> Key | None:
    with service.vault.change() as change:
        key = change.find(Key, seen.uid)
        if key is None or key.next_rotation_at != seen.next_rotation_at:
            return None  # another worker was first
        latest = change.find(KeyVersion, key.uid, key.latest_version)
        waiting = {KeyState.SUSPENDED, KeyState.PRE_ACTIVATION}
        if latest is None or key.deletion_at is not None or effective_state(latest, now) in waiting:
            return None
        try:
            provision.require_rotatable(change, key)
        except (KeyRevoked, Conflict):  # since it was made due
            change.replace(key, replace(key, next_rotation_at=None))
            return None
        return change.replace(key, replace(key, next_rotation_at=now + _CLAIM))


def _rotate(service: Service, claimed: Key) -> None:
    kind = key_type(claimed.type)
    material = service.generated(kind)
    call = Call(operation="scheduled_rotation", source="local", request_id=new_request_id(), key_id=claimed.key_id)
    with service.change(call) as change:
        key = change.find(Key, claimed.uid)
        if key is None or key.next_rotation_at != claimed.next_rotation_at or key.type != claimed.type:
            call.abandoned = True  # changed in the meantime: revoked, rotated by hand, or given another period
            return
        provision.require_rotatable(change, key)
        _, version = provision.next_version(change, service.cryptoperiods, key, kind, material, service.clock())
        call.version = version.version
    service.metrics.rotations.inc()
    structlog.get_logger().info("rotated", key_id=claimed.key_id, version=call.version)


def delete_due_keys(service: Service, now: datetime) -> None:
    """Delete every key whose waiting period has passed."""
    due = tables.keys.c.deletion_at <= microseconds(now)
    with service.vault.read() as snapshot:
        keys = snapshot.select(Key, due, limit=_ROWS_AT_ONCE)
    for seen in keys:
        call = Call("scheduled_deletion", source="local", request_id=new_request_id(), key_id=seen.key_id)
        with service.change(call) as change:
            key = change.find(Key, seen.uid)
            if key is None or key.deletion_at is None or key.deletion_at > now:
                call.abandoned = True  # another worker was first, or it was cancelled
                continue
            remove(change, key)
        structlog.get_logger().info("deleted", key_id=seen.key_id)


def remove_old_rows(service: Service, now: datetime) -> None:
    """Remove expired sessions, access keys and wrapping keys, forgotten login failures, overdue material."""
    with service.vault.change() as change:
        expired = tables.tokens.c.expires_at < microseconds(now)
        change.delete(*change.select(Token, expired, limit=_ROWS_AT_ONCE))
        ended = tables.access_keys.c.expires_at < microseconds(now)
        change.delete(*change.select(AccessKey, ended, limit=_ROWS_AT_ONCE))
        stale = tables.wrapping_keys.c.expires_at < microseconds(now)
        change.delete(*change.select(WrappingKey, stale, limit=_ROWS_AT_ONCE))
        lockout.forget_old(change, now, _ROWS_AT_ONCE)
        overdue = tables.key_versions.c.material_until < microseconds(now)
        for version in change.select(KeyVersion, overdue, limit=_ROWS_AT_ONCE):
            forget_material(change, version)


def check_integrity(service: Service) -> None:
    """Compare every table with its tally and cry out where they differ."""
    for table in service.vault.check_tallies():
        service.metrics.integrity_failures.inc()
        structlog.get_logger().critical(
            "the database was changed outside the service; `python -m kms vault verify` shows where",
            table=table,
        )
