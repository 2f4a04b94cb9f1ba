"""What the console's cookie holds: the session, when it was last used, and what forms must carry.

The cookie is sealed under a key of the service, so that browsers keep it and nobody can make or read one, and every
worker of every node opens it without having seen it before.
"""

from __future__ import annotations

import secrets
from base64 import urlsafe_b64decode, urlsafe_b64encode
from datetime import UTC, datetime, timedelta

import msgspec
from werkzeug.http import dump_cookie

from kms.vault.sealing import DerivedKeys, SealBroken

COOKIE = "__Host-kms-console"
"""The prefix has browsers take it only over TLS, from this host alone, and for every path (RFC 6265bis)."""
_LONGEST = 4096
_CLOCKS_DIFFER_BY = timedelta(minutes=5)


class ConsoleSession(msgspec.Struct, array_like=True):
    """One person's session in one browser.

    `token` is the service's session; `csrf` what every form of it carries; `notice` what the next page says once.
    Times are seconds since 1970.
    """

    token: str
    used_at: float
    csrf: str
    notice: str = ""

    @classmethod
    def of(cls, token: str, now: datetime) -> ConsoleSession:
        """A new one, for a session that was just made."""
        return cls(token, now.timestamp(), secrets.token_urlsafe(24))

    def __repr__(self) -> str:
        return "ConsoleSession(…)"  # a traceback in the log must not have the token

    def is_idle(self, now: datetime, longest: timedelta) -> bool:
        """Whether it was not used for longer than `longest`, or was used in a future that cannot be."""
        used_at = datetime.fromtimestamp(self.used_at, UTC)
        return not used_at - _CLOCKS_DIFFER_BY <= now <= used_at + longest


def sealed(session: ConsoleSession, keys: DerivedKeys) -> str:
    """The value of the cookie: unpadded base64url of the sealed session."""
    return urlsafe_b64encode(keys.seal_cookie(msgspec.msgpack.encode(session))).rstrip(b"=").decode()


def opened(value: str, keys: DerivedKeys) -> ConsoleSession | None:
    """The session in the value of a cookie, or None where it is not one of this service."""
    if not value or len(value) > _LONGEST or not value.isascii():
        return None
    try:
        content = keys.open_cookie(urlsafe_b64decode(value.encode() + b"=" * (-len(value) % 4)))
        return msgspec.msgpack.decode(content, type=ConsoleSession)
    except (ValueError, SealBroken, msgspec.DecodeError):
        return None


def set_cookie(value: str) -> str:
    """The header Set-Cookie with that value; with an empty one the browser forgets the cookie."""
    max_age = None if value else 0
    return dump_cookie(COOKIE, value, max_age=max_age, secure=True, httponly=True, samesite="Strict", path="/")
