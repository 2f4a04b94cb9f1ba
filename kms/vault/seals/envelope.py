"""Seals that keep their key to themselves: what they are given is a small key, and that wraps the keyset."""

from __future__ import annotations

import hmac
import os
from abc import ABC, abstractmethod
from contextlib import AbstractContextManager
from typing import Protocol

from kms.errors import StartError
from kms.secret import Secret
from kms.vault.sealing import SealBroken
from kms.vault.seals.base import SEAL_KEY_BYTES, Parameters, unwrap_with, wrap_with

_LENGTH_BYTES = 2


class KeyWrapper(Protocol):
    """What holds the wrapping key, such as a token or another KMS, while it is being talked to."""

    def wrap_key(self, key: bytes, context: bytes) -> bytes:
        """A key of 32 bytes, wrapped for this context. Raises StartError."""

    def unwrap_key(self, wrapped: bytes, context: bytes) -> bytes:
        """The key that was wrapped. Raises SealBroken if it was not wrapped there or not so, and StartError."""


class EnvelopeSeal(ABC):
    """A seal whose wrapping key stays where it is.

    A new random key of 32 bytes wraps the keyset, and the wrapping key wraps that one. So the keyset itself never
    goes there, and its length does not matter.
    """

    name: str

    @abstractmethod
    def create(self) -> Parameters:
        """As `Seal.create`."""

    @abstractmethod
    def opened(self, parameters: Parameters) -> AbstractContextManager[KeyWrapper]:
        """The holder of the wrapping key, for as long as it is talked to. Raises StartError."""

    def wrap(self, keyset: bytes, context: bytes, parameters: Parameters) -> bytes:
        """Length of the wrapped key (2 bytes, big-endian) ‖ wrapped key ‖ what `wrap_with` gives.

        The wrapped key is unwrapped once, so that nothing is stored that would not open again. Raises StartError.
        """
        key = os.urandom(SEAL_KEY_BYTES)
        with self.opened(parameters) as holder:
            wrapped_key = holder.wrap_key(key, context)
            self._prove(holder, wrapped_key, key, context)
        return len(wrapped_key).to_bytes(_LENGTH_BYTES) + wrapped_key + wrap_with(Secret(key), keyset, context)

    def unwrap(self, wrapped: bytes, context: bytes, parameters: Parameters) -> bytes:
        """What was wrapped. Raises SealBroken or StartError."""
        ends = _LENGTH_BYTES + int.from_bytes(wrapped[:_LENGTH_BYTES])
        if len(wrapped) <= ends or ends == _LENGTH_BYTES:
            raise SealBroken("wrapped keyset of no known format")
        with self.opened(parameters) as holder:
            key = holder.unwrap_key(wrapped[_LENGTH_BYTES:ends], context)
        if len(key) != SEAL_KEY_BYTES:
            raise SealBroken("the unwrapped key is none of this seal")
        return unwrap_with(Secret(key), wrapped[ends:], context)

    def _prove(self, holder: KeyWrapper, wrapped: bytes, key: bytes, context: bytes) -> None:
        try:
            is_same = hmac.compare_digest(holder.unwrap_key(wrapped, context), key)
        except SealBroken:
            is_same = False
        if not is_same:
            raise StartError(f"What the seal `{self.name}` wraps does not open again, so it is not used.")
