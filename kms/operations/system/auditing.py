"""The audit log for those who may read it: its entries, searched, and what people ask of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from itertools import chain, islice
from typing import Annotated

import msgspec
import structlog
from msgspec import UNSET, UnsetType
from sqlalchemy import or_

from kms.access.policy import Permission
from kms.audit import questions, reading
from kms.audit.entry import AuditEntry, entry_of, timestamp
from kms.audit.index import Index
from kms.audit.index_file import IndexUnusable
from kms.audit.reading import LogRead
from kms.audit.search import Query, search
from kms.audit.tree import Unverified
from kms.errors import IntegrityFailure, Unavailable, ValidationFailed
from kms.keys.model import Key
from kms.operations.core.declare import Answer, Request, operation
from kms.operations.core.service import Call, Service
from kms.operations.core.types import Cursor
from kms.vault import tables
from kms.vault.records import microseconds

_BEFORE = timedelta(microseconds=1)
_Time = Annotated[str, msgspec.Meta(max_length=64)]
_Name = Annotated[str, msgspec.Meta(max_length=256)]


class AuditRequest(Request):
    """The newest `limit` entries that match, oldest first. `after` and `before` are times as the `time` of an entry.

    An entry must be later than `after`, earlier than `before`, and match every other filter: `client_id`, `key_id`,
    `version`, `operation`, `outcome`, `target`, `session`, `credential`, `request_id`, and `source`, an address or
    what entries show of one. The `outcome` `refused` stands for every one except `success`.
    A `session` is met by what was done in it, and by what opened or ended it.
    `cursor` is the `next_cursor` of the page of newer entries.
    """

    limit: Annotated[int, msgspec.Meta(ge=1, le=10_000)] = 100
    after: _Time = ""
    before: _Time = ""
    client_id: _Name = ""
    key_id: _Name = ""
    version: Annotated[int, msgspec.Meta(ge=1)] | None = None
    operation: _Name = ""
    outcome: _Name = ""
    target: _Name = ""
    session: _Name = ""
    credential: _Name = ""
    request_id: _Name = ""
    source: _Time = ""
    cursor: Cursor | None = None


class AuditEntries(Answer):
    """Entries as they were written, in the order of their times; older ones follow where there is a `next_cursor`.

    A page may have fewer entries than asked for, or none, and still have a `next_cursor`.
    """

    items: list[AuditEntry]
    next_cursor: str | None


@operation(
    "GET",
    "/api/v1/audit/entries",
    permission=Permission.AUDIT_READ,
    request=AuditRequest,
    checked_upfront=True,
    slow=True,
)
def audit_entries(service: Service, call: Call, request: AuditRequest) -> AuditEntries:
    """Show the newest audit entries: of the log, and those of this host that are about to be folded into it."""
    log, query = _read(service), _query(service, request)
    waiting: list[AuditEntry] = []
    if request.cursor is None:
        met = (entry for entry in readable(log.waiting) if query.is_met(entry))
        waiting = sorted(met, key=_time)[-request.limit :]
    items, older = waiting, str(log.size) if log.size else None
    if len(waiting) < request.limit and log.size:
        cursor = _number(request.cursor)
        with _faults_of_log():
            found = search(_index(service), query, log.size, request.limit - len(waiting), cursor=cursor)
        items = [*(each.entry for each in reversed(found.entries)), *waiting]
        older = str(found.next_cursor) if found.next_cursor is not None else None
    return AuditEntries(items=sorted(items, key=_time), next_cursor=older)


class UsersOfKeyRequest(Request):
    """A key, one `version` of it or all, and from when: `after` is a time as the `time` of an entry."""

    key_id: Annotated[str, msgspec.Meta(min_length=1, max_length=256)]
    version: Annotated[int, msgspec.Meta(ge=1)] | None = None
    after: _Time = ""


class UserOfKey(msgspec.Struct, frozen=True):
    """A client that used the key: how often, and the times of its first and last such entry."""

    client_id: str
    uses: int
    first: str
    last: str


class UsersOfKey(Answer):
    """By name. Only what succeeded counts. A batch counts as one use; its entry names no version."""

    items: list[UserOfKey]


@operation(
    "GET",
    "/api/v1/audit/users-of-key",
    permission=Permission.AUDIT_READ,
    request=UsersOfKeyRequest,
    checked_upfront=True,
    slow=True,
)
def get_users_of_key(service: Service, call: Call, request: UsersOfKeyRequest) -> UsersOfKey:
    """Show who did something with a key, or with one version of it, since when. What is not folded yet is missing."""
    with _asking(service) as log:
        found = questions.users_of(log, request.key_id, request.version, request.after)
    return UsersOfKey(
        items=[UserOfKey(each.client_id, each.uses, each.first.entry.time, each.last.entry.time) for each in found]
    )


class NoveltiesRequest(Request):
    """A client, and from when: `after` is a time as the `time` of an entry."""

    client_id: Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
    after: _Time = ""


class NoveltyView(msgspec.Struct, frozen=True):
    """An operation that the client had never carried out with that key, or without one, and when it first did."""

    operation: str
    first: str
    key_id: str | UnsetType = UNSET


class Novelties(Answer):
    """In the order of the log. What was refused is no deed, neither before nor after."""

    items: list[NoveltyView]


@operation(
    "GET",
    "/api/v1/audit/novelties",
    permission=Permission.AUDIT_READ,
    request=NoveltiesRequest,
    checked_upfront=True,
    slow=True,
)
def get_novelties(service: Service, call: Call, request: NoveltiesRequest) -> Novelties:
    """Show what a client did since a time that it had never done before, as far back as entries are kept.

    Refused where the client did so much since then that finding out would take too long.
    """
    try:
        with _asking(service) as log:
            found = questions.novelties(log, request.client_id, request.after, questions.MOST_BUNDLES)
    except questions.TooMuch:
        raise ValidationFailed(
            "after: the client did too much since then to look through. Ask from later on."
        ) from None
    return Novelties(
        items=[
            NoveltyView(each.operation, each.first.entry.time, UNSET if each.key_id is None else each.key_id)
            for each in found
        ]
    )


def entries_of(service: Service, key: Key) -> Iterator[AuditEntry]:
    """The entries about `key`, in no order; not those of an older or newer key of its name."""
    names, begins = (key.key_id, key.former_id), timestamp(key.created_at)
    waiting = [each for each in readable(_read(service).waiting) if each.key_id in names]
    for name in names:
        if not name:
            continue
        with _asking(service) as log:
            ends = _released_at(service, key, waiting, log) if name == key.former_id else ""
            in_log = (each.entry for each in log.newest_first(Query(key_id=name)))
            for entry in chain(waiting, in_log):
                if entry.key_id == name and entry.time >= begins and (not ends or entry.time <= ends):
                    yield entry


def _released_at(service: Service, key: Key, waiting: Iterable[AuditEntry], log: questions.Log) -> str:
    """When the key gave up its former name, as entries have times; or when the next key of that name was made.

    Empty where neither is known any more.
    """
    release = Query(key_id=key.former_id, target=key.key_id)
    found = [each.time for each in waiting if release.is_met(each)]
    found += [each.entry.time for each in log.newest_first(release)]
    column = tables.keys.c
    has_name = or_(column.key_id == key.former_id, column.former_id == key.former_id)
    with service.vault.read() as snapshot:
        later = snapshot.select(Key, has_name, column.created_at > microseconds(key.created_at))
    found += [timestamp(each.created_at - _BEFORE) for each in later]
    return min(found, default="")


def newest_entries(service: Service, most: int) -> Iterator[AuditEntry]:
    """The newest entries of the log, and of this host's spools, nearly in the order of their times."""
    return readable(islice(_read(service).newest_first(), most))


def readable(lines: Iterable[bytes]) -> Iterator[AuditEntry]:
    """The audit entries in `lines`. One that cannot be read, as after a power cut, is logged and skipped."""
    for line in lines:
        entry = entry_of(line)
        if entry is not None:
            yield entry
        else:
            structlog.get_logger().critical("a line of the audit log cannot be read", length=len(line))


def _read(service: Service) -> LogRead:
    settings = service.settings
    return reading.read(service.vault, settings.audit_log_dir, settings.spool_dir)


def _index(service: Service) -> Index:
    return Index(service.settings.audit_log_dir, service.settings.audit_index)


@contextmanager
def _asking(service: Service) -> Iterator[questions.Log]:
    size = reading.settled(service.vault, service.settings.audit_log_dir).size
    with _faults_of_log(), questions.asking(_index(service), size) as log:
        yield log


@contextmanager
def _faults_of_log() -> Iterator[None]:
    try:
        yield
    except IndexUnusable as unusable:
        raise Unavailable(f"The audit log cannot be searched now: {unusable}", retry_after=5) from None
    except Unverified as wrong:
        raise IntegrityFailure(f"{wrong} See `kms audit verify`.") from None


def _query(service: Service, request: AuditRequest) -> Query:
    names = ("client_id", "key_id", "operation", "outcome", "target", "session", "credential", "request_id")
    given = {name: getattr(request, name) or None for name in names}
    sources = frozenset(service.disclosure.sources(request.source)) if request.source else None
    return Query(**given, version=request.version, sources=sources, after=request.after, before=request.before)


def _number(cursor: str | None) -> int | None:
    if cursor is None:
        return None
    if not cursor.isascii() or not cursor.isdigit():
        raise ValidationFailed("cursor: the `next_cursor` of an earlier page.")
    return int(cursor)


def _time(entry: AuditEntry) -> str:
    return entry.time
