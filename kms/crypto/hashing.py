"""Digests by their names in the registry of FIPS 180-4 and FIPS 202."""

from __future__ import annotations

from cryptography.hazmat.primitives import hashes

from kms.errors import ValidationFailed

SHA2: dict[str, hashes.SHA256 | hashes.SHA384 | hashes.SHA512] = {
    "256": hashes.SHA256(),
    "384": hashes.SHA384(),
    "512": hashes.SHA512(),
}
"""The digests that signature algorithms name by their bits."""

DIGESTS: dict[str, hashes.HashAlgorithm] = {
    "SHA-224": hashes.SHA224(),
    "SHA-256": hashes.SHA256(),
    "SHA-384": hashes.SHA384(),
    "SHA-512": hashes.SHA512(),
    "SHA3-224": hashes.SHA3_224(),
    "SHA3-256": hashes.SHA3_256(),
    "SHA3-384": hashes.SHA3_384(),
    "SHA3-512": hashes.SHA3_512(),
}
"""What the hash operation offers."""


def digest(algorithm: hashes.HashAlgorithm, message: bytes) -> bytes:
    """The digest of `message`."""
    hasher = hashes.Hash(algorithm)
    hasher.update(message)
    return hasher.finalize()


def check_digest(digest: bytes, algorithm: hashes.HashAlgorithm) -> None:
    """Raise ValidationFailed unless `digest` has the length that `algorithm` gives."""
    if len(digest) != algorithm.digest_size:
        raise ValidationFailed(
            f"digest: a {algorithm.name} digest has {algorithm.digest_size} bytes, this one {len(digest)}."
        )
