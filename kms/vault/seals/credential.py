"""The seal key from a credential that the operator provides: a file, or a systemd credential."""

from __future__ import annotations

import base64
import binascii
import os
from pathlib import Path

from kms.config import Settings
from kms.errors import StartError
from kms.files import private_bytes
from kms.secret import Secret
from kms.vault.seals.base import SEAL_KEY_BYTES, KeySeal, Parameters

_SYSTEMD_NAME = "kms-root-key"


class CredentialSeal(KeySeal):
    """32 bytes, raw, in base64 or in hex, from KMS_SEAL_CREDENTIAL or $CREDENTIALS_DIRECTORY/kms-root-key.

    Make one with `openssl rand -base64 32`. The file is read and never written.
    """

    name = "credential"

    def __init__(self, settings: Settings) -> None:
        directory = os.environ.get("CREDENTIALS_DIRECTORY")
        self._path = settings.seal_credential or (Path(directory) / _SYSTEMD_NAME if directory else None)

    def create(self) -> Parameters:
        """As `Seal.create`."""
        self.seal_key({})
        return {}

    def seal_key(self, parameters: Parameters) -> Secret:
        """As `KeySeal.seal_key`."""
        if self._path is None:
            raise StartError(
                "The seal `credential` needs KMS_SEAL_CREDENTIAL (a path) or the systemd credential "
                f"{_SYSTEMD_NAME} (LoadCredentialEncrypted=)."
            )
        content = private_bytes(self._path)
        for decoded in _readings(content):
            if len(decoded) == SEAL_KEY_BYTES:
                return Secret(decoded)
        raise StartError(f"{self._path} does not hold 32 bytes, raw, in base64 or in hex.")


def _readings(content: bytes) -> list[bytes]:
    if len(content) == SEAL_KEY_BYTES:
        return [content]
    readings = []
    text = content.strip()
    for decode in (bytes.fromhex, lambda ascii_: base64.b64decode(ascii_, validate=True)):
        try:
            readings.append(decode(text.decode("ascii")))
        except (ValueError, binascii.Error):
            continue
    return readings
