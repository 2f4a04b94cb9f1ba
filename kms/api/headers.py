"""The headers that every answer has."""

from __future__ import annotations

from binascii import b2a_base64
from functools import lru_cache

from kms.operations import Call

JSON = "application/json"
_SECURITY = (
    ("Cache-Control", "no-store"),
    ("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'"),
    ("Referrer-Policy", "no-referrer"),
    ("X-Content-Type-Options", "nosniff"),
    ("X-Frame-Options", "DENY"),
)
_STRICT_TRANSPORT = ("Strict-Transport-Security", "max-age=31536000")
_LONGEST_HOST = 255  # longer values, which anybody can send, must not fill the cache
_LOCAL = ("localhost", "127.0.0.1", "[::1]")


def security_headers(host: str) -> tuple[tuple[str, str], ...]:
    """The headers of an answer to a request for `host`, with or without its port."""
    return _remembered(host) if len(host) <= _LONGEST_HOST else (*_SECURITY, _STRICT_TRANSPORT)


@lru_cache(maxsize=64)
def _remembered(host: str) -> tuple[tuple[str, str], ...]:
    if host.startswith(_LOCAL):
        name = host[: host.rindex("]") + 1] if host.startswith("[") and "]" in host else host.partition(":")[0]
        if name in _LOCAL:  # it would bind every other port of a developer's machine
            return _SECURITY
    return (*_SECURITY, _STRICT_TRANSPORT)


def request_headers(call: Call, request_id: str = "X-Request-Id") -> list[tuple[str, str]]:
    """The headers that tell requests apart: the id of this one, and of its audit entry the leaf hash in base64.

    A request that is not in the audit log, such as one above a rate limit, has no leaf.
    """
    if call.leaf is None:
        return [(request_id, call.request_id)]
    return [(request_id, call.request_id), ("Audit-Leaf", b2a_base64(call.leaf, newline=False).decode())]
