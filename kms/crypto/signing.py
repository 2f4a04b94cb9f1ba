"""What signature families share."""

from __future__ import annotations

from kms.crypto.primitives import Scheme
from kms.errors import ValidationFailed


def no_options(scheme: Scheme, *, but: str = "") -> None:
    """Raise ValidationFailed for an option of `scheme` that its algorithm does not have; `but` is one it has."""
    if scheme.prehashed and but != "prehashed":
        raise ValidationFailed(f"digest: {scheme.algorithm} signs messages, not digests; send the message.")
    if scheme.context and but != "context":
        raise ValidationFailed(f"context: {scheme.algorithm} has no context; only ML-DSA has.")
    if scheme.der and but != "der":
        raise ValidationFailed(f"signature_format: only ECDSA signatures have the form der, not {scheme.algorithm}.")
