"""Gauges for metrics, read from the database and the host at the moment of a scrape."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509
from sqlalchemy import Table, and_, func, select

from kms.access.lockout import locked_at
from kms.audit.log_state import log_state
from kms.audit.spool_files import sizes
from kms.crypto.registry import KEY_TYPES
from kms.keys.model import KeyState, ShownState
from kms.metrics import Gauge, WorkerState
from kms.notices.model import DeliveryState
from kms.operations.core.service import Service
from kms.operations.keys.listing import state_at
from kms.vault import tables
from kms.vault.backup.write import last_backup
from kms.vault.host import EPOCH
from kms.vault.records import microseconds
from kms.vault.transaction import Snapshot

_WARNING_DAYS = (7, 30)
_OF_NO_KNOWN = "unknown"


def sample(service: Service) -> None:
    """Update the metrics of this worker alone. Called once a second, and before a scrape that this worker answers."""
    memory = service.memory
    service.metrics.sample(
        WorkerState(
            lease_held=memory.held,
            lease_failures=memory.failures,
            epoch=memory.epoch,
            cache_entries={cache.name: len(cache) for cache in memory.caches},
            cache_misses={cache.name: cache.misses for cache in memory.caches},
            database_errors=service.vault.errors,
            resident_bytes=_resident_bytes(),
            open_descriptors=_open_descriptors(),
            counts_alone=service.rate_limits.count_alone,
        )
    )


def read_now(service: Service) -> list[Gauge]:
    """All gauges that are read at a scrape. Those that take longer the more keys there are can be a minute old."""
    now = service.clock()
    with service.vault.read() as snapshot:
        expiring: dict[tuple[str, ...], float] = {
            (str(days),): _expiring(snapshot, now, now + timedelta(days=days)) for days in _WARNING_DAYS
        }
        nodes = len(snapshot.rows(tables.nodes))
    return [
        Gauge("kms_keys_expiring", "Keys in use whose cryptoperiod ends soon.", ("days",), expiring),
        *service.metrics.costly(now, lambda: _counted(service, now)),
        *_of_the_audit_log(service),
        *_of_the_nodes(service, nodes),
        *_of_the_host(service, now),
    ]


def _counted(service: Service, now: datetime) -> Sequence[Gauge]:
    """What the database counts: keys, sessions, access keys and locks."""
    with service.vault.read() as snapshot:
        keys = _keys(snapshot, now)
        sessions, access_keys = (_in_force(snapshot, table, now) for table in (tables.tokens, tables.access_keys))
        locks = snapshot.connection.execute(
            select(func.count()).select_from(tables.login_failures).where(locked_at(now))
        ).scalar_one()
        notices = _notices(snapshot)
    return [
        Gauge("kms_keys", "Keys by type and by the state of their latest version.", ("type", "state"), keys),
        _one("kms_sessions", "Sessions that are not over.", sessions),
        _one("kms_access_keys", "Access keys that have not expired.", access_keys),
        _one("kms_login_locks", "Clients and places that are locked out now after failed log-ins.", locks),
        Gauge("kms_notices", "Notices that wait to be delivered, or were given up.", ("state",), notices),
        _one("kms_backup_timestamp_seconds", "When the last backup of the vault was made.", _last_backup(service)),
    ]


def _last_backup(service: Service) -> float:
    """Seconds since 1970; 0 where no backup was made of this database."""
    made = last_backup(service.vault)
    return made.made_at.timestamp() if made is not None else 0


def _keys(snapshot: Snapshot, now: datetime) -> dict[tuple[str, ...], float]:
    """How many keys there are of each type and state, in one statement, row codes unread."""
    keys, versions = tables.keys.c, tables.key_versions.c
    latest = and_(keys.uid == versions.key_uid, keys.latest_version == versions.version)
    state = state_at(now).label("state_now")
    query = select(keys.type, state, func.count()).select_from(tables.keys.join(tables.key_versions, latest))
    counts: dict[tuple[str, ...], float] = {}
    for kind, found, count in snapshot.connection.execute(query.group_by(keys.type, "state_now")):
        # Whoever writes to the database must not be able to write into what reads the metrics.
        labels = (
            kind if kind in KEY_TYPES else _OF_NO_KNOWN,
            found if found in set(ShownState) else _OF_NO_KNOWN,
        )
        counts[labels] = counts.get(labels, 0) + count
    return counts


def _notices(snapshot: Snapshot) -> dict[tuple[str, ...], float]:
    """How many notices wait, and how many are dead."""
    state = tables.notice_outbox.c.state
    query = select(state, func.count()).where(state != DeliveryState.DELIVERED).group_by(state)
    counts = {row[0]: row[1] for row in snapshot.connection.execute(query)}
    return {(str(each),): counts.get(each, 0) for each in (DeliveryState.WAITING, DeliveryState.DEAD)}


def _in_force(snapshot: Snapshot, table: Table, now: datetime) -> int:
    query = select(func.count()).select_from(table).where(table.c.expires_at > microseconds(now))
    return int(snapshot.connection.execute(query).scalar_one())


def _expiring(snapshot: Snapshot, after: datetime, before: datetime) -> int:
    """How many active latest versions expire between two times; counted by the database, row codes unread."""
    keys, versions = tables.keys.c, tables.key_versions.c
    latest = and_(keys.uid == versions.key_uid, keys.latest_version == versions.version)
    soon = versions.expires_at.between(microseconds(after), microseconds(before))
    query = select(func.count()).select_from(tables.keys.join(tables.key_versions, latest))
    return int(snapshot.connection.execute(query.where(soon, versions.state == KeyState.ACTIVE)).scalar_one())


def _of_the_audit_log(service: Service) -> Iterator[Gauge]:
    """The tree of the audit log, and what waits to be folded into it: changes of every node, uses of this host."""
    state = log_state(service.vault, service.settings.spool_dir)
    yield _one("kms_audit_log_entries", "Entries in the tree of the audit log.", state.size)
    yield _one("kms_audit_waiting_entries", "Entries of changes, and of uses on this host, that wait.", state.waiting)
    folded = state.folded_at.timestamp() if state.size else 0
    yield _one("kms_audit_folded_timestamp_seconds", "When the tree has grown last.", folded)


def _of_the_nodes(service: Service, nodes: int) -> Iterator[Gauge]:
    """How many nodes there are, and whether this one's clock agrees with the database's, by which all compare."""
    yield _one("kms_nodes", "Nodes that serve from this database.", nodes)
    ahead = -service.vault.database_ahead(service.clock).total_seconds()
    yield _one("kms_clock_offset_seconds", "By how much this node's clock is ahead of the database's.", ahead)


def _of_the_host(service: Service, now: datetime) -> Iterator[Gauge]:
    """What the host has once for all of its workers, and what the kernel says of them."""
    host, workers = service.vault.host, service.metrics.workers()
    spools = sizes(service.settings.spool_dir)
    yield _one("kms_epoch", "The newest epoch that this host knows.", max(host.words[EPOCH], service.memory.epoch))
    yield _one("kms_head_counter", "Groups of changes that this host knows to be committed.", host.counter)
    yield _one("kms_audit_spool_files", "Spools of the audit log.", len(spools))
    yield _one("kms_audit_spool_bytes", "Their size, with what is allocated ahead.", sum(spools))
    yield _one("kms_workers", "Worker processes.", len(workers))
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    yield _one("kms_open_descriptors_limit", "How many each worker may hold.", most)
    ends = certificate_ends(service.settings.tls_cert)
    if ends is not None:
        days = (ends - now) / timedelta(days=1)
        yield _one("kms_certificate_remaining_days", "Until the certificate, or one of its chain, expires.", days)


def _one(name: str, about: str, value: float) -> Gauge:
    return Gauge(name, about, (), {(): value})


# Each worker looks at itself: nobody else but root can look into it, see kms.process_protection.
def _resident_bytes() -> int:
    with suppress(OSError):
        return int(Path("/proc/self/statm").read_bytes().split()[1]) * resource.getpagesize()
    return 0


def _open_descriptors() -> int:
    with suppress(OSError):
        return len(os.listdir("/proc/self/fd"))  # noqa: PTH208  # once a second
    return 0


def certificate_ends(path: Path) -> datetime | None:
    """Until when the chain in `path` is good; None where there is none, because somebody else serves TLS."""
    try:
        chain = x509.load_pem_x509_certificates(path.read_bytes())
    except (OSError, ValueError):
        return None
    return min(certificate.not_valid_after_utc for certificate in chain)
