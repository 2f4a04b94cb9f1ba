"""AWS Signature Version 4, as a server checks it (AWS General Reference, "Signature Version 4 signing process").

Only the form in the Authorization header, of requests whose path and query are as plain as those of AWS KMS.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from hashlib import sha256

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.hmac import HMAC

from kms.secret import Secret

ALGORITHM = "AWS4-HMAC-SHA256"
SKEW = timedelta(minutes=5)
_STATEMENT = re.compile(
    ALGORITHM + r" +Credential=(?P<id>[A-Za-z0-9]{1,128})/(?P<date>[0-9]{8})/(?P<region>[a-z0-9-]{1,32})"
    r"/(?P<service>[a-z0-9-]{1,32})/aws4_request, *SignedHeaders=(?P<headers>[a-z0-9;_-]{1,1024}), *"
)
_SIGNATURE = re.compile("[0-9a-f]{64}")
TIME = "%Y%m%dT%H%M%SZ"
"""How AWS writes a time."""


@dataclass(frozen=True, slots=True)
class Signed:
    """What the Authorization header of a signed request states: who signed what for where."""

    access_key_id: str
    date: str
    region: str
    service: str
    headers: tuple[str, ...]

    @property
    def scope(self) -> str:
        """The scope of the credential."""
        return f"{self.date}/{self.region}/{self.service}/aws4_request"


def split(authorization: str) -> tuple[str, str]:
    """An Authorization header as (statement, signature); the signature is empty if it does not have its form."""
    statement, _, signature = authorization.strip().rpartition("Signature=")
    return statement, signature if _SIGNATURE.fullmatch(signature) else ""


def parse(statement: str) -> Signed | None:
    """What a statement says, None where it is not of this form."""
    found = _STATEMENT.fullmatch(statement)
    if found is None:
        return None
    return Signed(found["id"], found["date"], found["region"], found["service"], tuple(found["headers"].split(";")))


def is_timely(signed: Signed, amz_date: str, now: datetime) -> bool:
    """Whether the request was signed just now: its time, and the day of its scope."""
    at = moment(amz_date)
    return at is not None and abs(now - at) <= SKEW and amz_date.startswith(signed.date)


@lru_cache(maxsize=64)
def moment(amz_date: str) -> datetime | None:
    """The time of a request, None for what is no such time."""
    if len(amz_date) != len("20261125T120000Z"):
        return None
    try:
        return datetime.strptime(amz_date, TIME).replace(tzinfo=UTC)
    except ValueError:
        return None


class Prepared:
    """The precomputed signature input of requests in which only the body differs."""

    __slots__ = ("_canonical", "_to_sign")

    def __init__(
        self, signed: Signed, key: bytes, method: str, path: str, values: Iterable[str | None], amz_date: str
    ) -> None:
        """With `key`, a `signing_key`, and the values of the signed headers in their order, None for one not sent."""
        named = zip(signed.headers, values, strict=True)
        lines = [
            method,
            path,
            "",
            *(f"{name}:{' '.join((value or '').split())}" for name, value in named),
            "",
            ";".join(signed.headers),
            "",
        ]
        self._canonical = sha256("\n".join(lines).encode("latin-1", "replace"))
        self._to_sign = HMAC(key, SHA256())
        self._to_sign.update(f"{ALGORITHM}\n{amz_date}\n{signed.scope}\n".encode())

    def signature(self, body: bytes) -> str:
        """The signature of the request with that body, in hexadecimal."""
        canonical = self._canonical.copy()
        canonical.update(sha256(body).hexdigest().encode())
        code = self._to_sign.copy()
        code.update(canonical.hexdigest().encode())
        return code.finalize().hex()


def signing_key(secret: Secret, signed: Signed) -> bytes:
    """The key of the day, region and service in the scope; a program uses the same all day."""
    key = b"AWS4" + secret.reveal()
    for part in signed.scope.split("/"):
        key = hmac.digest(key, part.encode(), "sha256")
    return key
