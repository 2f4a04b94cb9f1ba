"""Programs that prove themselves: keys of their own, and an issuer of tokens that tests make."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from cryptography.hazmat.primitives import serialization
from joserfc import jws
from joserfc.jwk import ECKey, Key, OKPKey, RSAKey

ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
JWT_BEARER = "urn:ietf:params:oauth:grant-type:jwt-bearer"
TOKEN_EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"
ACCESS_TOKEN = "urn:ietf:params:oauth:token-type:access_token"
AUDIENCE = "https://localhost:8443"
_numbers = itertools.count()


def new_key(alg: str = "ES256") -> Key:
    """A key pair for that algorithm."""
    if alg.startswith("ES"):
        return ECKey.generate_key({"256": "P-256", "384": "P-384", "512": "P-521"}[alg[2:]])
    return OKPKey.generate_key("Ed25519") if alg.startswith("Ed") else RSAKey.generate_key(2048)


def public_jwk(key: Key) -> dict[str, Any]:
    """The public half of a key."""
    return dict(key.as_dict(private=False))


def private_pem(key: Key) -> bytes:
    """The private half of a key as PEM, in PKCS#8."""
    private: Any = key.private_key  # type: ignore[attr-defined]
    form = serialization.PrivateFormat.PKCS8
    return bytes(private.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()))


def public_pem(key: Key) -> str:
    """The public half of a key as PEM."""
    public: Any = key.public_key  # type: ignore[attr-defined]
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return str(public.public_bytes(serialization.Encoding.PEM, form).decode())


def signed(key: Key, claims: Mapping[str, Any], alg: str = "ES256", **header: Any) -> str:
    """A JWT."""
    registry = jws.JWSRegistry(algorithms=[alg], strict_check_header=False)
    return jws.serialize_compact({"alg": alg, **header}, json.dumps(claims), key, registry=registry)


def assertion(key: Key, client_id: str, now: float | None = None, alg: str = "ES256", **claims: Any) -> str:
    """What a client signs to log in; the claims given replace those of a good one."""
    at = time.time() if now is None else now
    good = {"iss": client_id, "sub": client_id, "aud": AUDIENCE, "exp": at + 60, "jti": f"{next(_numbers)}-{at}"}
    return signed(key, {name: value for name, value in (good | claims).items() if value is not None}, alg)


@dataclass
class PlatformIssuer:
    """An issuer of platform tokens with a key of its own."""

    issuer: str = "https://issuer.example"
    audience: str = "kms"
    key: Key = field(default_factory=new_key)
    kid: str = "k1"
    alg: str = "ES256"

    @property
    def jwks(self) -> dict[str, Any]:
        """Its JWK set."""
        return {"keys": [public_jwk(self.key) | {"kid": self.kid, "alg": self.alg, "use": "sig"}]}

    def token(self, subject: str, now: float | None = None, **claims: Any) -> str:
        """A token for a subject; the claims given replace those of a good one."""
        at = time.time() if now is None else now
        good = {"iss": self.issuer, "aud": self.audience, "sub": subject, "exp": at + 600, "iat": at}
        return signed(self.key, {k: v for k, v in (good | claims).items() if v is not None}, self.alg, kid=self.kid)
