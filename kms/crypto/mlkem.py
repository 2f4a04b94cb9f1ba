"""ML-KEM (FIPS 203)."""

from __future__ import annotations

from kms.crypto.hpke import HpkeKey
from kms.crypto.primitives import Kem
from kms.errors import DecryptionFailed


class MlKemKey(HpkeKey, Kem):
    """One ML-KEM key; its private form is the 64-byte seed d ‖ z."""

    def encapsulate(self) -> tuple[bytes, bytes]:
        secret, ciphertext = self._public.encapsulate()
        return ciphertext, secret

    def decapsulate(self, ciphertext: bytes) -> bytes:
        try:
            return bytes(self._private.decapsulate(ciphertext))
        except ValueError:
            raise DecryptionFailed from None
