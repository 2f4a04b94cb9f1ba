"""What the doors of the dialects share: errors in a dialect's own words, and how every failure becomes one."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from kms import errors
from kms.api import problems
from kms.operations import Call, Service, new_request_id


class DialectFault(Exception):
    """An error of a dialect. `problem` is the problem type by which metrics and audit entries name it.

    `retry_after` is in seconds, where trying again is worth it.
    """

    def __init__(self, message: str, *, status: int, problem: str, retry_after: int | None = None) -> None:
        super().__init__(message)
        self.message, self.status, self.problem, self.retry_after = message, status, problem, retry_after


T = TypeVar("T", bound=DialectFault)


def recorded_fault(
    error: Exception, kind: type[T], fault_of: Callable[[errors.Refusal], T], service: Service, call: Call
) -> T:
    """The fault of the dialect that `error` is, after its audit entry is written.

    Where that cannot be written, the fault says so.
    """
    if isinstance(error, kind):
        fault = error
    else:
        refusal = problems.refusal_of(error, call.request_id, service.metrics)
        fault = fault_of(refusal)
        if isinstance(refusal, errors.RateLimited):
            return fault  # a flood must not fill the audit log
    try:
        service.record(call, fault)
    except errors.Unavailable as unavailable:
        return fault_of(unavailable)
    return fault


def long_request_id() -> str:
    """A request id of the form that a UUID has, as clients of the dialects expect it."""
    one, two = new_request_id(), new_request_id()
    return f"{one[:8]}-{one[8:12]}-{one[12:]}-{two[:4]}-{two[4:]}"
