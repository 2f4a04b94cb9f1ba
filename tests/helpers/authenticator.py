"""An authenticator of one's own, with the browser in front of it: makes passkeys and signs with them as they do."""

from __future__ import annotations

import base64
import json
import os
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from webauthn.helpers import encode_cbor

ES256, EDDSA, RS256 = -7, -8, -257
USER_PRESENT, USER_VERIFIED, BACKUP_ELIGIBLE, BACKED_UP, ATTESTED = 0x01, 0x04, 0x08, 0x10, 0x40
ORIGIN = "https://localhost:8443"


def b64url(value: bytes) -> str:
    """Base64url without padding."""
    return base64.urlsafe_b64encode(value).rstrip(b"=").decode()


def unb64url(text: str) -> bytes:
    """The bytes of base64url without padding."""
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


@dataclass
class Authenticator:
    """One passkey and what it is asked by. What is wrong about it can be set."""

    alg: int = ES256
    origin: str = ORIGIN
    rp_id: str | None = None  # another than the options have
    flags: int = USER_PRESENT | USER_VERIFIED
    sign_count: int = 0
    counts: bool = True
    credential_id: bytes = field(default_factory=lambda: os.urandom(32))
    user_handle: bytes = b""
    key: Any = None
    attestation: str = "none"
    extensions: bytes = b""
    client_data: dict[str, Any] = field(default_factory=dict)  # members in place of the browser's

    def __post_init__(self) -> None:
        if self.key is None:
            self.key = {
                ES256: lambda: ec.generate_private_key(ec.SECP256R1()),
                EDDSA: ed25519.Ed25519PrivateKey.generate,
                RS256: lambda: rsa.generate_private_key(65537, 2048),
            }[self.alg]()

    def create(self, options: dict[str, Any]) -> dict[str, Any]:
        """What `navigator.credentials.create()` gives for these options, as RegistrationResponseJSON."""
        self.user_handle = unb64url(options["user"]["id"])
        client_data = self._client_data("webauthn.create", options["challenge"])
        data = self._data(self.rp_id or options["rp"]["id"], ATTESTED) + self._attested() + self.extensions
        statement: dict[str, Any] = {}
        if self.attestation != "none":
            statement = {"alg": self.alg, "sig": self._sign(data + sha256(client_data).digest())}
        attestation = encode_cbor({"fmt": self.attestation, "attStmt": statement, "authData": data})
        response = {"attestationObject": b64url(attestation), "transports": ["internal", "hybrid", "telepathy"]}
        return self._credential(client_data, response)

    def get(self, options: dict[str, Any]) -> dict[str, Any]:
        """What `navigator.credentials.get()` gives for these options, as AuthenticationResponseJSON."""
        if self.counts:
            self.sign_count += 1
        client_data = self._client_data("webauthn.get", options["challenge"])
        data = self._data(self.rp_id or options["rpId"]) + self.extensions
        signature = self._sign(data + sha256(client_data).digest())
        response = {"authenticatorData": b64url(data), "signature": b64url(signature)}
        return self._credential(client_data, {**response, "userHandle": b64url(self.user_handle)})

    def _credential(self, client_data: bytes, response: dict[str, Any]) -> dict[str, Any]:
        return {
            "id": b64url(self.credential_id),
            "rawId": b64url(self.credential_id),
            "type": "public-key",
            "authenticatorAttachment": "platform",
            "clientExtensionResults": {},
            "response": {"clientDataJSON": b64url(client_data), **response},
        }

    def _client_data(self, kind: str, challenge: str) -> bytes:
        members = {"type": kind, "challenge": challenge, "origin": self.origin, "crossOrigin": False}
        return json.dumps(members | self.client_data).encode()

    def _data(self, rp_id: str, flags: int = 0) -> bytes:
        return sha256(rp_id.encode()).digest() + bytes([self.flags | flags]) + self.sign_count.to_bytes(4)

    def _attested(self) -> bytes:
        return bytes(16) + len(self.credential_id).to_bytes(2) + self.credential_id + encode_cbor(self.cose)

    @property
    def cose(self) -> dict[int, Any]:
        """Its public key as a COSE key."""
        public = self.key.public_key()
        if isinstance(public, ec.EllipticCurvePublicKey):
            numbers, size = public.public_numbers(), (public.key_size + 7) // 8
            curve = {"secp256r1": 1, "secp384r1": 2}[public.curve.name]
            x, y = numbers.x.to_bytes(size), numbers.y.to_bytes(size)
            return {1: 2, 3: self.alg, -1: curve, -2: x, -3: y}
        if isinstance(public, rsa.RSAPublicKey):
            numbers_of_rsa = public.public_numbers()
            n = numbers_of_rsa.n.to_bytes(public.key_size // 8)
            return {1: 3, 3: self.alg, -1: n, -2: numbers_of_rsa.e.to_bytes(3)}
        return {1: 1, 3: self.alg, -1: 6, -2: public.public_bytes_raw()}

    def _sign(self, message: bytes) -> bytes:
        if isinstance(self.key, ec.EllipticCurvePrivateKey):
            return self.key.sign(message, ec.ECDSA(hashes.SHA256()))
        if isinstance(self.key, rsa.RSAPrivateKey):
            return self.key.sign(message, padding.PKCS1v15(), hashes.SHA256())
        return bytes(self.key.sign(message))
