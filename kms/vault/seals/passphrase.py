"""The seal key from a passphrase, by Argon2id (RFC 9106); nothing secret stays on the disk."""

from __future__ import annotations

import base64
import getpass
import os
import sys

from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

from kms.config import Settings
from kms.errors import StartError
from kms.secret import Secret
from kms.vault.seals.base import SEAL_KEY_BYTES, KeySeal, Parameters

# The second recommended option of RFC 9106, section 4, with four times its memory: once a start is rare.
_ITERATIONS, _LANES, _MEMORY_KIB = 3, 4, 256 * 1024
_SHORTEST = 12


class PassphraseSeal(KeySeal):
    """KMS_SEAL_PASSPHRASE_FILE, KMS_SEAL_PASSPHRASE, or asked for on the terminal."""

    name = "passphrase"

    def __init__(self, settings: Settings) -> None:
        self._given = settings.seal_passphrase
        self._derived: tuple[Parameters, Secret] | None = None  # a change of the root key asks for it twice

    def create(self) -> Parameters:
        """As `Seal.create`."""
        passphrase = self._passphrase(confirm=True)
        if len(passphrase) < _SHORTEST:
            raise StartError(
                f"The seal's passphrase has {len(passphrase)} characters; at least {_SHORTEST} are needed."
            )
        parameters: Parameters = {
            "salt": base64.b64encode(os.urandom(16)).decode(),
            "iterations": _ITERATIONS,
            "lanes": _LANES,
            "memory_kib": _MEMORY_KIB,
        }
        self._derived = parameters, _derive(passphrase, parameters)
        return parameters

    def seal_key(self, parameters: Parameters) -> Secret:
        """As `KeySeal.seal_key`."""
        if self._derived is None or self._derived[0] != parameters:
            self._derived = parameters, _derive(self._passphrase(confirm=False), parameters)
        return self._derived[1]

    def _passphrase(self, *, confirm: bool) -> str:
        if self._given:
            return self._given
        if not sys.stdin.isatty():
            raise StartError("The seal `passphrase` needs KMS_SEAL_PASSPHRASE_FILE, or a terminal to ask on.")
        passphrase = getpass.getpass("New seal passphrase: " if confirm else "Seal passphrase: ")
        if confirm and getpass.getpass("Again: ") != passphrase:
            raise StartError("The two passphrases differ.")
        return passphrase


def _derive(passphrase: str, parameters: Parameters) -> Secret:
    try:
        kdf = Argon2id(
            salt=base64.b64decode(str(parameters["salt"])),
            length=SEAL_KEY_BYTES,
            iterations=int(parameters["iterations"]),
            lanes=int(parameters["lanes"]),
            memory_cost=int(parameters["memory_kib"]),
        )
        return Secret(kdf.derive(passphrase.encode()))
    except (KeyError, ValueError, OverflowError, MemoryError):
        raise StartError(
            "The parameters of the passphrase in the vault's row were altered, or there is too little memory."
        ) from None
