"""AWS Signature Version 4, as a server checks it (AWS General Reference, "Signature Version 4 signing process").

Only the form in the Authorization header, of requests whose path and query are as plain as those of AWS KMS.
"""

from __future__ import annotations

import hmac
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from hashlib import sha256

from kms.secret import Secret

ALGORITHM = "AWS4-HMAC-SHA256"
SKEW = timedelta(minutes=5)
_AUTHORIZATION = re.compile(
    ALGORITHM + r" +Credential=(?P<id>[A-Za-z0-9]{1,128})/(?P<date>[0-9]{8})/(?P<region>[a-z0-9-]{1,32})"
    r"/(?P<service>[a-z0-9-]{1,32})/aws4_request, *SignedHeaders=(?P<headers>[a-z0-9;_-]{1,1024}),"
    r" *Signature=(?P<signature>[0-9a-f]{64})"
)
TIME = "%Y%m%dT%H%M%SZ"
"""How AWS writes a time."""


@dataclass(frozen=True)
class Signed:
    """What the Authorization header of a signed request says."""

    access_key_id: str
    date: str
    region: str
    service: str
    headers: tuple[str, ...]
    signature: str

    @property
    def scope(self) -> str:
        """The scope of the credential."""
        return f"{self.date}/{self.region}/{self.service}/aws4_request"


def parse(authorization: str) -> Signed | None:
    """The parts of an Authorization header, None where it is not of this form."""
    found = _AUTHORIZATION.fullmatch(authorization.strip())
    if found is None:
        return None
    headers = tuple(found["headers"].split(";"))
    return Signed(found["id"], found["date"], found["region"], found["service"], headers, found["signature"])


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


def verify(
    signed: Signed, key: bytes, method: str, path: str, headers: dict[str, str], amz_date: str, body_hash: str
) -> bool:
    """Whether the signature is the right one."""
    expected = signature(signed, key, method, path, headers, amz_date, body_hash)
    return hmac.compare_digest(expected, signed.signature)


def signature(
    signed: Signed, key: bytes, method: str, path: str, headers: dict[str, str], amz_date: str, body_hash: str
) -> str:
    """The signature of `key`, a `signing_key`, over this request, in hexadecimal.

    `headers` has the signed ones, their names in lower case; `body_hash` is the SHA-256 of the body in hexadecimal.
    """
    canonical = "\n".join(
        [
            method,
            path,
            "",
            *(f"{name}:{' '.join(headers[name].split())}" for name in signed.headers),
            "",
            ";".join(signed.headers),
            body_hash,
        ]
    )
    digest = sha256(canonical.encode("latin-1", "replace")).hexdigest()
    to_sign = f"{ALGORITHM}\n{amz_date}\n{signed.scope}\n{digest}".encode()
    return hmac.digest(key, to_sign, "sha256").hex()


def signing_key(secret: Secret, signed: Signed) -> bytes:
    """The key of the day, region and service in the scope; a program uses the same all day."""
    key = b"AWS4" + secret.reveal()
    for part in signed.scope.split("/"):
        key = hmac.digest(key, part.encode(), "sha256")
    return key
