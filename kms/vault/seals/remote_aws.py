"""The wrapping key in AWS KMS, or in a KMS that speaks its JSON protocol."""

from __future__ import annotations

import base64
import binascii
from hashlib import sha256
from typing import Any

import msgspec

from kms import sigv4
from kms.clock import utc_now
from kms.config import Settings
from kms.secret import Secret
from kms.sigv4 import Prepared, Signed
from kms.vault.sealing import SealBroken
from kms.vault.seals.remote import Answer, RemoteKms, quoted, require_sendable

_SERVICE = "kms"
_OF_CREDENTIALS = {
    "ExpiredTokenException",
    "IncompleteSignatureException",
    "InvalidAccessKeyIdException",
    "InvalidClientTokenId",
    "InvalidSignatureException",
    "MissingAuthenticationTokenException",
    "SignatureDoesNotMatch",
    "UnrecognizedClientException",
}
_THROTTLED = b"ThrottlingException"


class AwsKms:
    """Encrypt and Decrypt with one key, signed by Signature Version 4.

    The encryption context is `{"kms-seal": SHA-256 of the context, in hexadecimal}`, so that the audit log of the
    other KMS tells which vault was opened, and a wrapped key opens for that vault only.
    """

    def __init__(self, remote: RemoteKms, key: str, settings: Settings) -> None:
        self._remote, self._key, self._region = remote, key, settings.seal_kms_region
        self._access_key_id = require_sendable(settings.seal_kms_access_key_id, "KMS_SEAL_KMS_ACCESS_KEY_ID")
        secret = require_sendable(settings.seal_kms_secret_access_key, "KMS_SEAL_KMS_SECRET_ACCESS_KEY_FILE")
        self._secret = Secret(secret.encode())
        self._secrets = (secret, settings.seal_kms_session_token)
        self._session_token = (
            require_sendable(settings.seal_kms_session_token, "KMS_SEAL_KMS_SESSION_TOKEN_FILE")
            if settings.seal_kms_session_token
            else None
        )

    def key_name(self) -> str:
        """The ARN of the key, as the other KMS gives it. Raises StartError."""
        return str(self._encrypt(bytes(32), b"")["KeyId"])

    def wrap_key(self, key: bytes, context: bytes) -> bytes:
        """As `KeyWrapper.wrap_key`: the CiphertextBlob."""
        return _decoded(self._encrypt(key, context)["CiphertextBlob"])

    def unwrap_key(self, wrapped: bytes, context: bytes) -> bytes:
        """As `KeyWrapper.unwrap_key`."""
        asked = {"KeyId": self._key, "CiphertextBlob": _encoded(wrapped), "EncryptionContext": _context(context)}
        return _decoded(self._call("Decrypt", asked, "Plaintext")["Plaintext"])

    def _encrypt(self, key: bytes, context: bytes) -> dict[str, Any]:
        asked = {"KeyId": self._key, "Plaintext": _encoded(key), "EncryptionContext": _context(context)}
        return self._call("Encrypt", asked, "CiphertextBlob")

    def _call(self, operation: str, asked: dict[str, Any], member: str) -> dict[str, Any]:
        body = msgspec.json.encode(asked)
        answer = self._remote.post("/", self._headers(operation, body), body, is_busy=_THROTTLED)
        if answer.status != 200:
            self._refuse(operation, answer)
        if not isinstance(answer.json.get(member), str) or "KeyId" not in answer.json:
            raise self._remote.unusable(f"its answer has no {member}: it does not speak the protocol of AWS KMS")
        return answer.json

    def _headers(self, operation: str, body: bytes) -> dict[str, str]:
        at = utc_now().strftime(sigv4.TIME)
        signed = {
            "content-type": "application/x-amz-json-1.1",
            "host": self._remote.host,
            "x-amz-date": at,
            **({"x-amz-security-token": self._session_token} if self._session_token else {}),
            "x-amz-target": f"TrentService.{operation}",
        }
        scope = Signed(self._access_key_id, at[:8], self._region, _SERVICE, tuple(signed))
        key = sigv4.signing_key(self._secret, scope)
        signature = Prepared(scope, key, "POST", self._remote.path("/"), signed.values(), at).signature(body)
        stated = f"Credential={scope.access_key_id}/{scope.scope}, SignedHeaders={';'.join(signed)}"
        sent = {name: value for name, value in signed.items() if name != "host"}
        return {**sent, "Authorization": f"{sigv4.ALGORITHM} {stated}, Signature={signature}"}

    def _refuse(self, operation: str, answer: Answer) -> None:
        """Raise SealBroken or StartError for what is not 200."""
        kind = str(answer.json.get("__type", "")).rpartition("#")[2]
        if kind == "InvalidCiphertextException":
            raise SealBroken("the other KMS does not open the wrapped key")
        said = quoted(answer.json.get("message", answer.json.get("Message", "")), *self._secrets)
        if kind in _OF_CREDENTIALS:
            raise self._remote.unusable(
                f"it does not take the credentials ({kind}). Check the access key, its secret, the region and the "
                f"clock of this host{said}"
            )
        sentences = {
            "AccessDeniedException": f"the access key may not {operation} with the key {self._key}",
            "DisabledException": f"the key {self._key} is disabled",
            "IncorrectKeyException": f"KMS_SEAL_KMS_KEY is {self._key}, and the vault was sealed with another key",
            "KMSInvalidStateException": f"the key {self._key} is in a state in which it does not {operation}",
            "NotFoundException": f"it has no key {self._key}",
        }
        raise self._remote.unusable(sentences.get(kind, f"it answered {answer.status} to {operation}") + said)


def _context(context: bytes) -> dict[str, str]:
    return {"kms-seal": sha256(context).hexdigest()}


def _encoded(content: bytes) -> str:
    return base64.b64encode(content).decode()


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error:
        raise SealBroken("the other KMS gives no base64") from None
