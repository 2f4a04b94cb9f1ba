"""RSA (RFC 8017): PSS and PKCS#1 v1.5 signatures, OAEP encryption; never PKCS#1 v1.5 decryption."""

from __future__ import annotations

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed

from kms.crypto.hashing import SHA2, check_digest
from kms.crypto.pkcs8 import load_private, private_der
from kms.crypto.primitives import Cipher, Signer
from kms.errors import DecryptionFailed, ValidationFailed

PUBLIC_EXPONENT = 65537


class RsaKey(Cipher, Signer):
    """One RSA private key. OAEP uses SHA-256 for hash and mask; the associated data is its label."""

    algorithms = ("PS256", "PS384", "PS512", "RS256", "RS384", "RS512")

    def __init__(self, pkcs8: bytes) -> None:
        self._private = load_private(pkcs8, rsa.RSAPrivateKey)
        self._public = self._private.public_key()

    def encrypt(self, plaintext: bytes, associated_data: bytes) -> bytes:
        longest = self._public.key_size // 8 - 2 * hashes.SHA256.digest_size - 2
        if len(plaintext) > longest:
            raise ValidationFailed(f"plaintext: this RSA key encrypts at most {longest} bytes.")
        return self._public.encrypt(plaintext, _oaep(associated_data))

    def decrypt(self, ciphertext: bytes, associated_data: bytes) -> bytes:
        try:
            return self._private.decrypt(ciphertext, _oaep(associated_data))
        except ValueError:
            raise DecryptionFailed("The ciphertext did not open.") from None

    def sign(self, message: bytes, algorithm: str, *, prehashed: bool) -> bytes:
        scheme, digest = _scheme(algorithm)
        if prehashed:
            check_digest(message, digest)
        return self._private.sign(message, scheme, Prehashed(digest) if prehashed else digest)

    def verify(self, message: bytes, signature: bytes, algorithm: str, *, prehashed: bool) -> bool:
        scheme, digest = _scheme(algorithm)
        if prehashed:
            check_digest(message, digest)
        try:
            self._public.verify(signature, message, scheme, Prehashed(digest) if prehashed else digest)
        except InvalidSignature:
            return False
        return True


def generate(bits: int) -> bytes:
    """A new RSA key of `bits` (FIPS 186-5, appendix A.1) as PKCS#8 DER. Takes from 50 ms to seconds."""
    return private_der(rsa.generate_private_key(PUBLIC_EXPONENT, bits))


def _oaep(label: bytes) -> padding.OAEP:
    return padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), label)


def _scheme(algorithm: str) -> tuple[padding.AsymmetricPadding, hashes.HashAlgorithm]:
    digest = SHA2[algorithm[2:]]
    if algorithm.startswith("PS"):
        return padding.PSS(padding.MGF1(digest), padding.PSS.DIGEST_LENGTH), digest  # RFC 7518, section 3.5
    return padding.PKCS1v15(), digest
