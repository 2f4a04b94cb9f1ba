"""The interface of key types: what the service needs to know about each of them."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes, PublicKeyTypes
from cryptography.hazmat.primitives.serialization import load_der_private_key

from kms.crypto import jwk, pkcs8
from kms.crypto.quantum import Strength, by_key_search
from kms.errors import ValidationFailed
from kms.keys.model import Usage

_LONGEST = 16_384
Purposes = tuple[frozenset[Usage], ...]


@dataclass(frozen=True, kw_only=True)
class KeyType(ABC):
    """How keys of one type are made, loaded, used and described.

    `purposes` are sets of usages that exclude each other, the default first: a key is made for one of them or
    a part of it, so that no key is ever used in two modes. `primitive` makes, from what `load` knows, the
    object that computes; it implements the interfaces of `kms.crypto.primitives` that the purposes need.
    `strength` is how strong it is, also against quantum computers. `message_limit` is how many messages one version
    may protect (None: no practical limit). `slow` types take long to generate.
    """

    name: str
    title: str
    standard: str
    purposes: Purposes
    primitive: Callable[[Any], object]
    strength: Strength
    message_limit: int | None = None
    slow: bool = False

    @property
    def usages(self) -> frozenset[Usage]:
        """The usages of a key of this type by default: those of its first purpose."""
        return self.purposes[0]

    @property
    def every_usage(self) -> frozenset[Usage]:
        """All usages that a key of this type can have, over all its purposes."""
        return frozenset().union(*self.purposes)

    @property
    @abstractmethod
    def secret_bits(self) -> int:
        """How many bits the secret or private key has, or of a pair the modulus or the field, as is usual there."""

    def strength_of(self, secret_bits: int) -> Strength:
        """The strength of a key of this type whose secret has so many bits: one from outside may be shorter."""
        return self.strength

    @property
    @abstractmethod
    def formats(self) -> tuple[str, ...]:
        """The formats in which private or secret material goes in and out, the default first."""

    @abstractmethod
    def generate(self) -> bytes:
        """Generate new key material, in the encoding that the vault stores."""

    @abstractmethod
    def load(self, material: bytes) -> object:
        """The object that computes with `material`, which the vault has authenticated."""

    @abstractmethod
    def load_public(self, spki: bytes) -> object:
        """The object that computes with a public key alone, which the vault has authenticated."""

    @abstractmethod
    def public_key(self, material: bytes) -> bytes | None:
        """The public half of `material` as SubjectPublicKeyInfo DER, or None for symmetric types."""

    def imported(self, encoded: bytes, form: str) -> bytes:
        """Convert imported material, in the format `form`, into what the vault stores. Raises ValidationFailed."""
        self.require_format(form)
        if len(encoded) > _LONGEST:
            raise ValidationFailed(f"wrapped_key: no key of any type has {len(encoded)} bytes.")
        if form == "jwk":
            encoded, form = jwk.material(encoded)
        return self._imported(encoded, form)

    def exported(self, material: bytes, form: str) -> bytes:
        """Convert `material`, as the vault stores it, into the format `form`. Raises ValidationFailed."""
        self.require_format(form)
        return jwk.private(material, self.formats[0]) if form == "jwk" else self._exported(material, form)

    @abstractmethod
    def _imported(self, encoded: bytes, form: str) -> bytes:
        """As `imported`, of a form that is not JWK."""

    @abstractmethod
    def _exported(self, material: bytes, form: str) -> bytes:
        """As `exported`, in a form that is not JWK."""

    @abstractmethod
    def owns(self, public: Any) -> bool:
        """Whether `public`, a loaded public key, is one of this type."""

    @abstractmethod
    def checked_public(self, spki: bytes) -> bytes:
        """A public key (DER) from outside, checked and in its canonical encoding. Raises ValidationFailed."""

    def require_format(self, form: str) -> None:
        """Raise ValidationFailed unless `form` is one of `formats`."""
        if form not in self.formats:
            raise ValidationFailed(f"format: a key of type {self.name} is {' or '.join(self.formats)}.")


@dataclass(frozen=True, kw_only=True)
class SecretKeyType(KeyType):
    """A type of symmetric keys: `key_bytes` random bytes. `imports` are the sizes taken from outside."""

    key_bytes: int
    imports: range = field(default=range(0))

    formats = ("raw", "jwk")

    @property
    def secret_bits(self) -> int:
        return 8 * self.key_bytes

    def strength_of(self, secret_bits: int) -> Strength:
        return by_key_search(secret_bits) if self.imports and secret_bits < self.secret_bits else self.strength

    def generate(self) -> bytes:
        return os.urandom(self.key_bytes)

    def load(self, material: bytes) -> object:
        return self.primitive(material)

    def load_public(self, spki: bytes) -> object:
        raise TypeError(f"{self.name} has no public keys")

    def public_key(self, material: bytes) -> None:
        return None

    def _imported(self, encoded: bytes, form: str) -> bytes:
        if form != "raw":
            raise ValidationFailed("wrapped_key: not a JWK of a symmetric key.")
        if len(encoded) != self.key_bytes and len(encoded) not in self.imports:
            sizes = f"{self.imports[0]} to {self.imports[-1]}" if self.imports else str(self.key_bytes)
            raise ValidationFailed(f"wrapped_key: a key of type {self.name} has {sizes} bytes, this {len(encoded)}.")
        return encoded

    def _exported(self, material: bytes, form: str) -> bytes:
        return material

    def owns(self, public: Any) -> bool:
        return False

    def checked_public(self, spki: bytes) -> bytes:
        raise ValidationFailed(f"public_key: keys of type {self.name} have no public half.")


@dataclass(frozen=True, kw_only=True)
class KeyPairType(KeyType):
    """A type of key pairs; the vault keeps PKCS#8 DER, in the seed form where there is one.

    `bits` are its `secret_bits`. `new` makes a private key; `is_owner_of` tells public keys of this type from others;
    `validate` and `validate_private` refuse the weak ones among those that come from outside. `raw` makes a private
    key from its raw form, where that is common; `jwk` says whether keys of this type can be written as JWK; `spki`
    writes public keys.
    """

    bits: int
    new: Callable[[], PrivateKeyTypes]
    is_owner_of: Callable[[PublicKeyTypes], bool]
    validate: Callable[[PublicKeyTypes], None] = lambda key: None
    validate_private: Callable[[Any], None] = lambda key: None
    raw: Callable[[bytes], PrivateKeyTypes] | None = None
    jwk: bool = True
    spki: Callable[[PublicKeyTypes], bytes] = pkcs8.public_der

    @property
    def secret_bits(self) -> int:
        return self.bits

    @property
    def formats(self) -> tuple[str, ...]:
        """PKCS#8 always."""
        return ("pkcs8", *(("jwk",) if self.jwk else ()), *(("raw",) if self.raw else ()))

    def generate(self) -> bytes:
        return pkcs8.private_der(self.new())

    def load(self, material: bytes) -> object:
        return self.primitive(_private(material))

    def load_public(self, spki: bytes) -> object:
        return self.primitive(pkcs8.load_public(spki, "public_key"))

    def public_key(self, material: bytes) -> bytes | None:
        return self.spki(_private(material).public_key())

    def _imported(self, encoded: bytes, form: str) -> bytes:
        if form == "raw" and self.raw:
            load: Callable[..., Any] = self.raw
        else:
            load = partial(load_der_private_key, password=None)
            # First without the library's checks: they take minutes for numbers that somebody chose for that.
            self._check_private(self._loaded(partial(load, unsafe_skip_rsa_key_validation=True), encoded, form))
        key = self._loaded(load, encoded, form)
        self._check_private(key)
        return pkcs8.private_der(key)

    def _loaded(self, load: Callable[[bytes], Any], encoded: bytes, form: str) -> Any:
        try:
            return load(encoded)
        except (ValueError, TypeError, UnsupportedAlgorithm):  # TypeError: it is encrypted
            raise ValidationFailed(f"wrapped_key: not a valid {form} key of type {self.name}.") from None

    def _check_private(self, key: Any) -> None:
        self._check(key.public_key())
        self.validate_private(key)

    def _exported(self, material: bytes, form: str) -> bytes:
        if form == "raw":
            return bytes(_private(material).private_bytes_raw())
        return material

    def owns(self, public: Any) -> bool:
        return self.is_owner_of(public)

    def checked_public(self, spki: bytes) -> bytes:
        public = pkcs8.load_public(spki, "public_key")
        self._check(public)
        return self.spki(public)

    def _check(self, public: PublicKeyTypes) -> None:
        if not self.is_owner_of(public):
            raise ValidationFailed(f"public_key: this is not a key of type {self.name}.")
        self.validate(public)


def _private(material: bytes) -> Any:
    return pkcs8.load_private(material, object)


@dataclass(frozen=True)
class KeyMaterial:
    """What a version is made of: private or secret material as the vault keeps it, or a public key alone."""

    private: bytes | None = field(repr=False)
    public: bytes | None = None

    @staticmethod
    def of(kind: KeyType, material: bytes) -> KeyMaterial:
        """`material` of `kind` with its public half."""
        return KeyMaterial(material, kind.public_key(material))
