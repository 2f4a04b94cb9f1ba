"""The sections of `kms status`. A new line is a member of a section; a new section is a class here, and in `Status`.

Each section reads itself from one `Look`. What an operator should act on goes into `look.attention`, as a sentence
that says what to do. Members that are not known are UNSET. The command shows whatever there is, as it is.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar, Self

from msgspec import UNSET, UnsetType
from sqlalchemy import Select, func, select

from kms import __version__
from kms.access import clients
from kms.enums import TextEnum
from kms.keys.model import ShownState
from kms.metrics import Gauge
from kms.notices.model import NoticeStatus
from kms.operations.core.declare import Answer
from kms.operations.core.service import Service
from kms.operations.system.checking import INTEGRITY
from kms.operations.system.due import due_for_deletion, due_for_rotation
from kms.operations.system.gauges import certificate_ends
from kms.vault import claims, tables
from kms.vault.records import microseconds
from kms.vault.schema import revision_of
from kms.vault.transaction import Snapshot

_LATE = timedelta(minutes=5)
_CERTIFICATE_DAYS = 30
_EVERY_STATE = frozenset(map(str, ShownState))


@dataclass(frozen=True)
class Look:
    """What sections read from: one snapshot, and the gauges of this moment. `attention` collects sentences."""

    service: Service
    snapshot: Snapshot
    now: datetime
    gauges: dict[str, Gauge]
    attention: list[str] = field(default_factory=list)

    def gauge(self, name: str, *labels: str) -> int:
        """A gauge, or the sum over all the values of its labels; 0 where there is none of that name."""
        values = self.gauges[name].values if name in self.gauges else {}
        return int(values.get(labels, 0) if labels else sum(values.values()))

    def count(self, query: Select[Any]) -> int:
        """The one number that `query` gives."""
        return int(self.snapshot.connection.execute(query).scalar_one())


class Section(Answer):
    """A part of the answer."""

    @classmethod
    def read(cls, look: Look) -> Self:
        """This section as it is now. Raises Refusal."""
        raise NotImplementedError


class AnsweredBySection(Section):
    """What answers: its version, the host on which it runs, and how many workers that has."""

    version: str
    host: str
    workers: int

    @classmethod
    def read(cls, look: Look) -> Self:
        """As `Section.read`."""
        mine = look.service.vault.host.node_id
        names = [node.host for node in look.service.vault.nodes.all(look.snapshot) if node.node_id == mine]
        return cls(version=__version__, host=names[0] if names else "", workers=look.gauge("kms_workers"))


class NodeView(Answer):
    """A host that serves from this database.

    `answers` says that it is the one that answers. For the others, `heartbeat_seconds_ago` says how old their last
    heartbeat is, if this worker has heard any. `clock_offset_milliseconds` says by how much the clock of the host is
    ahead of the database's.
    """

    node_id: str
    host: str
    answers: bool
    leaving: bool
    release: str
    clock_offset_milliseconds: int
    heartbeat_seconds_ago: int | UnsetType = UNSET


def nodes(look: Look) -> list[NodeView]:
    """Every node of the database, the one that answers first."""
    vault, found = look.service.vault, []
    for node in vault.nodes.all(look.snapshot):
        answers = node.node_id == vault.host.node_id
        silent = None if answers else vault.nodes.silent_seconds(node.node_id)
        ago = int(silent) if silent is not None else UNSET
        found.append(
            NodeView(
                node_id=node.node_id,
                host=node.host,
                answers=answers,
                leaving=node.leaving,
                heartbeat_seconds_ago=ago,
                release=node.release,
                clock_offset_milliseconds=node.clock_offset,
            )
        )
        if node.leaving:
            look.attention.append(f"The node {node.host} is silent, or leaving. Does it still run?")
    return sorted(found, key=lambda node: (not node.answers, node.host, node.node_id))


class DatabaseSection(Section):
    """The database: its kind, the revision of its schema, and how many groups of changes were committed.

    `lease_milliseconds` is the length of a lease; with several nodes a change waits for so long.
    """

    kind: str
    schema_revision: str
    changes: int
    lease_milliseconds: int

    @classmethod
    def read(cls, look: Look) -> Self:
        """As `Section.read`."""
        vault = look.service.vault
        return cls(
            kind=vault.engine.dialect.name,
            schema_revision=revision_of(look.snapshot.connection),
            changes=look.snapshot.head().counter,
            lease_milliseconds=round(vault.lease_seconds * 1000),
        )


class CheckState(TextEnum):
    """How far the integrity check is."""

    DUE = "due"
    UNDER_WAY = "under way"
    DONE = "done"


class IntegritySection(Section):
    """The integrity check of the whole vault. While it is under way `at` is the table that it is at.

    `finished_at` is when the last one ended, and `next_at` when the next one begins.
    """

    state: CheckState
    at: str | UnsetType = UNSET
    finished_at: datetime | UnsetType = UNSET
    next_at: datetime | UnsetType = UNSET

    @classmethod
    def read(cls, look: Look) -> Self:
        """As `Section.read`."""
        claim = claims.read(look.snapshot, INTEGRITY)
        if claim.position:
            return cls(state=CheckState.UNDER_WAY, at=claim.position)
        if not claim.until:
            return cls(state=CheckState.DUE)
        next_at = datetime.fromtimestamp(claim.until / 1_000_000, UTC)
        finished_at = next_at - look.service.settings.integrity_interval
        if next_at < look.now - _LATE:
            look.attention.append("The integrity check is overdue. Does any worker run its schedule? See the log.")
        return cls(state=CheckState.DONE, finished_at=finished_at, next_at=next_at)


class CertificateSection(Section):
    """The TLS certificate; without `expires_at` this service has none, and somebody else serves TLS."""

    expires_at: datetime | UnsetType = UNSET

    @classmethod
    def read(cls, look: Look) -> Self:
        """As `Section.read`."""
        ends = certificate_ends(look.service.settings.tls_cert)
        if ends is not None and ends < look.now + timedelta(days=_CERTIFICATE_DAYS):
            look.attention.append(f"The TLS certificate, or one of its chain, expires on {ends:%Y-%m-%d}. Renew it.")
        return cls(expires_at=ends or UNSET)


class Counting(TextEnum):
    """Who counts requests for the rate limits."""

    SHARED = "all nodes together"
    NODE = "each node for itself"
    NOBODY = "off"


class RateLimitSection(Section):
    """Who counts for the rate limits, and how many clients and places are locked out after failed log-ins."""

    counted_by: Counting
    locked_out: int

    @classmethod
    def read(cls, look: Look) -> Self:
        """As `Section.read`."""
        settings = look.service.settings
        if settings.rate_limit == "off":
            look.attention.append("Rate limits are off. Switch them on (KMS_RATE_LIMIT) unless this is a benchmark.")
            counted_by = Counting.NOBODY
        else:
            counted_by = Counting.SHARED if settings.redis_url else Counting.NODE
        return cls(counted_by=counted_by, locked_out=look.gauge("kms_login_locks"))


class ScheduleSection(Section):
    """What the schedule has not done yet: keys due for rotation, and for deletion."""

    due_for_rotation: int
    due_for_deletion: int

    @classmethod
    def read(cls, look: Look) -> Self:
        """As `Section.read`."""
        keys, late = tables.keys_with_latest, look.now - _LATE
        rotations = [
            look.count(keys.with_only_columns(func.count()).where(*due_for_rotation(at))) for at in (look.now, late)
        ]
        deletions = [look.count(_keys().where(due_for_deletion(at))) for at in (look.now, late)]
        if rotations[1] or deletions[1]:
            look.attention.append(
                f"{rotations[1]} rotations and {deletions[1]} deletions of keys are overdue. The log says why."
            )
        return cls(due_for_rotation=rotations[0], due_for_deletion=deletions[0])


class NoticesSection(Section):
    """Notices that wait to be delivered, those of them that are `late` after an attempt failed, and those given up.

    `disabled` counts the subscriptions to which nothing is sent.
    """

    waiting: int
    late: int
    dead: int
    disabled: int

    @classmethod
    def read(cls, look: Look) -> Self:
        """As `Section.read`."""
        outbox, notices = tables.notice_outbox.c, tables.notices.c
        waits = outbox.settled_at.is_(None), outbox.created_at < microseconds(look.now - _LATE)
        late = look.count(select(func.count()).select_from(tables.notice_outbox).where(*waits))
        off = select(func.count()).select_from(tables.notices).where(notices.status == NoticeStatus.DISABLED)
        if late:
            look.attention.append(f"{late} notices have not arrived for minutes. Try their receivers (`kms notice`).")
        return cls(
            waiting=look.gauge("kms_notices", "waiting"),
            late=late,
            dead=look.gauge("kms_notices", "dead"),
            disabled=look.count(off),
        )


class KeysSection(Section):
    """Keys by the state of their latest version, and how many active ones expire soon. It can be a minute old."""

    by_state: dict[str, int]
    expire_within_7_days: int
    expire_within_30_days: int

    @classmethod
    def read(cls, look: Look) -> Self:
        """As `Section.read`."""
        by_state: dict[str, int] = {}
        for (_, state), number in look.gauges["kms_keys"].values.items():
            by_state[state] = by_state.get(state, 0) + int(number)
        soon = look.gauge("kms_keys_expiring", "7")
        if soon:
            look.attention.append(f"{soon} keys in use expire within 7 days. Rotate them, or let them expire.")
        return cls(
            by_state=by_state, expire_within_7_days=soon, expire_within_30_days=look.gauge("kms_keys_expiring", "30")
        )


class PeopleSection(Section):
    """Administrators that can log in, sessions, and access keys."""

    ONLY_ONE: ClassVar[str] = (
        "There is only one administrator who can log in. Make a second one (`kms client create NAME --role admin`): "
        "whoever loses phone and recovery codes is let in again by another."
    )

    administrators: int
    sessions: int
    access_keys: int

    @classmethod
    def read(cls, look: Look) -> Self:
        """As `Section.read`."""
        administrators = len(clients.enabled_admins(look.snapshot))
        if administrators == 1:
            look.attention.append(cls.ONLY_ONE)
        return cls(
            administrators=administrators,
            sessions=look.gauge("kms_sessions"),
            access_keys=look.gauge("kms_access_keys"),
        )


def _keys() -> Select[Any]:
    return select(func.count()).select_from(tables.keys)
