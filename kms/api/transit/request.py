"""A request of the Vault dialect."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from kms.api.dialect import DialectRequest
from kms.api.origin import PresentedCertificate


@dataclass
class TransitRequest(DialectRequest):
    """A request in the mount of the settings, which has every key, or in a further one, which has its own."""

    dialect: ClassVar[str] = "vault"
    prefix: str = ""
    token: str = field(default="", repr=False)
    certificate: PresentedCertificate | None = None

    def key_id(self, name: str) -> str:
        """The id of the key that has this name in the mount."""
        return self.prefix + name

    def name_of(self, key_id: str) -> str:
        """The name of a key of the mount."""
        return key_id.removeprefix(self.prefix)
