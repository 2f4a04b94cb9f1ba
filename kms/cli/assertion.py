"""What a program signs with its own key to log in (RFC 7523, section 2.2)."""

from __future__ import annotations

import secrets
import time
from pathlib import Path

import click
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key
from joserfc import jws, jwt
from joserfc.jwk import ECKey, Key, OKPKey, RSAKey

_SECONDS = 60
_CURVES = {"secp256r1": "ES256", "secp384r1": "ES384", "secp521r1": "ES512"}


def signed(file: Path, client_id: str, audience: str) -> str:
    """A JWT by the private key in `file` (PEM) that proves the client to `audience` once, within a minute.

    Asks for the passphrase of an encrypted key. Raises ClickException.
    """
    alg, key = _jose(_private_key(file), file)
    now = int(time.time())
    claims = {
        "iss": client_id,
        "sub": client_id,
        "aud": audience,
        "iat": now,
        "exp": now + _SECONDS,
        "jti": secrets.token_urlsafe(16),
    }
    header = {"alg": alg, "kid": key.thumbprint()}
    return jwt.encode(header, claims, key, registry=jws.JWSRegistry(algorithms=[alg]))


def _private_key(file: Path) -> PrivateKeyTypes:
    try:
        pem = file.read_bytes()
    except OSError as error:
        raise click.ClickException(f"Cannot read {file}: {error.strerror}.") from None
    try:
        return load_pem_private_key(pem, None)
    except TypeError:  # so the library says that it is encrypted
        passphrase = click.prompt(f"Passphrase of {file} (it is not shown)", hide_input=True)
    except (ValueError, UnsupportedAlgorithm):
        raise click.ClickException(f"{file} is not a private key in PEM.") from None
    try:
        return load_pem_private_key(pem, passphrase.encode())
    except ValueError:
        raise click.ClickException(f"The passphrase is not that of {file}.") from None


def _jose(key: PrivateKeyTypes, file: Path) -> tuple[str, Key]:
    """The algorithm of a key, and the key as joserfc takes it. Raises ClickException for one of another type."""
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    if isinstance(key, ec.EllipticCurvePrivateKey) and key.curve.name in _CURVES:
        return _CURVES[key.curve.name], ECKey.import_key(pem)
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return "Ed25519", OKPKey.import_key(pem)
    if isinstance(key, rsa.RSAPrivateKey):
        return "PS256", RSAKey.import_key(pem)
    raise click.ClickException(f"{file} must be on P-256, P-384, P-521 or Ed25519, or an RSA key.")
