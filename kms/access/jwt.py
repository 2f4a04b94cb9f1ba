"""Signed JWTs (RFC 7519) in the compact form (RFC 7515), read as strictly as RFC 8725 asks; joserfc verifies.

`peek` reads a token without trusting it, so that the key can be found by what it names; `verify` gives its claims.
What the header could say about where a key is (`jku`, `x5u`, `jwk`) is never looked at.
"""

from __future__ import annotations

import binascii
import re
from base64 import b64decode
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Never

from joserfc import jws
from joserfc.errors import JoseError
from joserfc.util import urlsafe_b64decode

from kms.access.strict_json import NotStrict, json_object
from kms.access.verification_key import VerificationKey

CLIENT_ALGORITHMS = ("ES256", "ES384", "ES512", "Ed25519", "EdDSA", "PS256", "RS256")
"""What clients sign with. `EdDSA` is the older name (RFC 8037) of what RFC 9864 calls `Ed25519`."""

ALGORITHMS = (*CLIENT_ALGORITHMS, "PS384", "PS512", "RS384", "RS512")
"""What issuers sign with: public keys only, so that nobody who can verify can sign."""

_LONGEST_TOKEN = 16_384
_LONGEST_KID = 512
_LONGEST_CHAIN = 8
_LAST_MOMENT = datetime(9999, 12, 31, tzinfo=UTC).timestamp()
_TYPES = frozenset({"jwt", "at+jwt", "client-authentication+jwt"})
_TOKEN = re.compile(r"([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)\.[A-Za-z0-9_-]+")


class Refused(Exception):
    """A token that is not accepted.

    `reason` is a sentence for people. Only where `verified` is true has the caller shown that the token was signed
    by the key; to everybody else the reason is not told. `claim` is the one that is the reason, where one is.
    """

    def __init__(self, reason: str, *, verified: bool = False, claim: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.claim = claim
        self.verified = verified


@dataclass(frozen=True)
class Header:
    """What a token says about itself before anything is proven: good for finding a key, and for nothing else.

    `kid` and `typ` as they stand, None where absent; `x5c` the certificates in DER, the signer's first;
    `claimed_issuer` and `claimed_subject` the claims `iss` and `sub` where they are strings.
    """

    alg: str
    kid: str | None
    typ: str | None
    x5c: tuple[bytes, ...] | None
    claimed_issuer: str | None
    claimed_subject: str | None
    _token: str = field(repr=False)
    _claims: dict[str, Any] = field(repr=False, compare=False)


@dataclass(frozen=True)
class Claims:
    """The claims of a token whose signature was verified. Every method raises Refused, with `verified` true."""

    members: Mapping[str, Any] = field(repr=False)

    def text(self, name: str) -> str:
        """The claim `name`, which must be there as a string that is not empty."""
        value = self.members.get(name)
        if not isinstance(value, str) or not value:
            _refuse(f"The claim {name} must be a string that is not empty.")
        return value

    @property
    def issuer(self) -> str:
        """`iss`, to be compared as it stands."""
        return self.text("iss")

    @property
    def subject(self) -> str:
        """`sub`."""
        return self.text("sub")

    @property
    def token_id(self) -> str:
        """`jti`."""
        return self.text("jti")


def peek(token: str) -> Header:
    """Read `token` without verifying it. Raises Refused for everything that is not exactly a compact JWS of a JWT.

    That is: at most 16 KiB; three parts in base64url, unpadded and canonical; header and payload JSON objects in
    UTF-8, no member twice, at most 16 deep; no `crit`, no `b64`; `typ` absent or of a kind that is meant for this;
    `alg` one of `ALGORITHMS`.
    """
    if len(token) > _LONGEST_TOKEN:
        raise Refused(f"A token has at most {_LONGEST_TOKEN} characters.")
    parts = _TOKEN.fullmatch(token)
    if parts is None:
        raise Refused("Not a JWT: three parts in base64url without padding, with a dot between them.")
    header, claims = _json_object(parts[1]), _json_object(parts[2])
    if "crit" in header or "b64" in header:
        raise Refused("The header has crit or b64, and no extension of JWS is supported.")
    alg, kid, typ = header.get("alg"), header.get("kid"), header.get("typ")
    if alg not in ALGORITHMS:
        raise Refused(f"alg must be one of {', '.join(ALGORITHMS)}.")
    if "kid" in header and not (isinstance(kid, str) and 0 < len(kid) <= _LONGEST_KID):
        raise Refused(f"kid must be a string of 1 to {_LONGEST_KID} characters.")
    if "typ" in header and not _is_type(typ):
        raise Refused("typ must be JWT, at+jwt or client-authentication+jwt, or left out.")
    issuer, subject = claims.get("iss"), claims.get("sub")
    return Header(
        alg=alg,
        kid=kid,
        typ=typ,
        x5c=_chain(header["x5c"]) if "x5c" in header else None,
        claimed_issuer=issuer if isinstance(issuer, str) else None,
        claimed_subject=subject if isinstance(subject, str) else None,
        _token=token,
        _claims=claims,
    )


def verify(header: Header, key: VerificationKey, algorithms: Collection[str] = ALGORITHMS) -> Claims:
    """The claims of the token that `peek` read, if `key` signed it.

    `alg` must be one of `algorithms` and one that `key` is for; the key fixes it, not the token. Raises Refused.
    """
    if header.alg not in algorithms or header.alg not in key.algorithms:
        raise Refused(f"The key is not one for {header.alg}.")
    try:
        jws.deserialize_compact(header._token, key.joserfc_key, registry=_REGISTRY)
    except (JoseError, ValueError):
        raise Refused("The signature is not one by the key.") from None
    return Claims(header._claims)


def require_times(claims: Claims, now: datetime, longest: timedelta | None, leeway: timedelta) -> datetime:
    """The moment at which the token ends, `exp`, which must be there. Raises Refused unless the token is in force.

    That is: `exp` is after `now` and, where `longest` is given, not further away than that; `nbf` and `iat`, where
    given, are not in the future. Clocks may differ by `leeway`.
    """
    at = now.timestamp()
    slack = leeway.total_seconds()
    expires = _moment(claims, "exp")
    if expires is None:
        _refuse("The claim exp is missing.")
    if expires <= at - slack:
        _refuse("The token has expired (exp).", claim="exp")
    if longest is not None and expires > at + longest.total_seconds() + slack:
        _refuse(f"The token must expire within {longest.total_seconds():.0f} seconds (exp).")
    for name in ("nbf", "iat"):
        moment = _moment(claims, name)
        if moment is not None and moment > at + slack:
            _refuse(f"The claim {name} is in the future; are the clocks right?", claim=name)
    return datetime.fromtimestamp(expires, UTC)


def audiences(claims: Claims) -> frozenset[str]:
    """`aud`: one string, or an array of them, none of them empty. Raises Refused."""
    given = claims.members.get("aud")
    each = given if isinstance(given, list) else [given]
    if not each or not all(isinstance(audience, str) and audience for audience in each):
        _refuse("The claim aud must be a string or an array of strings, and not empty.", claim="aud")
    return frozenset(each)


def _moment(claims: Claims, name: str) -> int | float | None:
    """A NumericDate (RFC 7519, section 2) in seconds since 1970, until the year 9999."""
    if name not in claims.members:
        return None
    value = claims.members[name]
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= _LAST_MOMENT:
        _refuse(f"The claim {name} must be a number of seconds since 1970.")
    return value


def _refuse(reason: str, claim: str = "") -> Never:
    raise Refused(reason, verified=True, claim=claim)


def _is_type(typ: object) -> bool:
    """Whether a media type is one of ours; `application/` may be left out (RFC 7515, section 4.1.9)."""
    return isinstance(typ, str) and typ.lower().removeprefix("application/") in _TYPES


def _chain(given: object) -> tuple[bytes, ...]:
    """The certificates of `x5c`, DER in base64 that is not base64url (RFC 7515, section 4.1.6)."""
    if not isinstance(given, list) or not 0 < len(given) <= _LONGEST_CHAIN:
        raise Refused(f"x5c must be an array of 1 to {_LONGEST_CHAIN} certificates.")
    try:
        return tuple(b64decode(each.encode("ascii"), validate=True) for each in given)
    except (AttributeError, ValueError):
        raise Refused("x5c must hold certificates, DER in base64.") from None


def _json_object(part: str) -> dict[str, Any]:
    try:
        return json_object(urlsafe_b64decode(part.encode("ascii")))
    except binascii.Error:
        raise Refused("A part of the token is not canonical base64url.") from None
    except NotStrict as error:
        raise Refused(f"A part of the token is not acceptable JSON: {error}") from None


class _Registry(jws.JWSRegistry):
    """joserfc's algorithms behind the checks of `peek`, which are stricter than its own."""

    max_header_length = max_payload_length = _LONGEST_TOKEN

    def check_header(self, header: dict[str, Any]) -> None:
        """Nothing is left to check: members that nobody looks at may hold what they like."""

    def get_alg(self, name: str) -> Any:
        """The algorithm `name`, which `verify` has held against the key."""
        return self.algorithms["Ed25519" if name == "EdDSA" else name]  # the older name warns


_REGISTRY = _Registry()
