"""The headers that every answer has."""

from __future__ import annotations

from functools import lru_cache

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
