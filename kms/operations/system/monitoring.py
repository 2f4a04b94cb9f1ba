"""What operators look at: the audit log and the metrics."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Annotated

import msgspec
import structlog

from kms.access.policy import Permission
from kms.audit import reading
from kms.audit.entry import SUCCESS, AuditEntry
from kms.operations.core.declare import Answer, EmptyRequest, Request, TextAnswer, operation
from kms.operations.core.service import Call, Service
from kms.operations.system import gauges

REFUSED = "refused"
_MOST_SEARCHED = 1_000_000
_OUT_OF_ORDER = 20_000  # entries stand in the order in which they were folded: so many may stand after a newer one
_KEPT_AT_LEAST = 1000


class AuditRequest(Request):
    """The newest `limit` entries that match, oldest first. `after` and `before` are times as the `time` of an entry.

    An entry must be later than `after`, earlier than `before`, and match every other filter: `client_id`, `key_id`,
    `operation`, `outcome` and `source`, an address or what entries show of one. The `outcome` `refused` stands for
    every one except `success`. With a filter the newest million entries are searched.
    """

    limit: Annotated[int, msgspec.Meta(ge=1, le=10_000)] = 100
    after: str = ""
    before: Annotated[str, msgspec.Meta(max_length=64)] = ""
    client_id: Annotated[str, msgspec.Meta(max_length=64)] = ""
    key_id: Annotated[str, msgspec.Meta(max_length=256)] = ""
    operation: Annotated[str, msgspec.Meta(max_length=64)] = ""
    outcome: Annotated[str, msgspec.Meta(max_length=64)] = ""
    source: Annotated[str, msgspec.Meta(max_length=64)] = ""


class AuditEntries(Answer):
    """Entries as they were written, in the order of their times."""

    items: list[AuditEntry]
    next_cursor: str | None


@operation(
    "GET", "/api/v1/audit/entries", permission=Permission.AUDIT_READ, request=AuditRequest, checked_upfront=True
)
def audit_entries(service: Service, call: Call, request: AuditRequest) -> AuditEntries:
    """Show the newest audit entries: of the log, and those of this host that are about to be folded into it."""
    wanted = _wanted(request)
    sources = service.disclosure.sources(request.source) if request.source else None
    is_searched = bool(wanted or sources or request.before or request.after)
    found: list[_Found] = []  # never many more than were asked for
    most = _MOST_SEARCHED if is_searched else request.limit + _OUT_OF_ORDER
    for age, entry in enumerate(readable(islice(newest_lines(service), most))):
        if entry.time <= request.after or (request.before and entry.time >= request.before):
            continue
        if sources is not None and entry.source not in sources:
            continue
        if all(_meets(entry, member, value) for member, value in wanted.items()):
            found.append((entry.time, -age, entry))
            if len(found) >= 2 * request.limit + _KEPT_AT_LEAST:
                found = _newest(found, request.limit)
    return AuditEntries(items=[entry for _, _, entry in _newest(found, request.limit)], next_cursor=None)


_Found = tuple[str, int, AuditEntry]  # with its time, and its place among those of that time


def _newest(found: list[_Found], most: int) -> list[_Found]:
    return sorted(found, key=lambda each: each[:2])[-most:]


def _wanted(request: AuditRequest) -> dict[str, str]:
    members = ("client_id", "key_id", "operation", "outcome")
    return {member: value for member in members if (value := getattr(request, member))}


def _meets(entry: AuditEntry, member: str, value: str) -> bool:
    if member == "outcome" and value == REFUSED:
        return entry.outcome != SUCCESS
    return bool(getattr(entry, member) == value)


def newest_lines(service: Service) -> Iterator[bytes]:
    """The lines of the log, of this host's spools too, the newest first as far as the tree has an order."""
    settings = service.settings
    return reading.read(service.vault, settings.audit_log_dir, settings.spool_dir).newest_first()


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
