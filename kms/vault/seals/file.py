"""The seal key in a file of mode 0600: the default, and right for one host whose disk is trusted."""

from __future__ import annotations

import base64
import binascii
import os

import structlog

from kms.config import Settings
from kms.errors import StartError
from kms.files import private_bytes, write_private
from kms.secret import Secret
from kms.vault.seals.base import SEAL_KEY_BYTES, KeySeal, Parameters

_PREFIX = b"kms-root-key-v1:"


class FileSeal(KeySeal):
    """`kms-data/root.key`, or the path in KMS_SEAL_FILE: one line of `kms-root-key-v1:` and base64."""

    name = "file"

    def __init__(self, settings: Settings) -> None:
        self._path = settings.seal_file or settings.data_dir / "root.key"

    def create(self) -> Parameters:
        """As `Seal.create`."""
        if self._path.exists():  # made by a start that ended before the vault was written
            self._read()
            return {}
        key = os.urandom(SEAL_KEY_BYTES)
        write_private(self._path, _PREFIX + base64.b64encode(key) + b"\n")
        structlog.get_logger().warning(
            f"made the root key {self._path}: whoever reads this file and the database reads every key; "
            "back it up apart from the database, or use --seal passphrase or credential"
        )
        return {}

    def seal_key(self, parameters: Parameters) -> Secret:
        """As `KeySeal.seal_key`."""
        if not self._path.exists():
            raise StartError(
                f"The database holds a vault and its root key {self._path} is not there. "
                "Put the file back, or set KMS_SEAL_FILE to where it is."
            )
        return self._read()

    def _read(self) -> Secret:
        text = private_bytes(self._path).strip()
        try:
            root_key = base64.b64decode(text.removeprefix(_PREFIX), validate=True)
        except binascii.Error:
            root_key = b""
        if not text.startswith(_PREFIX) or len(root_key) != SEAL_KEY_BYTES:
            raise StartError(f"{self._path} does not hold a root key.")
        return Secret(root_key)
