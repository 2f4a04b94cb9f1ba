"""RSA (RFC 8017): PSS and PKCS#1 v1.5 signatures, OAEP encryption; never PKCS#1 v1.5 decryption."""

from __future__ import annotations

import os
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes
from cryptography.hazmat.primitives.asymmetric.utils import NoDigestInfo, Prehashed
from cryptography.x509 import CertificateSigningRequest, CertificateSigningRequestBuilder

from kms.crypto.hashing import DIGESTS, SHA2, check_digest
from kms.crypto.keywrap import AesKwp
from kms.crypto.pkcs8 import halves
from kms.crypto.primitives import Cipher, KeyWrapper, Scheme, Signer
from kms.crypto.signing import no_options
from kms.errors import DecryptionFailed, ValidationFailed

PUBLIC_EXPONENT = 65537
RSA_OAEP = "RSA-OAEP-256"
RSA_AES = "RSA_AES_KEY_WRAP_SHA_256"
_OAEP_DIGESTS: dict[str, hashes.HashAlgorithm] = {
    RSA_OAEP: hashes.SHA256(),
    "RSA-OAEP": hashes.SHA1(),  # noqa: S303  # collisions are no matter in OAEP; other services know no other
    "RSA_AES_KEY_WRAP_SHA_1": hashes.SHA1(),  # noqa: S303
    "RSA_AES_KEY_WRAP_SHA_224": hashes.SHA224(),
    RSA_AES: hashes.SHA256(),
    "RSA_AES_KEY_WRAP_SHA_384": hashes.SHA384(),
    "RSA_AES_KEY_WRAP_SHA_512": hashes.SHA512(),
}
IMPORT_ALGORITHMS = tuple(_OAEP_DIGESTS)
"""How keys come wrapped: with OAEP, or with OAEP of an AES key and AES-KWP under that."""


_ALGORITHMS: dict[str, tuple[str, hashes.HashAlgorithm | None]] = {
    **{f"PS{bits}": ("PSS", digest) for bits, digest in SHA2.items()},
    **{f"RS{bits}": ("PKCS1", digest) for bits, digest in SHA2.items()},
}
_FURTHER: dict[str, tuple[str, hashes.HashAlgorithm | None]] = {
    f"{name}-{digest_name}": (family, digest)
    for name, family in (("RSASSA-PSS", "PSS"), ("RSASSA-PKCS1-v1_5", "PKCS1"))
    for digest_name, digest in {"SHA-1": hashes.SHA1(), **DIGESTS}.items()  # noqa: S303  # for who must have it
}
_FURTHER["RSASSA-PKCS1-v1_5"] = ("PKCS1", None)


class RsaKey(Cipher, Signer, KeyWrapper):
    """One RSA key. OAEP uses SHA-256 for hash and mask; the associated data is its label."""

    algorithms = tuple(_ALGORITHMS)
    further_algorithms = tuple(_FURTHER)
    wrapping_algorithms = (RSA_AES, RSA_OAEP)

    def __init__(self, key: Any) -> None:
        self._private: rsa.RSAPrivateKey
        self._public: rsa.RSAPublicKey
        self._private, self._public = halves(key)

    def encrypt(self, plaintext: bytes, associated_data: bytes) -> bytes:
        return _encrypt(self._public, plaintext, _oaep(associated_data))

    def decrypt(self, ciphertext: bytes, associated_data: bytes) -> bytes:
        return _decrypt(self._private, ciphertext, _oaep(associated_data))

    def with_sha1(self) -> Cipher:
        """The same key with SHA-1 in OAEP, for ciphertexts of programs that know no other."""
        return _OaepSha1(self._private, self._public)

    def wrap(self, key: bytes, algorithm: str) -> bytes:
        oaep = _oaep(b"", _OAEP_DIGESTS[algorithm])
        if _is_bare(algorithm):
            return _encrypt(self._public, key, oaep)
        kek = os.urandom(32)  # CKM_RSA_AES_KEY_WRAP of PKCS#11 v3: OAEP of a fresh AES key ‖ KWP under it
        return _encrypt(self._public, kek, oaep) + AesKwp(kek).wrap(key, algorithm)

    def unwrap(self, wrapped: bytes, algorithm: str) -> bytes:
        oaep = _oaep(b"", _OAEP_DIGESTS[algorithm])
        if _is_bare(algorithm):
            return _decrypt(self._private, wrapped, oaep)
        modulus_bytes = self._public.key_size // 8
        kek = _decrypt(self._private, wrapped[:modulus_bytes], oaep)
        if len(kek) not in {16, 24, 32}:
            raise DecryptionFailed
        return AesKwp(kek).unwrap(wrapped[modulus_bytes:], algorithm)

    def sign(self, message: bytes, scheme: Scheme) -> bytes:
        return self._private.sign(message, *_scheme(message, scheme, self._public.key_size // 8))

    def verify(self, message: bytes, signature: bytes, scheme: Scheme) -> bool:
        pad, hashing = _scheme(message, scheme, self._public.key_size // 8)
        try:
            if isinstance(hashing, NoDigestInfo):
                return self._public.recover_data_from_signature(signature, pad, None) == message
            self._public.verify(signature, message, pad, hashing)
        except InvalidSignature:
            return False
        return True

    def request_certificate(self, builder: CertificateSigningRequestBuilder) -> CertificateSigningRequest:
        return builder.sign(self._private, hashes.SHA256())


class _OaepSha1(Cipher):
    def __init__(self, private: rsa.RSAPrivateKey, public: rsa.RSAPublicKey) -> None:
        self._private, self._public = private, public

    def encrypt(self, plaintext: bytes, associated_data: bytes) -> bytes:
        return _encrypt(self._public, plaintext, _oaep(associated_data, hashes.SHA1()))  # noqa: S303

    def decrypt(self, ciphertext: bytes, associated_data: bytes) -> bytes:
        return _decrypt(self._private, ciphertext, _oaep(associated_data, hashes.SHA1()))  # noqa: S303


def generate(bits: int) -> rsa.RSAPrivateKey:
    """A new RSA key of `bits` (FIPS 186-5, appendix A.1). Takes from 50 ms to seconds."""
    return rsa.generate_private_key(PUBLIC_EXPONENT, bits)


def owns(bits: int, key: PublicKeyTypes) -> bool:
    """Whether `key` is an RSA key of exactly that size."""
    return isinstance(key, rsa.RSAPublicKey) and key.key_size == bits


def _is_bare(algorithm: str) -> bool:
    """Whether a key is encrypted as it is, without an AES key between."""
    return algorithm.startswith("RSA-OAEP")


def _oaep(label: bytes, digest: hashes.HashAlgorithm = hashes.SHA256()) -> padding.OAEP:  # noqa: B008
    return padding.OAEP(padding.MGF1(digest), digest, label)


def _encrypt(key: rsa.RSAPublicKey, plaintext: bytes, oaep: padding.OAEP) -> bytes:
    longest = key.key_size // 8 - 2 * oaep.algorithm.digest_size - 2
    if len(plaintext) > longest:
        raise ValidationFailed(f"plaintext: this RSA key encrypts at most {longest} bytes.")
    return key.encrypt(plaintext, oaep)


def _decrypt(key: rsa.RSAPrivateKey, ciphertext: bytes, oaep: padding.OAEP) -> bytes:
    try:
        return key.decrypt(ciphertext, oaep)
    except ValueError:
        raise DecryptionFailed from None


def _scheme(
    message: bytes, scheme: Scheme, modulus_bytes: int
) -> tuple[padding.AsymmetricPadding, hashes.HashAlgorithm | Prehashed | NoDigestInfo]:
    no_options(scheme, but="prehashed")
    family, digest = (_ALGORITHMS | _FURTHER)[scheme.algorithm]
    if digest is None:  # RFC 8017, section 9.2, with the message in the place of DigestInfo
        if len(message) > modulus_bytes - 11:
            raise ValidationFailed(f"message: this RSA key signs at most {modulus_bytes - 11} bytes as they are.")
        return padding.PKCS1v15(), NoDigestInfo()
    if scheme.prehashed:
        check_digest(message, digest)
    pad: padding.AsymmetricPadding = padding.PKCS1v15()
    if family == "PSS":
        pad = padding.PSS(padding.MGF1(digest), padding.PSS.DIGEST_LENGTH)  # RFC 7518, section 3.5
    return pad, Prehashed(digest) if scheme.prehashed else digest
