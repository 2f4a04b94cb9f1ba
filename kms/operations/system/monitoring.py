"""The metrics that operators look at."""

from __future__ import annotations

from kms.access.policy import Permission
from kms.operations.core.declare import EmptyRequest, TextAnswer, operation
from kms.operations.core.service import Call, Service
from kms.operations.system import gauges


@operation("GET", "/metrics", permission=Permission.METRICS_READ, checked_upfront=True)
def metrics(service: Service, call: Call, request: EmptyRequest) -> TextAnswer:
    """Metrics of all workers of this host for Prometheus."""
    gauges.sample(service)
    body, content_type = service.metrics.exposition(gauges.read_now(service))
    return TextAnswer(body, content_type)
