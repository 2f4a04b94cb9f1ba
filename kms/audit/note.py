"""Signed notes (c2sp.org/signed-note): a text, an empty line, and a line for each signature.

A signature line is `— NAME BASE64`, where the base64 holds the identifier of the key (4 bytes) and the signature. A
key is written as a verifier key: `NAME+HEX+BASE64`, where the hex is that identifier and the base64 holds the type of
the signature (1 byte) and the public key.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from binascii import Error as NotBase64
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from hashlib import sha256
from typing import Protocol
from unicodedata import category

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from kms.audit.tree import Unverified

ED25519 = 0x01
MAX_NOTE_BYTES = 1 << 18
MAX_SIGNATURES = 32  # tlog's verifiers must accept 16
_KEY_ID_BYTES = 4
_LINE_START = "— "


class NoteMalformed(Unverified):
    """The note, or what is in it, does not have the form that it should have."""


class SignatureRefused(Unverified):
    """A signature is not right, or none is of a key that is known."""


@dataclass(frozen=True)
class Signature:
    """One signature line: the `name` and the identifier of the key, and the signature itself."""

    name: str
    key_id: bytes
    value: bytes

    @property
    def line(self) -> str:
        """As it stands in a note, with the newline at its end."""
        return f"{_LINE_START}{self.name} {b64encode(self.key_id + self.value).decode()}\n"

    @classmethod
    def parse(cls, line: str) -> Signature:
        """Read a line, without its newline. Raises NoteMalformed."""
        start, name, text = line[: len(_LINE_START)], *line[len(_LINE_START) :].partition(" ")[::2]
        value = from_base64(text)
        if start != _LINE_START or not is_name(name) or len(value) <= _KEY_ID_BYTES:
            raise NoteMalformed("A signature line of the note is malformed.")
        return cls(name, value[:_KEY_ID_BYTES], value[_KEY_ID_BYTES:])


class Verifier(Protocol):
    """A public key that is known, for one type of signature."""

    @property
    def name(self) -> str:
        """The name in its signature lines."""

    @property
    def key_id(self) -> bytes:
        """The identifier in its signature lines, 4 bytes."""

    def verify(self, text: str, value: bytes) -> int | None:
        """Check a signature over the text of a note.

        Returns the time that it states, in seconds since 1970, if it states one. Raises SignatureRefused.
        """


class Signer(Protocol):
    """A private key that signs the texts of notes."""

    def sign(self, text: str) -> Signature:
        """Sign the text of a note."""


@dataclass(frozen=True)
class Ed25519Key:
    """A verifier key of type 0x01: `public_key` is raw, 32 bytes."""

    name: str
    public_key: bytes

    @property
    def key_id(self) -> bytes:
        """The identifier of the key."""
        return key_id_of(self.name, ED25519, self.public_key)

    def __str__(self) -> str:
        return verifier_key_text(self.name, ED25519, self.public_key)

    @classmethod
    def parse(cls, text: str) -> Ed25519Key:
        """Read a verifier key of this type. Raises NoteMalformed."""
        name, kind, public_key = parse_verifier_key(text)
        if kind != ED25519 or len(public_key) != 32:
            raise NoteMalformed("The verifier key is not of type 0x01 (Ed25519).")
        return cls(name, public_key)

    def verify(self, text: str, value: bytes) -> None:
        """Check a signature over `text`. Raises SignatureRefused."""
        check_ed25519(self, text.encode(), value)


@dataclass(frozen=True)
class Ed25519Signer:
    """Signs notes as `name`."""

    name: str
    private_key: Ed25519PrivateKey

    @property
    def key(self) -> Ed25519Key:
        """What verifies its signatures."""
        return Ed25519Key(self.name, self.private_key.public_key().public_bytes_raw())

    def sign(self, text: str) -> Signature:
        """Sign the text of a note."""
        return Signature(self.name, self.key.key_id, self.private_key.sign(text.encode()))


@dataclass(frozen=True)
class Note:
    """A note: its `text` with the newline at its end, and its signatures, of which nothing is known yet."""

    text: str
    signatures: tuple[Signature, ...]

    def __bytes__(self) -> bytes:
        return "".join((self.text, "\n", *(each.line for each in self.signatures))).encode()

    @classmethod
    def parse(cls, content: bytes) -> Note:
        """Read a note. Raises NoteMalformed."""
        if len(content) > MAX_NOTE_BYTES:
            raise NoteMalformed(f"The note has more than {MAX_NOTE_BYTES} bytes.")
        try:
            whole = content.decode()
        except UnicodeDecodeError:
            raise NoteMalformed("The note is not UTF-8.") from None
        text, separator, lines = whole.rpartition("\n\n")
        if not separator:
            raise NoteMalformed("The note has no signature.")
        text += "\n"
        require_text(text)
        return cls(text, signature_lines(lines))

    def verified(self, keys: Iterable[Verifier]) -> dict[Verifier, int | None]:
        """Check every signature of these keys; those of other keys are passed over.

        Returns the keys that have signed, each once, with the latest time that a signature of it states. Raises
        SignatureRefused if one is wrong, or if none of the keys has signed.
        """
        known: dict[tuple[str, bytes], Verifier] = {}
        for key in keys:
            if known.setdefault((key.name, key.key_id), key) != key:
                raise SignatureRefused(f"Two of the keys are called {key.name} and have the same identifier.")
        found: dict[Verifier, int | None] = {}
        for each in self.signatures:
            signer = known.get((each.name, each.key_id))
            if signer is not None:
                time = signer.verify(self.text, each.value)
                found[signer] = max(filter(None, (time, found.get(signer))), default=None)
        if not found:
            raise SignatureRefused("No key that is known has signed the note.")
        return found

    def with_signatures(self, signatures: Collection[Signature]) -> Note:
        """The note with further signatures, one of each key: the given ones replace those of the same keys.

        Raises NoteMalformed where they are too many.
        """
        every = {(each.name, each.key_id): each for each in (*self.signatures, *signatures)}
        _require_few(len(every))
        return Note(self.text, tuple(every.values()))


def signed(text: str, *signers: Signer) -> Note:
    """The note of these signers. Raises NoteMalformed for a text that cannot be one."""
    require_text(text)
    return Note(text, tuple(signer.sign(text) for signer in signers))


def signature_lines(lines: str) -> tuple[Signature, ...]:
    """Read the signature lines of a note, or of a witness's answer; the same line twice counts once.

    Raises NoteMalformed.
    """
    if not lines.endswith("\n"):
        raise NoteMalformed("The note has no signature, or its last line is cut off.")
    every = lines[:-1].split("\n")
    _require_few(len(every))
    return tuple(dict.fromkeys(map(Signature.parse, every)))


def _require_few(count: int) -> None:
    if count > MAX_SIGNATURES:
        raise NoteMalformed(f"The note has more than {MAX_SIGNATURES} signatures.")


def require_text(text: str) -> None:
    """Raise NoteMalformed unless `text` can be the text of a note."""
    if not text.endswith("\n") or any(character < " " and character != "\n" for character in text):
        raise NoteMalformed("The text of the note does not end with a newline, or contains control characters.")


def is_name(name: str) -> bool:
    """Whether a key may have this name: not empty, no spaces, no plus, no control characters."""
    return bool(name) and not any(each == "+" or each.isspace() or category(each) == "Cc" for each in name)


def key_id_of(name: str, kind: int, public_key: bytes) -> bytes:
    """The identifier of a key, 4 bytes."""
    return sha256(name.encode() + b"\n" + bytes([kind]) + public_key).digest()[:_KEY_ID_BYTES]


def verifier_key_text(name: str, kind: int, public_key: bytes) -> str:
    """A verifier key as text. Raises NoteMalformed if no key may have the name."""
    if not is_name(name):
        raise NoteMalformed("The name of a key must not be empty, nor contain spaces, a plus or control characters.")
    return f"{name}+{key_id_of(name, kind, public_key).hex()}+{b64encode(bytes([kind]) + public_key).decode()}"


def parse_verifier_key(text: str) -> tuple[str, int, bytes]:
    """The name, type and public key in a verifier key. Raises NoteMalformed, also where its identifier is another."""
    name, _, rest = text.partition("+")
    key_id, _, encoded = rest.partition("+")
    key = from_base64(encoded)
    if not is_name(name) or len(key) < 2:
        raise NoteMalformed("The verifier key is not NAME+HEX+BASE64.")
    if key_id != key_id_of(name, key[0], key[1:]).hex():
        raise NoteMalformed("The verifier key is damaged: its name and key do not give the identifier in it.")
    return name, key[0], key[1:]


def check_ed25519(key: Verifier, message: bytes, signature: bytes) -> None:
    """Check an Ed25519 signature by `key`, which has a `public_key`. Raises SignatureRefused."""
    try:
        Ed25519PublicKey.from_public_bytes(key.public_key).verify(signature, message)  # type: ignore[attr-defined]
    except (InvalidSignature, ValueError):
        raise SignatureRefused(f"The signature of {key.name} is wrong.") from None


def from_base64(text: str) -> bytes:
    """Decode base64 that is exactly as an encoder writes it. Raises NoteMalformed."""
    try:
        value = b64decode(text, validate=True)
    except (NotBase64, ValueError):
        value = b""
    if not value or b64encode(value).decode() != text:
        raise NoteMalformed("Something that should be base64 is not, or is not as an encoder writes it.")
    return value
