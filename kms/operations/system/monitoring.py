"""What operators look at: the audit log and the metrics."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Annotated

import msgspec
import structlog

from kms.access.policy import Permission
from kms.audit.entry import SUCCESS, AuditEntry, timestamp
from kms.audit.spool import latest_lines
from kms.audit.spool import lines as spooled_lines
from kms.keys.model import Key
from kms.operations.core.declare import Answer, EmptyRequest, Request, TextAnswer, operation
from kms.operations.core.service import Call, Service
from kms.operations.system import gauges
from kms.vault import tables
from kms.vault.rows import OutboxEntry

REFUSED = "refused"
_ROWS_AT_ONCE, _MOST_SEARCHED, _MOST_BYTES_SEARCHED = 1000, 250_000, 256 << 20
_KEPT_AT_LEAST = 1000


class AuditRequest(Request):
    """The newest `limit` entries that match, oldest first. `after` and `before` are times as the `time` of an entry.

    An entry must be later than `after`, earlier than `before`, and match every other filter: `client_id`, `key_id`,
    `operation` and `outcome`. The `outcome` `refused` stands for every one except `success`. With a filter only the
    newest 250,000 entries of changes are searched, and of the others the newest 256 MiB.
    """

    limit: Annotated[int, msgspec.Meta(ge=1, le=10_000)] = 100
    after: str = ""
    before: Annotated[str, msgspec.Meta(max_length=64)] = ""
    client_id: Annotated[str, msgspec.Meta(max_length=64)] = ""
    key_id: Annotated[str, msgspec.Meta(max_length=256)] = ""
    operation: Annotated[str, msgspec.Meta(max_length=64)] = ""
    outcome: Annotated[str, msgspec.Meta(max_length=64)] = ""


class AuditEntries(Answer):
    """Entries as they were written, in the order of their times."""

    items: list[AuditEntry]
    next_cursor: str | None


@operation(
    "GET", "/api/v1/audit/entries", permission=Permission.AUDIT_READ, request=AuditRequest, checked_upfront=True
)
def audit_entries(service: Service, call: Call, request: AuditRequest) -> AuditEntries:
    """Show the newest audit entries: of all changes, and of other requests that this host answered."""
    wanted = _wanted(request)
    is_searched = bool(wanted or request.before)
    found: list[AuditEntry] = []  # in the order of their times, never many more than were asked for
    for entry in readable(_lines(service, request.limit, request.after, is_searched=is_searched)):
        if entry.time <= request.after or (request.before and entry.time >= request.before):
            continue
        if all(_meets(entry, member, value) for member, value in wanted.items()):
            found.append(entry)
            if len(found) >= 2 * request.limit + _KEPT_AT_LEAST:
                found = _newest(found, request.limit)
    return AuditEntries(items=_newest(found, request.limit), next_cursor=None)


def entries_of(service: Service, key: Key) -> Iterator[AuditEntry]:
    """The entries about `key` that `audit_entries` searches, in no order; not those of an older key of its name."""
    names = {name for name in (key.key_id, key.former_id) if name}
    marks = [msgspec.json.encode(name) for name in names]  # most lines are not about this key: spare decoding them
    begins = timestamp(key.created_at)
    lines = (line for line in _lines(service, 0, "", is_searched=True) if any(mark in line for mark in marks))
    for entry in readable(lines):
        if entry.key_id in names and entry.time >= begins:
            yield entry


def _newest(entries: list[AuditEntry], most: int) -> list[AuditEntry]:
    return sorted(entries, key=lambda entry: entry.time)[-most:]


def _wanted(request: AuditRequest) -> dict[str, str]:
    members = ("client_id", "key_id", "operation", "outcome")
    return {member: value for member in members if (value := getattr(request, member))}


def _meets(entry: AuditEntry, member: str, value: str) -> bool:
    if member == "outcome" and value == REFUSED:
        return entry.outcome != SUCCESS
    return bool(getattr(entry, member) == value)


def _lines(service: Service, limit: int, after: str, *, is_searched: bool) -> Iterator[bytes]:
    """The lines among which the newest entries are: a search looks further back."""
    column = tables.audit_outbox.c.sequence
    most = _MOST_SEARCHED if is_searched else limit
    below: int | None = None
    while most > 0:
        at_once = min(most, _ROWS_AT_ONCE)
        criteria = [column < below] if below is not None else []
        with service.vault.read() as snapshot:
            rows = snapshot.select(OutboxEntry, *criteria, order_by=column.desc(), limit=at_once)
        if rows and (newest := next(readable([rows[0].entry.encode()]), None)) and newest.time <= after:
            break
        yield from (row.entry.encode() for row in rows)
        if len(rows) < at_once:
            break
        below, most = rows[-1].sequence, most - at_once
    if is_searched:
        yield from spooled_lines(service.settings.audit_dir, _MOST_BYTES_SEARCHED)
    else:
        yield from latest_lines(service.settings.audit_dir)


@operation("GET", "/metrics", permission=Permission.METRICS_READ, checked_upfront=True)
def metrics(service: Service, call: Call, request: EmptyRequest) -> TextAnswer:
    """Metrics of all workers of this host for Prometheus."""
    gauges.sample(service)
    body, content_type = service.metrics.exposition(gauges.read_now(service))
    return TextAnswer(body, content_type)


def readable(lines: Iterable[bytes]) -> Iterator[AuditEntry]:
    """The audit entries in `lines`. One that cannot be read, as after a power cut, is logged and skipped."""
    for line in lines:
        try:
            yield _decoder.decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError):
            structlog.get_logger().critical("a line of the audit log cannot be read", length=len(line))


_decoder = msgspec.json.Decoder(AuditEntry)
