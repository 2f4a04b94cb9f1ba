"""XChaCha20-Poly1305 against the known answer of its draft (draft-irtf-cfrg-xchacha-03, appendix A.3.1)."""

from __future__ import annotations

import os

import pytest

from kms.crypto.symmetric import XChaCha
from kms.errors import DecryptionFailed

KEY = bytes(range(0x80, 0xA0))
NONCE = bytes(range(0x40, 0x58))
AAD = bytes.fromhex("50515253c0c1c2c3c4c5c6c7")
PLAINTEXT = (
    b"Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the future, "
    b"sunscreen would be it."
)
SEALED = bytes.fromhex(
    "bd6d179d3e83d43b9576579493c0e939572a1700252bfaccbed2902c21396cbb731c7f1b0b4aa6440bf3a82f4eda7e39ae64c670"
    "8c54c216cb96b72e1213b4522f8c9ba40db5d945b11b69b982c1bb9e3f3fac2bc369488f76b2383565d3fff921f9664c97637da9"
    "768812f615c68b13b52ec0875924c1c7987947deafd8780acf49"
)


def test_the_published_vector() -> None:
    cipher = XChaCha(KEY)
    assert cipher.encrypt_with_nonce(PLAINTEXT, AAD, NONCE) == NONCE + SEALED
    assert cipher.decrypt(NONCE + SEALED, AAD) == PLAINTEXT


def test_it_opens_what_it_sealed_and_nothing_else() -> None:
    cipher = XChaCha(os.urandom(32))
    sealed = cipher.encrypt(b"x", b"aad")
    assert cipher.decrypt(sealed, b"aad") == b"x"
    assert cipher.encrypt(b"x", b"aad")[:24] != sealed[:24]
    for at in range(len(sealed)):
        altered = bytearray(sealed)
        altered[at] ^= 1
        with pytest.raises(DecryptionFailed):
            cipher.decrypt(bytes(altered), b"aad")
    for wrong in (sealed[:-1], sealed[:39], b""):
        with pytest.raises(DecryptionFailed):
            cipher.decrypt(wrong, b"aad")
