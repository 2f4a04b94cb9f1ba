"""What a seal is."""

from __future__ import annotations

from typing import Protocol

from kms.secret import Secret

Parameters = dict[str, str | int]
"""Public values that a seal needs to unseal again; kept in the vault's row, in clear."""


class Seal(Protocol):
    """Gives the root key of 32 bytes to the process that serves."""

    name: str

    def create(self) -> tuple[Secret, Parameters]:
        """The root key for a new vault, durable before this returns. Raises StartError."""

    def unseal(self, parameters: Parameters) -> Secret:
        """The root key of an existing vault. Raises StartError, and makes nothing new."""
