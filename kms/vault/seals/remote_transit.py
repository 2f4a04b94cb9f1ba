"""The wrapping key in the transit engine of OpenBao or Vault, or of a KMS that speaks their protocol."""

from __future__ import annotations

import base64
import binascii
import re
from contextlib import suppress
from hashlib import sha256
from typing import Any

import msgspec

from kms.config import Settings
from kms.errors import StartError
from kms.outgoing import Unreachable
from kms.vault.sealing import SealBroken
from kms.vault.seals.remote import Answer, RemoteKms, quoted, require_sendable

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(?:/[A-Za-z0-9][A-Za-z0-9._-]*)*")
_NOT_OPENED = ("message authentication failed", "invalid ciphertext", "ciphertext is not", "wrong key")


class TransitKms:
    """Encrypt and decrypt with one key of a mount, by a token or as an AppRole.

    The SHA-256 of the context goes with it as `associated_data`, which keys of the types aes128-gcm96, aes256-gcm96,
    chacha20-poly1305 and xchacha20-poly1305 take. The session of an AppRole is ended after use.
    """

    def __init__(self, remote: RemoteKms, key: str, settings: Settings) -> None:
        self._remote, self._settings = remote, settings
        self._mount, self._key = settings.seal_kms_mount.strip("/"), key
        for value, setting in ((self._mount, "KMS_SEAL_KMS_MOUNT"), (key, "KMS_SEAL_KMS_KEY")):
            if not _NAME.fullmatch(value):
                raise StartError(f"{setting}: {value} is no name of letters, digits, dots, hyphens and underscores.")
        self._is_role = settings.seal_kms_role_id is not None
        self._token = None if self._is_role else require_sendable(settings.seal_kms_token, "KMS_SEAL_KMS_TOKEN_FILE")

    def key_name(self) -> str:
        """The path of the key, after trying that it encrypts. Raises StartError."""
        self.wrap_key(bytes(32), b"")
        return f"{self._mount}/{self._key}"

    def wrap_key(self, key: bytes, context: bytes) -> bytes:
        """As `KeyWrapper.wrap_key`: the ciphertext in the form of the engine, `vault:v1:…`."""
        asked = {"plaintext": base64.b64encode(key).decode(), "associated_data": _context(context)}
        return self._call("encrypt", asked, "ciphertext").encode()

    def unwrap_key(self, wrapped: bytes, context: bytes) -> bytes:
        """As `KeyWrapper.unwrap_key`."""
        asked = {"ciphertext": wrapped.decode("ascii", "replace"), "associated_data": _context(context)}
        try:
            return base64.b64decode(self._call("decrypt", asked, "plaintext"), validate=True)
        except binascii.Error:
            raise SealBroken("the other KMS gives no base64") from None

    def leave(self) -> None:
        """End the session of an AppRole, if that is possible."""
        if self._is_role and self._token is not None:
            with suppress(Unreachable):  # it ends by itself
                self._remote.post_once("/v1/auth/token/revoke-self", self._headers(), b"{}")

    def _call(self, operation: str, asked: dict[str, str], member: str) -> str:
        if self._token is None:
            self._token = self._login()
        answer = self._remote.post(
            f"/v1/{self._mount}/{operation}/{self._key}", self._headers(), msgspec.json.encode(asked)
        )
        if answer.status != 200:
            self._refuse(operation, answer)
        value = _members(answer, "data").get(member)
        if not isinstance(value, str):
            raise self._remote.unusable(f"its answer has no {member}: it is no transit engine")
        return value

    def _login(self) -> str:
        settings = self._settings
        asked = {
            "role_id": require_sendable(settings.seal_kms_role_id, "KMS_SEAL_KMS_ROLE_ID"),
            "secret_id": require_sendable(settings.seal_kms_secret_id, "KMS_SEAL_KMS_SECRET_ID_FILE"),
        }
        answer = self._remote.post("/v1/auth/approle/login", self._headers(), msgspec.json.encode(asked))
        token = _members(answer, "auth").get("client_token")
        if answer.status != 200 or not isinstance(token, str):
            raise self._remote.unusable(
                f"it answered {answer.status} to the login as an AppRole. Check KMS_SEAL_KMS_ROLE_ID, its secret id "
                "and KMS_SEAL_KMS_NAMESPACE"
            )
        return require_sendable(token, "the token that the login gave")

    def _headers(self) -> dict[str, str]:
        headers = {"Content-Type": "application/json", "X-Vault-Request": "true"}
        if self._token is not None:
            headers["X-Vault-Token"] = self._token
        if self._settings.seal_kms_namespace:
            headers["X-Vault-Namespace"] = require_sendable(
                self._settings.seal_kms_namespace, "KMS_SEAL_KMS_NAMESPACE"
            )
        return headers

    def _refuse(self, operation: str, answer: Answer) -> None:
        """Raise SealBroken or StartError for what is not 200."""
        errors = answer.json.get("errors")
        text = "; ".join(map(str, errors)) if isinstance(errors, list) else ""
        if operation == "decrypt" and answer.status == 400 and any(each in text for each in _NOT_OPENED):
            raise SealBroken("the other KMS does not open the wrapped key")
        path = f"{self._mount}/{operation}/{self._key}"
        sentences = {
            400: f"it refuses {path}",
            403: f"it does not take the token, or its policy does not allow `update` on {path}",
            404: f"it has nothing at {path}: check KMS_SEAL_KMS_MOUNT and KMS_SEAL_KMS_NAMESPACE",
        }
        said = quoted(text, self._token, self._settings.seal_kms_secret_id)
        raise self._remote.unusable(sentences.get(answer.status, f"it answered {answer.status} to {path}") + said)


def _context(context: bytes) -> str:
    return base64.b64encode(sha256(context).digest()).decode()


def _members(answer: Answer, name: str) -> dict[str, Any]:
    found = answer.json.get(name)
    return found if isinstance(found, dict) else {}
