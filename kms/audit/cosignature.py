"""Cosignatures of witnesses on checkpoints (c2sp.org/tlog-cosignature), and what is sent to a witness (tlog-witness).

A cosignature states a time: then this was the largest tree of the log that the witness had seen, and it continued
every one before. Both types are verified: Ed25519 (0x04) and ML-DSA-44 (0x06), which new witnesses should use.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PublicKey

from kms.audit.checkpoint import Checkpoint
from kms.audit.note import (
    Note,
    NoteMalformed,
    Signature,
    SignatureRefused,
    check_ed25519,
    key_id_of,
    parse_verifier_key,
    verifier_key_text,
)
from kms.audit.tree import MAX_PROOF_HASHES

ED25519_COSIGNATURE = 0x04
MLDSA44_COSIGNATURE = 0x06
_TIME_BYTES = 8
_MAX_TIME = (1 << 63) - 1


@dataclass(frozen=True)
class CosignatureKey:
    """The key of a witness, of type `kind`: `public_key` is raw, 32 bytes (Ed25519) or 1,312 (ML-DSA-44)."""

    name: str
    public_key: bytes
    kind: int = ED25519_COSIGNATURE

    lengths: ClassVar = {ED25519_COSIGNATURE: 32, MLDSA44_COSIGNATURE: 1312}

    @property
    def key_id(self) -> bytes:
        """The identifier of the key."""
        return key_id_of(self.name, self.kind, self.public_key)

    def __str__(self) -> str:
        return verifier_key_text(self.name, self.kind, self.public_key)

    @classmethod
    def parse(cls, text: str) -> CosignatureKey:
        """Read a verifier key of a witness. Raises NoteMalformed."""
        name, kind, public_key = parse_verifier_key(text)
        if cls.lengths.get(kind) != len(public_key):
            raise NoteMalformed("The verifier key is not a witness's: of type 0x04 (Ed25519) or 0x06 (ML-DSA-44).")
        return cls(name, public_key, kind)

    def verify(self, text: str, value: bytes) -> int | None:
        """Check a cosignature on the checkpoint with this text.

        Returns the time that it states, or None where it does not say that this is the largest tree that was seen.
        Raises SignatureRefused, or NoteMalformed if the text is not a checkpoint's.
        """
        time, signature = int.from_bytes(value[:_TIME_BYTES], "big"), value[_TIME_BYTES:]
        if time > _MAX_TIME:
            raise SignatureRefused(f"The signature of {self.name} states a time that cannot be.")
        if self.kind == ED25519_COSIGNATURE:
            check_ed25519(self, _ed25519_message(text, time), signature)
            return time
        try:
            message = _mldsa44_message(self.name, text, time)
            MLDSA44PublicKey.from_public_bytes(self.public_key).verify(signature, message)
        except (InvalidSignature, ValueError, OverflowError):
            raise SignatureRefused(f"The signature of {self.name} is wrong.") from None
        return time or None


@dataclass(frozen=True)
class Cosigner:
    """Cosigns checkpoints as a witness of this name. `clock` gives the time in seconds since 1970."""

    name: str
    private_key: Ed25519PrivateKey
    clock: Callable[[], int]

    @property
    def key(self) -> CosignatureKey:
        """What verifies its cosignatures."""
        return CosignatureKey(self.name, self.private_key.public_key().public_bytes_raw())

    def sign(self, text: str) -> Signature:
        """Cosign the checkpoint with this text."""
        time = self.clock()
        signature = self.private_key.sign(_ed25519_message(text, time))
        return Signature(self.name, self.key.key_id, time.to_bytes(_TIME_BYTES, "big") + signature)


def _ed25519_message(text: str, time: int) -> bytes:
    return f"cosignature/v1\ntime {time}\n{text}".encode()


def _mldsa44_message(name: str, text: str, time: int) -> bytes:
    checkpoint = Checkpoint.parse(text)
    strings = [bytes([len(each)]) + each for each in (name.encode(), checkpoint.origin.encode())]
    numbers = [number.to_bytes(8, "big") for number in (time, 0, checkpoint.size)]
    return b"subtree/v1\n\0" + strings[0] + numbers[0] + strings[1] + numbers[1] + numbers[2] + checkpoint.root


def add_checkpoint_request(old_size: int, path: Sequence[bytes], checkpoint: Note) -> bytes:
    """The body that asks a witness to cosign (`add-checkpoint`): `old_size` is what it has cosigned last, or 0.

    `path` is the consistency proof from there. Raises ValueError for one that no tree has.
    """
    if len(path) > MAX_PROOF_HASHES:
        raise ValueError("a consistency proof has at most 63 hashes")
    lines = (f"old {old_size}", *(b64encode(each).decode() for each in path), "", "")
    return "\n".join(lines).encode() + bytes(checkpoint)
