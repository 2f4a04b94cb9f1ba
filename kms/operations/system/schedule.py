"""Background tasks of a running service: rotate keys that are due, remove old rows, check the vault.

Every worker of every node runs this. A worker claims a task in a transaction before it carries it out, so that it
happens only once. If that worker dies, its claim expires and another worker takes over.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timedelta

import structlog

from kms.access import issuers, lockout
from kms.access.access_keys import AccessKey
from kms.access.issuers import Issuer
from kms.access.model import Token, UsedAssertion
from kms.approvals import retention
from kms.audit.spool_files import tidy
from kms.crypto.keytype import KeyMaterial
from kms.crypto.registry import key_type
from kms.errors import Conflict, KeyRevoked, Refusal, Unavailable
from kms.keys.lifecycle import effective_state
from kms.keys.model import Key, KeyState, KeyVersion
from kms.notices import outbox
from kms.operations.core.carrying_out import RESULT_KEPT, carry_out_left_over
from kms.operations.core.request_ids import new_request_id
from kms.operations.core.service import Call, Service
from kms.operations.keys import key_factory
from kms.operations.keys.state_changes import remove
from kms.operations.system.checking import check_integrity
from kms.operations.system.due import due_for_deletion, due_for_rotation
from kms.operations.system.expiring import announce_expiring_keys
from kms.operations.system.gauges import sample
from kms.operations.system.root_key_change import go_on_with_root_key
from kms.operations.transfer.external import forget_material
from kms.vault import claims, tables
from kms.vault.change import Change
from kms.vault.records import microseconds
from kms.vault.rows import WrappingKey

_TICK_SECONDS = 1.0
_CLAIM = timedelta(minutes=1)
_CLEANING_INTERVAL = timedelta(minutes=10)
_CLEANING = "cleaning"
_LEFT_OVER_INTERVAL = timedelta(minutes=1)
_LEFT_OVER = "approved calls"
_ISSUERS_INTERVAL = timedelta(minutes=5)
_ISSUERS = "issuers"
_TOLD_THAT_IT_IS_OVER = timedelta(days=1)  # for so long the holder of an access key hears that it has ended
_ROWS_AT_ONCE = 500
_KEYS_AT_ONCE = 50  # one transaction each: more would keep others waiting for long
_PAUSE_SECONDS = 0.01


class Schedule:
    """Threads that do what is due, from `start` to `stop`."""

    def __init__(self, service: Service, *, folds: bool = True) -> None:
        """Without `folds` another process folds the audit log."""
        self._service = service
        self._stopping = threading.Event()
        self._threads = [
            threading.Thread(target=self._run, args=(work,), name=work.__name__, daemon=True)
            for work in (
                self.tick,
                self.check,
                self.beat,
                self.learn_keys,
                self.notify,
                self.alarm,
                self.renew,
                *([self.fold] if folds else []),
            )
        ]

    def start(self) -> None:
        """Begin."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End after what is under way."""
        self._stopping.set()
        for thread in self._threads:
            if thread.is_alive():
                thread.join(timeout=10)

    def tick(self) -> None:
        """Do everything that is due now. Raises Refusal where the vault cannot be reached."""
        sample(self._service)
        with suppress(Unavailable):  # it says so itself, once
            self._service.spool.require()
        now = self._service.clock()
        rotate_due_keys(self._service, now)
        delete_due_keys(self._service, now)
        if claims.take(self._service.vault, _LEFT_OVER, now, _LEFT_OVER_INTERVAL) is not None:
            carry_out_left_over(self._service, now)
        self._service.last_uses.write_if_due()
        if claims.take(self._service.vault, _CLEANING, now, _CLEANING_INTERVAL) is not None:
            remove_old_rows(self._service, now)
            tidy(self._service.settings.spool_dir)

    def beat(self) -> None:
        """Write the heartbeat of this node, however long other tasks take. Raises Refusal."""
        vault, nodes = self._service.vault, self._service.vault.nodes
        if nodes.is_beat_due():
            nodes.note_clock(-vault.database_ahead(self._service.clock).total_seconds())
            with vault.change() as change:
                nodes.beat(change)

    def learn_keys(self) -> None:
        """Fetch the keys of issuers again if that is due, which waits for others. Raises Refusal."""
        now = self._service.clock()
        if claims.take(self._service.vault, _ISSUERS, now, _ISSUERS_INTERVAL) is not None:
            refresh_issuers(self._service, now)

    def notify(self) -> None:
        """Tell of keys that expire soon, and begin to send the notices that are due. Raises Refusal."""
        self._service.happenings.write()
        announce_expiring_keys(self._service, self._service.clock())
        self._service.deliveries.deliver_due()

    def alarm(self) -> None:
        """Tell that the service does not work, also where it does not trust its database. Raises Refusal."""
        self._service.happenings.sound_alarms()

    def check(self) -> None:
        """Compare the vault with its head if that is due, which may take long. Raises Refusal."""
        check_integrity(self._service, self._stopping.is_set)

    def fold(self) -> None:
        """Fold the audit log, unless another process of this host does. Raises Refusal."""
        self._service.folder.fold()

    def renew(self) -> None:
        """Go on with a change of the root key, which takes long. Raises Refusal."""
        go_on_with_root_key(self._service, self._stopping.is_set)

    def _run(self, work: Callable[[], None]) -> None:
        # Spread, so that the workers of one boot do not all look at the same moment.
        wait = _TICK_SECONDS * random.uniform(0.5, 1.0)  # noqa: S311
        while not self._stopping.wait(wait):
            wait = _TICK_SECONDS
            if self._service.vault.host.distrust is not None and work != self.alarm:
                continue
            try:
                work()
            except Refusal as refusal:
                structlog.get_logger().warning("scheduled work put off", reason=refusal.detail)
            except Exception:  # noqa: BLE001  # one bad key must not end the schedule
                structlog.get_logger().exception("scheduled work failed")


def rotate_due_keys(service: Service, now: datetime) -> None:
    """Rotate every key whose rotation period has passed."""
    while True:
        with service.vault.read() as snapshot:
            found = snapshot.keys_with_latest(
                *due_for_rotation(now), order_by=tables.keys.c.next_rotation_at, limit=_ROWS_AT_ONCE
            )
        due = [key for key, _ in found]
        random.shuffle(due)  # workers that look at the same moment claim different ones
        rotated = 0
        for begin in range(0, len(due), _KEYS_AT_ONCE):
            claimed = _claim(service, due[begin : begin + _KEYS_AT_ONCE], now)
            rotated += _rotate(service, claimed)
            time.sleep(_PAUSE_SECONDS)
        if not rotated:
            return


def _claim(service: Service, seen: Sequence[Key], now: datetime) -> list[Key]:
    claimed = []
    with service.vault.change() as change:
        for key in _unchanged(change, seen):
            latest = change.find(KeyVersion, key.uid, key.latest_version)
            waiting = {KeyState.SUSPENDED, KeyState.PRE_ACTIVATION}
            if latest is None or key.deletion_at is not None or effective_state(latest, now) in waiting:
                continue
            try:
                key_factory.require_rotatable(change, key)
            except (KeyRevoked, Conflict):  # since it was made due
                change.replace(key, replace(key, next_rotation_at=None))
                continue
            claimed.append(change.replace(key, replace(key, next_rotation_at=now + _CLAIM)))
    return claimed


def _unchanged(change: Change, seen: Sequence[Key]) -> list[Key]:
    """Those of the keys that nobody has claimed, revoked or rotated meanwhile."""
    found = {key.uid: key for key in change.select(Key, tables.keys.c.uid.in_([each.uid for each in seen]))}
    as_seen = ((each, found.get(each.uid)) for each in seen)
    return [
        key
        for each, key in as_seen
        if key is not None and (key.next_rotation_at, key.type) == (each.next_rotation_at, each.type)
    ]


def _rotate(service: Service, claimed: Sequence[Key]) -> int:
    """Rotate keys that are claimed, and give how many were."""
    done, fast = 0, []
    for key in claimed:
        kind = key_type(key.type)
        if kind.slow:  # one by one, so that none waits for the making of others
            done += _rotate_made(service, [(key, service.generated(kind))])
        else:
            fast.append((key, service.generated(kind)))
    return done + _rotate_made(service, fast)


def _rotate_made(service: Service, made: Sequence[tuple[Key, KeyMaterial]]) -> int:
    if not made:
        return 0
    material = {key.uid: each for key, each in made}
    with service.vault.change() as change:
        keys = _unchanged(change, [key for key, _ in made])
        rotated = [key for key in keys if _rotate_one(service, change, key, material[key.uid])]
    for key in rotated:
        service.metrics.rotations.inc()
        structlog.get_logger().info("rotated", key_id=key.key_id, version=key.latest_version + 1)
    return len(rotated)


def _rotate_one(service: Service, change: Change, key: Key, material: KeyMaterial) -> bool:
    call = Call(operation="scheduled_rotation", source="local", request_id=new_request_id(), key_id=key.key_id)
    try:
        with change.part():
            key_factory.require_rotatable(change, key)
            kind = key_type(key.type)
            made = key_factory.next_version(change, service.cryptoperiods, key, kind, material, service.clock())
            call.version = made[1].version
            service.record_in(change, call)
    except Unavailable:
        raise
    except Refusal as refusal:  # one key must not keep the others waiting
        structlog.get_logger().warning("rotation put off", key_id=key.key_id, reason=refusal.detail)
        return False
    return True


def delete_due_keys(service: Service, now: datetime) -> None:
    """Delete every key whose waiting period has passed."""
    with service.vault.read() as snapshot:
        keys = snapshot.select(Key, due_for_deletion(now), limit=_ROWS_AT_ONCE)
    for seen in keys:
        call = Call("scheduled_deletion", source="local", request_id=new_request_id(), key_id=seen.key_id)
        with service.change(call) as change:
            key = change.find(Key, seen.uid)
            if key is None or key.deletion_at is None or key.deletion_at > now:
                call.abandoned = True  # another worker was first, or it was cancelled
                continue
            remove(change, key)
        structlog.get_logger().info("deleted", key_id=seen.key_id)


def refresh_issuers(service: Service, now: datetime) -> None:
    """Fetch the public keys of every issuer with a `jwks_uri` again; keys it no longer serves become invalid."""
    with service.vault.read() as snapshot:
        found = snapshot.select(Issuer, tables.issuers.c.jwks_uri != "")
    for issuer in found:
        issuers.refresh(service.vault, issuer.issuer_id, now, service.fetch_jwks)


def remove_old_rows(service: Service, now: datetime) -> None:
    """Remove, in slices, what has expired or was settled long ago, such as sessions, notices and lent material."""
    while _remove_some_old_rows(service, microseconds(now), now):
        time.sleep(_PAUSE_SECONDS)


def _remove_some_old_rows(service: Service, moment: int, now: datetime) -> bool:
    """Remove a slice, and say whether there may be more."""
    yesterday = microseconds(now - _TOLD_THAT_IT_IS_OVER)
    with service.vault.change() as change:
        old = (
            change.select(Token, tables.tokens.c.expires_at < moment, limit=_ROWS_AT_ONCE),
            change.select(AccessKey, tables.access_keys.c.expires_at < yesterday, limit=_ROWS_AT_ONCE),
            change.select(UsedAssertion, tables.used_assertions.c.expires_at < moment, limit=_ROWS_AT_ONCE),
            change.select(WrappingKey, tables.wrapping_keys.c.expires_at < moment, limit=_ROWS_AT_ONCE),
            lockout.forgotten(change, now, _ROWS_AT_ONCE),
            outbox.forgotten(change, now, _ROWS_AT_ONCE),
            retention.forgotten(change, now, _ROWS_AT_ONCE),
        )
        for rows in old:
            change.delete(*rows)
        retention.expire_old(change, now, _ROWS_AT_ONCE)
        retention.forget_results(change, now - RESULT_KEPT, _ROWS_AT_ONCE)
        overdue = change.select(KeyVersion, tables.key_versions.c.material_until < moment, limit=_ROWS_AT_ONCE)
        for version in overdue:
            forget_material(change, version)
    return any(len(rows) == _ROWS_AT_ONCE for rows in (*old, overdue))
