"""Performing an operation: policy, function, audit entry, in this order and nowhere else."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from kms.access import policy
from kms.errors import Refusal
from kms.operations.service import Call, Service
from kms.operations.table import Operation, Request


def perform(
    service: Service,
    operation: Operation,
    call: Call,
    read_request: Callable[[], Request],
    path: Mapping[str, str],
) -> Any:
    """Carry out `operation` and give its answer, after its audit entry is written.

    `read_request` is called first and may refuse. Raises Refusal; every refusal leaves an entry too, and
    where that cannot be written the refusal is Unavailable.
    """
    try:
        if operation.permission is not None and operation.on_nothing:
            policy.require(call.known_caller, operation.permission)
        answer = operation.function(service, call, read_request(), **path)
    except Refusal as refusal:
        service.record(call, refusal)
        raise
    service.record(call)
    return answer
