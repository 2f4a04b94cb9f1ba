"""The SHA-2 digests (FIPS 180-4) that signature algorithms name by their bits."""

from __future__ import annotations

from cryptography.hazmat.primitives import hashes

from kms.errors import ValidationFailed

SHA2: dict[str, hashes.HashAlgorithm] = {
    "256": hashes.SHA256(),
    "384": hashes.SHA384(),
    "512": hashes.SHA512(),
}


def check_digest(digest: bytes, algorithm: hashes.HashAlgorithm) -> None:
    """Raise ValidationFailed unless `digest` has the length that `algorithm` gives."""
    if len(digest) != algorithm.digest_size:
        raise ValidationFailed(
            f"digest: a {algorithm.name} digest has {algorithm.digest_size} bytes, this one {len(digest)}."
        )
