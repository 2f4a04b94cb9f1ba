"""What operators look at: the audit log and the metrics."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Annotated

import msgspec
import structlog

from kms.access.policy import Permission
from kms.audit.entry import AuditEntry
from kms.audit.spool import latest_lines
from kms.operations.core.declare import Answer, EmptyRequest, Request, TextAnswer, operation
from kms.operations.core.service import Call, Service
from kms.operations.system import gauges
from kms.vault import tables
from kms.vault.rows import OutboxEntry


class AuditRequest(Request):
    """The newest entries, oldest first; with `after` only those later than that time (as in an entry)."""

    limit: Annotated[int, msgspec.Meta(ge=1, le=10_000)] = 100
    after: str = ""


class AuditEntries(Answer):
    """Entries as they were written, in the order of their times."""

    items: list[AuditEntry]
    next_cursor: str | None


@operation(
    "GET", "/api/v1/audit/entries", permission=Permission.AUDIT_READ, request=AuditRequest, checked_upfront=True
)
def audit_entries(service: Service, call: Call, request: AuditRequest) -> AuditEntries:
    """Show the newest audit entries of this host's workers and of all changes."""
    newest = tables.audit_outbox.c.sequence.desc()
    with service.vault.read() as snapshot:
        lines = [row.entry.encode() for row in snapshot.select(OutboxEntry, order_by=newest, limit=request.limit)]
    lines += latest_lines(service.settings.audit_dir)
    entries = sorted(readable(lines), key=lambda entry: entry.time)
    chosen = [entry for entry in entries if entry.time > request.after][-request.limit :]
    return AuditEntries(items=chosen, next_cursor=None)


@operation("GET", "/metrics", permission=Permission.METRICS_READ, checked_upfront=True)
def metrics(service: Service, call: Call, request: EmptyRequest) -> TextAnswer:
    """Metrics of all workers of this host for Prometheus."""
    gauges.sample(service)
    body, content_type = service.metrics.exposition(gauges.read_now(service))
    return TextAnswer(body, content_type)


def readable(lines: Iterable[bytes]) -> Iterator[AuditEntry]:
    """The entries in `lines`. A power cut can leave a line that is none; it is cried out about and passed over."""
    for line in lines:
        try:
            yield _decoder.decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError):
            structlog.get_logger().critical("a line of the audit log cannot be read", length=len(line))


_decoder = msgspec.json.Decoder(AuditEntry)
