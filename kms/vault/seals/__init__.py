"""Seals: what wraps the root keys of a vault. `SEALS` is the only list."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from kms.config import Settings
from kms.errors import StartError
from kms.vault.seals.base import KeySeal, Parameters, Seal
from kms.vault.seals.credential import CredentialSeal
from kms.vault.seals.file import FileSeal
from kms.vault.seals.passphrase import PassphraseSeal

SEALS: Mapping[str, Callable[[Settings], Seal]] = {
    "file": FileSeal,
    "passphrase": PassphraseSeal,
    "credential": CredentialSeal,
}


class Seals:
    """The seals as some settings describe them, each made once: one may have asked a person for something."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._made: dict[str, Seal] = {}

    def named(self, name: str) -> Seal:
        """The seal of that name. Raises StartError."""
        if name not in SEALS:
            raise StartError(f"There is no seal {name!r}; KMS_SEAL is one of {', '.join(SEALS)}.")
        if name not in self._made:
            self._made[name] = SEALS[name](self.settings)
        return self._made[name]


__all__ = ["SEALS", "KeySeal", "Parameters", "Seal", "Seals"]
