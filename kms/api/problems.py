"""Refusals as RFC 9457 problem details, and the pages that explain their types."""

from __future__ import annotations

import inspect
from http import HTTPStatus
from typing import Any

import msgspec
from flask import Response

from kms.errors import AuthenticationFailed, MfaRequired, RateLimited, Refusal, every_refusal
from kms.operations import Results

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


def batch_answer(results: Results, request_id: str) -> dict[str, list[Any]]:
    """The answer to a batch: each answer, or `{"error": problem}`, in the order of the requests."""
    return {
        "items": [
            {"error": problem_of(each, request_id)} if isinstance(each, Refusal) else each for each in results.items
        ]
    }


def problem_response(refusal: Refusal, request_id: str, allow: str | None = None) -> Response:
    """The answer to a refused request, with the headers its kind asks for."""
    body = msgspec.json.encode(problem_of(refusal, request_id)) + b"\n"
    response = Response(body, refusal.status, content_type=MEDIA_TYPE)
    if isinstance(refusal, (AuthenticationFailed, MfaRequired)):
        response.headers["WWW-Authenticate"] = 'Basic realm="kms", charset="UTF-8", Bearer realm="kms"'
    if refusal.retry_after is not None:
        response.headers["Retry-After"] = str(refusal.retry_after)
    if isinstance(refusal, RateLimited) and refusal.limit:
        response.headers["RateLimit-Policy"] = f'"{refusal.limit}";q={refusal.amount};w={refusal.window}'
        response.headers["RateLimit"] = f'"{refusal.limit}";r=0;t={refusal.retry_after}'
    if allow is not None:
        response.headers["Allow"] = allow
    return response


def explanation(problem: str) -> str | None:
    """The page of a problem type as plain text, or None where there is no such type."""
    kind = every_refusal().get(problem)
    if kind is None:
        return None
    status = HTTPStatus(kind.status)
    return f"{kind.title}\n\nHTTP {status.value} {status.phrase}\n\n{inspect.cleandoc(kind.__doc__ or '')}\n"
