"""Fetch the JWK set of an issuer: from hosts that the operator named, over TLS, bounded in time and size."""

from __future__ import annotations

from http.client import HTTPResponse
from pathlib import Path

from kms import outgoing
from kms.access.jwks import LONGEST
from kms.errors import Unavailable
from kms.outgoing import Place, Unreachable

_RETRY_AFTER = 60
_NOT_NAMED = (
    "keys are not fetched from {place}. An operator can name it in KMS_JWKS_HOSTS, or give the keys themselves as "
    "jwks."
)


def named_hosts(setting: str) -> frozenset[str]:
    """The hosts in `jwks_hosts`, as `outgoing.named_hosts` reads them. Raises StartError."""
    return outgoing.named_hosts(setting, "jwks_hosts")


def require_url(url: str, hosts: frozenset[str]) -> None:
    """Raise ValidationFailed unless `fetch` would ask for `url`. `hosts` are as `named_hosts` gives them."""
    _place(url, hosts)


def fetch(url: str, hosts: frozenset[str], ca: Path | None = None, seconds: float = 5.0) -> bytes:
    """The body at `url`, at most `LONGEST` bytes, which have to be there within `seconds` altogether.

    The host must be one of `hosts`, exactly; what address it has is the operator's affair. Its certificate must come
    from an authority of the system or of the PEM file `ca`. Raises ValidationFailed for another URL, and Unavailable
    for every other answer than 200 with a body as it is; the reason has nothing of the body in it.
    """
    place = _place(url, hosts)
    request = (
        f"GET {place.target} HTTP/1.1\r\nHost: {place.name.removesuffix(':443')}\r\nAccept: application/json\r\n"
        "Accept-Encoding: identity\r\nUser-Agent: kms\r\nConnection: close\r\n\r\n"
    )
    try:
        return outgoing.exchange(
            place, request.encode("ascii"), _body, seconds=seconds, most=LONGEST, ca=ca, ca_setting="KMS_JWKS_CA"
        )
    except Unreachable as fault:
        raise Unavailable(
            f"The keys of the issuer at {place.name} cannot be fetched: {fault.reason}.", retry_after=_RETRY_AFTER
        ) from None


def _place(url: str, hosts: frozenset[str]) -> Place:
    return outgoing.place_of(url, hosts, "jwks_uri", _NOT_NAMED)


def _body(response: HTTPResponse) -> bytes:
    if response.status != 200:
        raise Unreachable(f"it answered {response.status}{outgoing.redirects(response.status)}")
    if response.getheader("Content-Encoding", "identity").lower() != "identity":
        raise Unreachable("its answer is compressed, which was not asked for")
    body = response.read(LONGEST + 1)
    if len(body) > LONGEST:
        raise Unreachable(f"its answer has more than {LONGEST} bytes")
    return body
