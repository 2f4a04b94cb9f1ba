"""The wrapping key in a hardware security module or another token, which it never leaves (PKCS #11)."""

from __future__ import annotations

import getpass
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from kms.config import Settings
from kms.errors import StartError
from kms.secret import Secret
from kms.vault.seals import pkcs11_token as token
from kms.vault.seals.base import Parameters
from kms.vault.seals.envelope import EnvelopeSeal, KeyWrapper


class Pkcs11Seal(EnvelopeSeal):
    """An AES key of KMS_SEAL_PKCS11_KEY in the token of KMS_SEAL_PKCS11_TOKEN, by KMS_SEAL_PKCS11_MODULE.

    The token is open only while a keyset is wrapped or unwrapped, and the module is finalized after that: the workers
    are forked later and get the keyset from their parent.
    """

    name = "pkcs11"

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._pin = Secret(settings.seal_pkcs11_pin.encode()) if settings.seal_pkcs11_pin else None

    def create(self) -> Parameters:
        """As `Seal.create`."""
        where, pin = self._where(), self._asked_pin()
        mechanism = token.mechanism_of(where, self._settings.seal_pkcs11_mechanism)
        token.ensure_key(where, pin, may_make=self._settings.seal_pkcs11_make_key == "on")
        return {"mechanism": mechanism}

    @contextmanager
    def opened(self, parameters: Parameters) -> Iterator[KeyWrapper]:
        """As `EnvelopeSeal.opened`."""
        with token.wrapping_key(self._where(), self._asked_pin(), str(parameters.get("mechanism"))) as key:
            yield key

    def _where(self) -> token.Where:
        token.require_library()
        settings = self._settings
        if settings.seal_pkcs11_module is None:
            raise StartError(
                "The seal `pkcs11` needs KMS_SEAL_PKCS11_MODULE: the path of the library that came with the token."
            )
        if settings.seal_pkcs11_token is None and settings.seal_pkcs11_slot is None:
            raise StartError(
                "The seal `pkcs11` needs KMS_SEAL_PKCS11_TOKEN, the token's label, or KMS_SEAL_PKCS11_SLOT."
            )
        return token.Where(
            str(settings.seal_pkcs11_module.absolute()),
            settings.seal_pkcs11_token,
            settings.seal_pkcs11_slot,
            settings.seal_pkcs11_key,
        )

    def _asked_pin(self) -> Secret:
        if self._pin is None:
            if not sys.stdin.isatty():
                raise StartError("The seal `pkcs11` needs KMS_SEAL_PKCS11_PIN_FILE, or a terminal to ask on.")
            self._pin = Secret(getpass.getpass("PIN of the token: ").encode())
        return self._pin
