"""Public keys that clients and issuers sign JWTs with, as they come in: JWK (RFC 7517) or PEM."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes
from joserfc.errors import JoseError
from joserfc.jwk import Key, import_key
from joserfc.util import base64_to_int

from kms.crypto import edwards, goodkey, jwk, pkcs8
from kms.errors import ValidationFailed

_SMALLEST_RSA, _LARGEST_RSA = 2048, 4096
_LONGEST_MEMBER = 700  # a modulus of 4096 bits in base64
_PRIVATE = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k", "priv"})
_RSA_ALGORITHMS = ("PS256", "PS384", "PS512", "RS256", "RS384", "RS512")
_EDWARDS_ALGORITHMS = ("Ed25519", "EdDSA")
_CURVES = frozenset({"secp256r1", "secp384r1", "secp521r1"})
_CURVE_ALGORITHMS = {
    ("EC", "P-256"): ("ES256",),
    ("EC", "P-384"): ("ES384",),
    ("EC", "P-521"): ("ES512",),
    ("OKP", "Ed25519"): _EDWARDS_ALGORITHMS,
}
_MEMBERS = {"EC": ("crv", "x", "y"), "OKP": ("crv", "x"), "RSA": ("e", "n")}


@dataclass(frozen=True)
class VerificationKey:
    """A public key that was checked. `kid` is its RFC 7638 thumbprint (SHA-256); `jwk` its identifying members only.

    `algorithms` are the values of `alg` that it verifies: fixed by its type and curve, and by its own `alg`.
    """

    kid: str
    jwk: Mapping[str, str]
    algorithms: tuple[str, ...]
    joserfc_key: Key = field(repr=False, compare=False)


def public_key_from_jwk(members: Mapping[str, Any]) -> VerificationKey:
    """The key in the JWK `members`. Raises ValidationFailed saying what to do instead."""
    require_public(members)
    algorithms = algorithms_for(members)
    if not algorithms:
        raise ValidationFailed(
            "jwk: send a public key that verifies signatures: kty EC with crv P-256, P-384, P-521, OKP with Ed25519, "
            "or RSA; use, key_ops and alg, where given, must agree."
        )
    needed = {name: members.get(name) for name in ("kty", *_MEMBERS[members["kty"]])}
    refusal = ValidationFailed("jwk: not a valid public key; a member is missing, not base64url or not on the curve.")
    if not all(isinstance(value, str) and len(value) <= _LONGEST_MEMBER for value in needed.values()):
        raise refusal
    try:
        if "n" in needed:
            _require_size(base64_to_int(str(needed["n"])).bit_length())  # before the library warns of it
        public: Any = import_key(needed).public_key  # type: ignore[arg-type]  # checked in the line above
    except (JoseError, ValueError):
        raise refusal from None
    return _checked(pkcs8.public_der(public), algorithms)


def public_key_from_pem(pem: str) -> VerificationKey:
    """The key in `pem`, `-----BEGIN PUBLIC KEY-----` first. Raises ValidationFailed saying what to do instead."""
    if "PRIVATE KEY" in pem:
        raise ValidationFailed(PRIVATE_KEY_SENT.format("public_key"))
    public = pkcs8.load_public(pkcs8.der_of_pem(pem, "public_key"), "public_key")
    on_curve = isinstance(public, ec.EllipticCurvePublicKey) and public.curve.name in _CURVES
    if not on_curve and not isinstance(public, (ed25519.Ed25519PublicKey, rsa.RSAPublicKey)):
        raise ValidationFailed("public_key: send a key on P-256, P-384, P-521 or Ed25519, or an RSA key.")
    return _checked(pkcs8.public_der(public), ())


def require_public(members: Mapping[str, Any]) -> None:
    """Raise ValidationFailed for a JWK that is private or symmetric: it is no secret any more."""
    if members.get("kty") == "oct":
        raise ValidationFailed("jwk: a symmetric key can sign whatever it verifies. Send a public key.")
    if _PRIVATE & members.keys():
        raise ValidationFailed(PRIVATE_KEY_SENT.format("jwk"))


def algorithms_for(members: Mapping[str, Any]) -> tuple[str, ...]:
    """What a key with these JWK members verifies; nothing for another type or curve, or a key for another use."""
    kty, crv, use, operations = (members.get(name) for name in ("kty", "crv", "use", "key_ops"))
    if use not in (None, "sig") or not (operations is None or isinstance(operations, list)):
        return ()
    if operations is not None and "verify" not in operations:
        return ()
    if not isinstance(kty, str) or not (crv is None or isinstance(crv, str)):
        return ()
    able = _RSA_ALGORITHMS if kty == "RSA" else _CURVE_ALGORITHMS.get((kty, crv or ""), ())
    own = members.get("alg")
    if own is None or (able == _EDWARDS_ALGORITHMS and own in able):
        return able
    return (own,) if own in able else ()


PRIVATE_KEY_SENT = (
    "{}: this is a private key, and it has now been seen by others. Make a new one and send its public half."
)


@lru_cache(maxsize=512)  # an issuer's set is read again and again, and testing a modulus takes up to 100 ms
def _checked(der: bytes, algorithms: tuple[str, ...]) -> VerificationKey:
    """The key in SubjectPublicKeyInfo `der`, for `algorithms` or, where there are none, for all that it can do."""
    public = pkcs8.load_public(der, "public_key")
    _require_strong(public)
    members = jwk.public(der)
    kid = members.pop("kid")
    return VerificationKey(
        kid=kid, jwk=members, algorithms=algorithms or algorithms_for(members), joserfc_key=import_key(members)
    )


def _require_strong(public: PublicKeyTypes) -> None:
    if isinstance(public, rsa.RSAPublicKey):
        _require_size(public.key_size)
        goodkey.validate(public)
    elif isinstance(public, ed25519.Ed25519PublicKey):
        edwards.validate(public)


def _require_size(bits: int) -> None:
    if not _SMALLEST_RSA <= bits <= _LARGEST_RSA:
        raise ValidationFailed(
            f"public_key: an RSA key must have {_SMALLEST_RSA} to {_LARGEST_RSA} bits; this one has {bits}."
        )
