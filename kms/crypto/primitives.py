"""What a loaded key can do. A key type offers an operation by implementing one of these."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes
from cryptography.x509 import CertificateSigningRequest, CertificateSigningRequestBuilder

from kms.errors import ValidationFailed
from kms.keys.model import Usage


class Cipher(ABC):
    """Authenticated encryption, or public-key encryption with a bound label."""

    @abstractmethod
    def encrypt(self, plaintext: bytes, associated_data: bytes) -> bytes:
        """Encrypt `plaintext`; the result opens only with the same `associated_data`.

        Raises ValidationFailed where the plaintext is too long for the algorithm.
        """

    @abstractmethod
    def decrypt(self, ciphertext: bytes, associated_data: bytes) -> bytes:
        """The plaintext. Raises DecryptionFailed, never saying why."""

    def in_context(self, context: bytes) -> Cipher:
        """The cipher for `context`, for types with derived keys. Raises ValidationFailed for all other types."""
        raise ValidationFailed("context: only keys of a derived type have one.")

    def encryptor(self, header: bytes) -> Callable[[bytes, bytes], bytes]:
        """A function (plaintext, associated data) → ciphertext for many messages in a row; use it in one thread only.

        It can cost less per message than `encrypt`. It puts `header` before each ciphertext, and before each
        message's associated data.
        """
        return lambda plaintext, associated_data: header + self.encrypt(plaintext, header + associated_data)

    def decryptor(self, header: bytes) -> Callable[[bytes, bytes], bytes]:
        """A function (ciphertext, associated data) → plaintext for many messages of an `encryptor` with `header`."""
        return lambda sealed, associated_data: self.decrypt(sealed[len(header) :], header + associated_data)


@dataclass(frozen=True, slots=True)
class Scheme:
    """How to sign: a JOSE algorithm name and its options.

    `prehashed` says that what is signed is a digest already (for ML-DSA the 64-byte message representative μ
    of FIPS 204, section 6.2); `context` is ML-DSA's; `der` asks for ECDSA signatures as the DER of RFC 3279
    in place of R ‖ S (IEEE P1363).
    """

    algorithm: str
    prehashed: bool = False
    context: bytes = b""
    der: bool = False


class Signer(ABC):
    """Digital signatures over a message or over its digest; algorithms have their JOSE names."""

    algorithms: tuple[str, ...]
    """The algorithms of this key, its default first."""

    further_algorithms: tuple[str, ...] = ()
    """What it also signs with for programs that ask for it by name, such as another digest (docs/decisions/0019)."""

    @abstractmethod
    def sign(self, message: bytes, scheme: Scheme) -> bytes:
        """Sign `message`. Raises ValidationFailed for options that the algorithm does not have."""

    @abstractmethod
    def verify(self, message: bytes, signature: bytes, scheme: Scheme) -> bool:
        """Whether `signature` is valid; False for a malformed one, too."""

    @abstractmethod
    def request_certificate(self, builder: CertificateSigningRequestBuilder) -> CertificateSigningRequest:
        """A request for a certificate (RFC 2986), signed by this key."""


class Mac(ABC):
    """Message authentication codes, never shortened."""

    @abstractmethod
    def mac(self, message: bytes, digest: str | None = None) -> bytes:
        """The MAC of `message`. `digest` is a name in `hashing.DIGESTS`, by default the digest of the key's type."""


class KeyWrapper(ABC):
    """Encryption of other keys in a standard's own format."""

    wrapping_algorithms: tuple[str, ...]
    """The algorithms of this key, its default first."""

    @abstractmethod
    def wrap(self, key: bytes, algorithm: str) -> bytes:
        """Wrap `key`. Raises ValidationFailed for a key of a length that the algorithm does not take."""

    @abstractmethod
    def unwrap(self, wrapped: bytes, algorithm: str) -> bytes:
        """Give the key back. Raises DecryptionFailed, never saying why."""


class Deriver(ABC):
    """Derivation of keys from this one."""

    derivations: tuple[str, ...]
    """The algorithms of this key, its default first."""

    @abstractmethod
    def derive(self, algorithm: str, salt: bytes, label: bytes, context: bytes, length: int) -> bytes:
        """`length` bytes that only this key and these inputs give. Raises ValidationFailed."""


class Agreement(ABC):
    """Diffie-Hellman in the group of this key."""

    @abstractmethod
    def exchange(self, peer: PublicKeyTypes) -> bytes:
        """The shared secret Z of this key and `peer`, which the key's type owns.

        Raises ValidationFailed for a peer key that would weaken the secret.
        """


class Kem(ABC):
    """Key encapsulation."""

    @abstractmethod
    def encapsulate(self) -> tuple[bytes, bytes]:
        """A ciphertext and the fresh shared secret in it."""

    @abstractmethod
    def decapsulate(self, ciphertext: bytes) -> bytes:
        """The shared secret. Raises DecryptionFailed for a ciphertext of the wrong length.

        A ciphertext altered in any other way gives another secret (implicit rejection, FIPS 203, section 6.3).
        """


class Hpke(ABC):
    """Hybrid public-key encryption (RFC 9180) in base mode."""

    @property
    @abstractmethod
    def suite(self) -> str:
        """KEM, KDF and AEAD by their names in the registry of RFC 9180."""

    @abstractmethod
    def seal(self, plaintext: bytes, info: bytes) -> bytes:
        """Encrypt to this key: the encapsulated key followed by the ciphertext of the first message."""

    @abstractmethod
    def open(self, sealed: bytes, info: bytes) -> bytes:
        """Give the plaintext back. Raises DecryptionFailed, never saying why."""


PRIMITIVES: dict[Usage, tuple[type, ...]] = {
    Usage.ENCRYPT: (Cipher,),
    Usage.DECRYPT: (Cipher,),
    Usage.SIGN: (Signer,),
    Usage.VERIFY: (Signer,),
    Usage.MAC: (Mac,),
    Usage.VERIFY_MAC: (Mac,),
    Usage.WRAP: (KeyWrapper, Cipher),
    Usage.UNWRAP: (KeyWrapper, Cipher),
    Usage.DERIVE: (Deriver,),
    Usage.AGREE: (Agreement,),
    Usage.ENCAPSULATE: (Kem,),
    Usage.DECAPSULATE: (Kem,),
    Usage.SEAL: (Hpke,),
    Usage.OPEN: (Hpke,),
}
"""What a key must implement, one of these, to be made for a usage. An AEAD wraps keys as it encrypts."""
