"""HMAC (FIPS 198-1), and derivation from the same kind of key: HKDF (RFC 5869), KBKDF (SP 800-108r1)."""

from __future__ import annotations

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.hmac import HMAC
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.kdf.kbkdf import KBKDFHMAC, CounterLocation, Mode

from kms.crypto.hashing import DIGESTS
from kms.crypto.primitives import Deriver, Mac
from kms.errors import ValidationFailed

_CODE_KEY_SALT = b"kms code key v1"


class HmacKey(Mac, Deriver):
    """One key of HMAC with SHA-2. A key is made either for codes or for derivation, never for both."""

    def __init__(self, bits: str, key: bytes) -> None:
        self._key = key
        self._digest = DIGESTS[f"SHA-{bits}"]
        self._keyed = HMAC(key, self._digest)  # copying it costs less than finding algorithm and key anew
        self.derivations = (f"HKDF-SHA-{bits}", f"KBKDF-HMAC-SHA-{bits}")

    def mac(self, message: bytes, digest: str | None = None) -> bytes:
        code = self._keyed.copy() if digest is None else HMAC(self._key, DIGESTS[digest])
        code.update(message)
        return code.finalize()

    def derive(self, algorithm: str, salt: bytes, label: bytes, context: bytes, length: int) -> bytes:
        if algorithm.startswith("HKDF"):
            if label:
                raise ValidationFailed("label: HKDF has none; put it into context, which is its info.")
            if length > 255 * self._digest.digest_size:
                raise ValidationFailed(f"length: {algorithm} gives at most {255 * self._digest.digest_size} bytes.")
            return HKDF(self._digest, length, salt, context).derive(self._key)
        if salt:
            raise ValidationFailed("salt: KBKDF has none; put it into context.")
        return KBKDFHMAC(
            algorithm=self._digest,
            mode=Mode.CounterMode,
            length=length,
            rlen=4,
            llen=4,
            location=CounterLocation.BeforeFixed,
            label=label,
            context=context,
            fixed=None,
        ).derive(self._key)


def code_key(material: bytes) -> HmacKey:
    """A MAC key that is derived from the material of another key, and reveals nothing about that material.

    It is derived by HKDF-SHA-256 with a salt that no other derivation uses.
    """
    return HmacKey("256", hkdf(material, _CODE_KEY_SALT, b""))


def hkdf(shared_secret: bytes, salt: bytes, info: bytes, length: int = 32) -> bytes:
    """HKDF with SHA-256 (RFC 5869): `length` bytes of key from the shared secret."""
    return HKDF(hashes.SHA256(), length, salt, info).derive(shared_secret)
