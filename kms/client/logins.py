"""The ways to log in: what a program sends to `POST /auth/token` to get a session."""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from kms.client import assertion
from kms.client.errors import NotLoggedIn

_ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
_JWT_BEARER = "urn:ietf:params:oauth:grant-type:jwt-bearer"
_TOKEN_EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"  # noqa: S105
_ACCESS_TOKEN = "urn:ietf:params:oauth:token-type:access_token"  # noqa: S105


@dataclass(frozen=True)
class Proof:
    """What goes into one request for a session: headers, and members of its body."""

    headers: dict[str, str] = field(default_factory=dict, repr=False)
    members: dict[str, str] = field(default_factory=dict, repr=False)


class Login(Protocol):
    """A way to log in; it is used again whenever a session has ended."""

    def proof(self, url: str) -> Proof:
        """What proves the client to the service at `url`, once. Raises NotLoggedIn."""


@dataclass(frozen=True)
class PrivateKeyLogin:
    """A program's own key (RFC 7523): PEM on P-256, P-384, P-521 or Ed25519, or RSA, whose public half is registered.

    `audience` is what the service calls itself (KMS_PUBLIC_URL), where that is another URL than it is called by.
    """

    client_id: str
    key: PrivateKeyTypes = field(repr=False)
    audience: str = ""

    @classmethod
    def from_file(
        cls, client_id: str, path: str | Path, passphrase: bytes | None = None, audience: str = ""
    ) -> PrivateKeyLogin:
        """With the key in a file of PEM. Raises NotLoggedIn where it cannot be read."""
        return cls(client_id, read_private_key(path, passphrase), audience)

    def proof(self, url: str) -> Proof:
        """A JWT of a minute, made for this request."""
        signed = assertion.signed(self.key, self.client_id, self.audience or url)
        return Proof(members={"client_assertion_type": _ASSERTION_TYPE, "client_assertion": signed})


@dataclass(frozen=True)
class PlatformTokenLogin:
    """The token that a platform gives its programs (Kubernetes, CI): a file that it renews, or a function."""

    role: str
    token: str | Path | Callable[[], str] = field(repr=False)

    def proof(self, url: str) -> Proof:
        """The token as it is now."""
        try:
            token = self.token() if callable(self.token) else Path(self.token).read_text(encoding="ascii").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise NotLoggedIn(f"The platform's token cannot be read: {error}.") from None
        return Proof(members={"grant_type": _JWT_BEARER, "assertion": token, "role": self.role})


@dataclass(frozen=True)
class CertificateLogin:
    """A client certificate (RFC 8705), which the connection itself shows; `Client` has `certificate` for it."""

    client_id: str

    def proof(self, url: str) -> Proof:
        """Only the name."""
        return Proof(members={"grant_type": "client_credentials", "client_id": self.client_id})


@dataclass(frozen=True)
class SecretLogin:
    """A person: client secret and a code. `code` gives the six digits as the authenticator app shows them now."""

    client_id: str
    secret: str = field(repr=False)
    code: Callable[[], str] = field(repr=False)
    is_recovery_code: bool = False

    def proof(self, url: str) -> Proof:
        """Secret and code."""
        basic = base64.b64encode(f"{self.client_id}:{self.secret}".encode()).decode()
        factor = "X-Recovery-Code" if self.is_recovery_code else "X-TOTP"
        return Proof(headers={"Authorization": f"Basic {basic}", factor: self.code()})


@dataclass(frozen=True)
class NarrowedLogin:
    """A session that is made of another one (RFC 8693) and ends with it."""

    token: Callable[[], str] = field(repr=False)

    def proof(self, url: str) -> Proof:
        """The token of the other one."""
        members = {
            "grant_type": _TOKEN_EXCHANGE,
            "subject_token": self.token(),
            "subject_token_type": _ACCESS_TOKEN,
        }
        return Proof(members=members)


def read_private_key(path: str | Path, passphrase: bytes | None = None) -> PrivateKeyTypes:
    """The private key in a file of PEM. Raises NotLoggedIn, and TypeError where it needs a passphrase."""
    try:
        pem = Path(path).read_bytes()
    except OSError as error:
        raise NotLoggedIn(f"Cannot read {path}: {error.strerror}.") from None
    try:
        return load_pem_private_key(pem, passphrase)
    except (ValueError, UnsupportedAlgorithm):
        wrong = f"The passphrase is not that of {path}." if passphrase else f"{path} is not a private key in PEM."
        raise NotLoggedIn(wrong) from None
