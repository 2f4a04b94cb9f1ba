"""What a program signs with its own key to log in (RFC 7523, section 2.2)."""

from __future__ import annotations

import secrets
import time

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from joserfc import jws, jwt
from joserfc.jwk import ECKey, Key, OKPKey, RSAKey

from kms.client.errors import NotLoggedIn

_SECONDS = 60
_CURVES = {"secp256r1": "ES256", "secp384r1": "ES384", "secp521r1": "ES512"}


def signed(key: PrivateKeyTypes, client_id: str, audience: str) -> str:
    """A JWT by `key` that proves the client to `audience` once, within a minute. Raises NotLoggedIn."""
    alg, signer = _jose(key)
    now = int(time.time())
    claims = {
        "iss": client_id,
        "sub": client_id,
        "aud": audience,
        "iat": now,
        "exp": now + _SECONDS,
        "jti": secrets.token_urlsafe(16),
    }
    header = {"alg": alg, "kid": signer.thumbprint()}
    return jwt.encode(header, claims, signer, registry=jws.JWSRegistry(algorithms=[alg]))


def _jose(key: PrivateKeyTypes) -> tuple[str, Key]:
    """The algorithm of a key, and the key as joserfc takes it."""
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    if isinstance(key, ec.EllipticCurvePrivateKey) and key.curve.name in _CURVES:
        return _CURVES[key.curve.name], ECKey.import_key(pem)
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return "Ed25519", OKPKey.import_key(pem)
    if isinstance(key, rsa.RSAPrivateKey):
        return "PS256", RSAKey.import_key(pem)
    raise NotLoggedIn("A private key must be on P-256, P-384, P-521 or Ed25519, or an RSA key.")
