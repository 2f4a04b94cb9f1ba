"""Refusals as RFC 9457 problem details, and the pages that explain their types."""

from __future__ import annotations

import inspect
from http import HTTPStatus
from typing import Any

import msgspec
import structlog

from kms.api.headers import JSON
from kms.errors import (
    ApprovalPending,
    AuthenticationFailed,
    InsufficientUserAuthentication,
    IntegrityFailure,
    InternalError,
    MfaRequired,
    RateLimited,
    Refusal,
    every_refusal,
)
from kms.log import log_request
from kms.metrics import Metrics
from kms.operations import BatchResults, Call, Operation

_LOG = structlog.get_logger()
MEDIA_TYPE = "application/problem+json"


class Problem(msgspec.Struct, frozen=True):
    """The members of a problem document (RFC 9457, section 3.1) and the request id."""

    type: str
    title: str
    status: int
    detail: str
    request_id: str


def problem_of(refusal: Refusal, request_id: str) -> Problem:
    """The document of a refusal."""
    return Problem(f"/problems/{refusal.problem}", refusal.title, refusal.status, refusal.detail, request_id)


def batch_answer(results: BatchResults, request_id: str) -> dict[str, list[Any]]:
    """The answer to a batch: each answer, or `{"error": problem}`, in the order of the requests."""
    items: list[Any] = list(results.items)
    for at, each in enumerate(items):
        if isinstance(each, Refusal):
            items[at] = {"error": problem_of(each, request_id)}
    return {"items": items}


def encoded_answer(answer: Any, request_id: str) -> bytes:
    """The body of the answer to a request that was carried out."""
    if isinstance(answer, BatchResults):
        answer = batch_answer(answer, request_id)
    return msgspec.json.encode(answer) + b"\n"


def location_of(operation: Operation, answer: Any) -> str | None:
    """The path of the one thing that was made."""
    if operation.location is None or isinstance(answer, BatchResults):
        return None
    return operation.location.format_map(msgspec.structs.asdict(answer))


def encoded(refusal: Refusal, request_id: str) -> tuple[bytes, list[tuple[str, str]]]:
    """The body of the answer to a refused request, and the headers that its kind asks for."""
    if isinstance(refusal, ApprovalPending):
        place = f"/api/v1/approvals/{refusal.approval_id}"
        return msgspec.json.encode(refusal.waiting) + b"\n", [("Content-Type", JSON), ("Location", place)]
    headers = [("Content-Type", MEDIA_TYPE)]
    if isinstance(refusal, (AuthenticationFailed, MfaRequired)):
        headers.append(("WWW-Authenticate", 'Basic realm="kms", charset="UTF-8", Bearer realm="kms"'))
    if isinstance(refusal, InsufficientUserAuthentication):
        challenge = f'error="insufficient_user_authentication", max_age="{refusal.max_age}"'
        headers.append(("WWW-Authenticate", f'Bearer realm="kms", {challenge}'))
    if refusal.retry_after is not None:
        headers.append(("Retry-After", str(refusal.retry_after)))
    if isinstance(refusal, RateLimited) and refusal.limit:
        headers.append(("RateLimit-Policy", f'"{refusal.limit}";q={refusal.amount};w={refusal.window}'))
        headers.append(("RateLimit", f'"{refusal.limit}";r=0;t={refusal.retry_after}'))
    return msgspec.json.encode(problem_of(refusal, request_id)) + b"\n", headers


def refusal_of(error: Exception, request_id: str, metrics: Metrics) -> Refusal:
    """The Refusal for `error`. An unexpected exception is logged, and becomes an InternalError without details."""
    if not isinstance(error, Refusal):
        _LOG.error("internal error", request_id=request_id, exc_info=error)
        return InternalError("The service failed. Its log has the reason under this request id.")
    if isinstance(error, IntegrityFailure):
        metrics.integrity_failures.inc()
        _LOG.critical("integrity failure", request_id=request_id, reason=error.detail)
    return error


def log_answer(call: Call, outcome: str, status: int, seconds: float) -> None:
    """The line in the log for a request that was answered."""
    log_request(
        request_id=call.request_id,
        operation=call.operation,
        outcome=outcome,
        status=status,
        client_id=call.caller.client_id if call.caller else None,
        source=call.source,
        ms=round(seconds * 1000, 2),
    )


def explanation(problem: str) -> str | None:
    """The page of a problem type as plain text, or None where there is no such type."""
    kind = every_refusal().get(problem)
    if kind is None:
        return None
    status = HTTPStatus(kind.status)
    return f"{kind.title}\n\nHTTP {status.value} {status.phrase}\n\n{inspect.cleandoc(kind.__doc__ or '')}\n"
