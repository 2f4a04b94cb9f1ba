"""Keys as JWK: RFC 7517, 7518 and 8037 through joserfc, and kty AKP (RFC 9864's successor for ML-DSA and ML-KEM)."""

from __future__ import annotations

import base64
import json
from hashlib import sha256
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, mldsa, mlkem, rsa, x448, x25519
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, OKPKey, RSAKey, import_key

from kms.crypto.pkcs8 import halves, load_private, load_public, private_der
from kms.errors import ValidationFailed

_SEEDED: dict[str, tuple[Any, Any]] = {
    "ML-KEM-768": (mlkem.MLKEM768PrivateKey, mlkem.MLKEM768PublicKey),
    "ML-KEM-1024": (mlkem.MLKEM1024PrivateKey, mlkem.MLKEM1024PublicKey),
    "ML-DSA-44": (mldsa.MLDSA44PrivateKey, mldsa.MLDSA44PublicKey),
    "ML-DSA-65": (mldsa.MLDSA65PrivateKey, mldsa.MLDSA65PublicKey),
    "ML-DSA-87": (mldsa.MLDSA87PrivateKey, mldsa.MLDSA87PublicKey),
}
_RSA_SIZES = {
    "n": 700,
    "e": 20,
    "d": 700,
    "p": 360,
    "q": 360,
    "dp": 360,
    "dq": 360,
    "qi": 360,
}  # of 4096 bits, base64
_IDENTIFYING = frozenset({"alg", "crv", "e", "kty", "n", "pub", "x", "y"})
_EC = (ec.EllipticCurvePrivateKey, ec.EllipticCurvePublicKey)
_RSA = (rsa.RSAPrivateKey, rsa.RSAPublicKey)
_OKP = (
    ed25519.Ed25519PublicKey,
    ed448.Ed448PublicKey,
    x25519.X25519PublicKey,
    x448.X448PublicKey,
    ed25519.Ed25519PrivateKey,
    ed448.Ed448PrivateKey,
    x25519.X25519PrivateKey,
    x448.X448PrivateKey,
)


def public(spki: bytes) -> dict[str, Any]:
    """The public key in DER as a JWK whose `kid` is its thumbprint (RFC 7638). Raises ValidationFailed."""
    members = _members(load_public(spki, "public_key"))
    required = {name: members[name] for name in sorted(members) if name in _IDENTIFYING}
    canonical = json.dumps(required, separators=(",", ":")).encode()
    return {**members, "kid": _b64(sha256(canonical).digest())}


def private(material: bytes, form: str) -> bytes:
    """Material, `raw` or `pkcs8`, as the JSON of a JWK."""
    members = {"kty": "oct", "k": _b64(material)} if form == "raw" else _members(load_private(material, object))
    return json.dumps(members, separators=(",", ":")).encode()


def material(encoded: bytes) -> tuple[bytes, str]:
    """The material in the JSON of a private or secret JWK and its form, `raw` or `pkcs8`. Raises ValidationFailed."""
    refusal = ValidationFailed("wrapped_key: not a valid private or secret JWK.")
    try:
        members = json.loads(encoded)
        if members["kty"] == "AKP":
            private, _ = _SEEDED[members["alg"]]
            key = private.from_seed_bytes(_unb64(members["priv"]))
            if "pub" in members and _unb64(members["pub"]) != key.public_key().public_bytes_raw():
                raise refusal
            return private_der(key), "pkcs8"
        if members["kty"] == "RSA" and any(
            not 0 < len(members[name]) < longest for name, longest in _RSA_SIZES.items()
        ):
            raise refusal  # without its factors, or of a size that would be computed on for minutes
        if members["kty"] == "oct":
            return _unb64(members["k"]), "raw"
        return private_der(import_key(members).private_key), "pkcs8"  # type: ignore[arg-type]
    except (JoseError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise refusal from None


def _members(key: Any) -> dict[str, Any]:
    own, public = halves(key)
    for algorithm, (_, kind) in _SEEDED.items():
        if isinstance(public, kind):
            members = {"kty": "AKP", "alg": algorithm, "pub": _b64(public.public_bytes_raw())}
            return members if own is None else {**members, "priv": _b64(own.private_bytes_raw())}
    wrapper: Any
    for kinds, wrapper in ((_EC, ECKey), (_RSA, RSAKey), (_OKP, OKPKey)):
        if isinstance(key, kinds):
            return dict(wrapper.import_key(key).as_dict(private=own is not None))
    raise ValidationFailed("format: a key of this type cannot be written as JWK.")


def _b64(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


def _unb64(text: str) -> bytes:
    return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
