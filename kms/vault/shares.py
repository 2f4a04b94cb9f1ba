"""Shares of a secret of 32 bytes, as people type them, and the public record by which each is known again.

docs/reference/formats.md has the format. A share bears a checksum, so that a typing error is told at once, and the
vault keeps the hash of every share, so that a wrong one is told at once too. The hashes say nothing about the secret:
whoever has fewer shares than are needed would have to guess one of 256 random bits.
"""

from __future__ import annotations

import hmac
import os
import re
from dataclasses import dataclass
from hashlib import sha256

from kms.crypto import shamir
from kms.errors import StartError
from kms.secret import Secret

Parameters = dict[str, str | int]
SECRET_BYTES = 32
_SET_BYTES = 5
_CHECKSUM_BYTES = 3
_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"  # Crockford's: no I, L, O, U
_READ_AS = str.maketrans("ILO", "110")
_GROUP = 4
_SHARE, _RECOVERY_KEY = "kms-share-1", "kms-recovery-1"
_NUMBER = re.compile("[1-9][0-9]{0,2}")


class ShareRefused(StartError):
    """A text is no share, or not one of those that are wanted; says which and why."""


@dataclass(frozen=True)
class Share:
    """One share of the set `set_id` (5 bytes), `threshold` of which give the secret."""

    set_id: bytes
    threshold: int
    number: int
    value: Secret

    def encoded(self) -> str:
        """As it is shown: kms-share-1-SET-THRESHOLD-NUMBER-VALUE."""
        body = self.value.reveal()
        return f"{_SHARE}-{_base32(self.set_id)}-{self.threshold}-{self.number}-" + _grouped(
            body + _checksum(_SHARE, self._head(), body)
        )

    @staticmethod
    def decoded(text: str) -> Share:
        """What `encoded` was made of; case, spaces and hyphens between groups do not matter. Raises ShareRefused."""
        words = _words(text)
        if words[:3] != ["KMS", "SHARE", "1"] or len(words) < 7:
            raise ShareRefused("This is no share: one begins with kms-share-1-.")
        set_text, threshold, number = words[3:6]
        if not (_NUMBER.fullmatch(threshold) and _NUMBER.fullmatch(number)):
            raise ShareRefused("This share has a typing error before its value: two numbers are there, as in -3-2-.")
        wrong = ShareRefused(
            f"Share {number} has a typing error: its checksum does not fit. I, L, O and U are never in one."
        )
        set_id, body = _bytes(set_text, _SET_BYTES), _bytes("".join(words[6:]), SECRET_BYTES + _CHECKSUM_BYTES)
        if set_id is None or body is None:
            raise wrong
        share = Share(set_id, int(threshold), int(number), Secret(body[:SECRET_BYTES]))
        if share.number > shamir.MOST_SHARES or share.threshold > shamir.MOST_SHARES:
            raise wrong
        if body[SECRET_BYTES:] != _checksum(_SHARE, share._head(), body[:SECRET_BYTES]):
            raise wrong
        return share

    def _head(self) -> bytes:
        return self.set_id + bytes([self.threshold, self.number])


@dataclass(frozen=True)
class ShareSet:
    """What everybody may know of the shares of one secret. `hashes` are SHA-256, in hex, of shares 1, 2 …"""

    set_id: bytes
    threshold: int
    hashes: tuple[str, ...]

    @staticmethod
    def of(parameters: Parameters) -> ShareSet:
        """The one that `parameters` keep. Raises StartError."""
        try:
            found = ShareSet(
                bytes.fromhex(str(parameters["set"])),
                int(parameters["threshold"]),
                tuple(str(parameters["hashes"]).split()),
            )
        except (KeyError, ValueError):
            raise StartError("What the vault keeps of its shares was altered outside the service.") from None
        require_possible(len(found.hashes), found.threshold)
        return found

    def parameters(self) -> Parameters:
        """To be kept in clear with what the secret opens."""
        return {"set": self.set_id.hex(), "threshold": self.threshold, "hashes": " ".join(self.hashes)}

    @property
    def name(self) -> str:
        """The set, as its shares show it."""
        return _base32(self.set_id)

    def require(self, share: Share) -> None:
        """Raise ShareRefused unless `share` is one of the set."""
        if share.set_id != self.set_id:
            raise ShareRefused(f"Share {share.number} is of the set {_base32(share.set_id)}; {self.name} is wanted.")
        if share.threshold != self.threshold:
            raise StartError("What the vault keeps of its shares was altered outside the service.")
        known = self.hashes[share.number - 1] if share.number <= len(self.hashes) else ""
        if not hmac.compare_digest(known.encode(), _hash(share.value).encode()):
            raise ShareRefused(f"Share {share.number} is wrong: it is not the one that was made with this set.")


class Gathered:
    """The shares of one set that were given so far. They are overwritten when they are forgotten."""

    def __init__(self, of: ShareSet) -> None:
        self.of = of
        self._values: dict[int, bytearray] = {}

    def __len__(self) -> int:
        return len(self._values)

    @property
    def is_enough(self) -> bool:
        """Whether they give the secret."""
        return len(self._values) >= self.of.threshold

    def add(self, share: Share) -> None:
        """Keep a share. Raises ShareRefused, where it was given already too."""
        self.of.require(share)
        if share.number in self._values:
            raise ShareRefused(f"Share {share.number} was given already; another one is needed.")
        self._values[share.number] = bytearray(share.value.reveal())

    def secret(self) -> Secret:
        """The secret; only where there are enough."""
        chosen = sorted(self._values)[: self.of.threshold]
        return Secret(shamir.combine({number: bytes(self._values[number]) for number in chosen}))

    def forget(self) -> None:
        """Overwrite them all."""
        for value in self._values.values():
            value[:] = bytes(len(value))
        self._values.clear()


def require_possible(shares: int, threshold: int) -> None:
    """Raise StartError unless so many shares can be made and so many of them can be needed."""
    if not (1 < threshold <= shares or threshold == shares == 1) or shares > shamir.MOST_SHARES:
        raise StartError(
            f"{threshold} of {shares} shares cannot be: at least 2 are needed, and at most all of them, "
            f"of at most {shamir.MOST_SHARES}."
        )


def split(secret: Secret, *, shares: int, threshold: int) -> tuple[ShareSet, list[Share]]:
    """The shares of a new set, and its public record. Raises StartError."""
    require_possible(shares, threshold)
    set_id = os.urandom(_SET_BYTES)
    values = shamir.split(secret.reveal(), shares=shares, threshold=threshold)
    made = [Share(set_id, threshold, number, Secret(value)) for number, value in values.items()]
    return ShareSet(set_id, threshold, tuple(_hash(each.value) for each in made)), made


def recovery_text(recovery_key: Secret) -> str:
    """A recovery key that is not split, as it is shown: kms-recovery-1-VALUE."""
    body = recovery_key.reveal()
    return f"{_RECOVERY_KEY}-" + _grouped(body + _checksum(_RECOVERY_KEY, b"", body))


def recovery_key_of(text: str) -> Secret:
    """The recovery key that `text` shows. Raises ShareRefused."""
    words = _words(text)
    if words[:3] != ["KMS", "RECOVERY", "1"]:
        raise ShareRefused("This is no recovery key: one begins with kms-recovery-1-.")
    body = _bytes("".join(words[3:]), SECRET_BYTES + _CHECKSUM_BYTES)
    if body is None or body[SECRET_BYTES:] != _checksum(_RECOVERY_KEY, b"", body[:SECRET_BYTES]):
        raise ShareRefused("The recovery key has a typing error: its checksum does not fit.")
    return Secret(body[:SECRET_BYTES])


def _hash(value: Secret) -> str:
    return sha256(value.reveal()).hexdigest()


def _checksum(kind: str, head: bytes, body: bytes) -> bytes:
    return sha256(kind.encode() + b"\0" + head + body).digest()[:_CHECKSUM_BYTES]


def _words(text: str) -> list[str]:
    return [word for word in re.split(r"[\s-]+", text.strip().upper()) if word]


def _grouped(content: bytes) -> str:
    text = _base32(content)
    return "-".join(text[at : at + _GROUP] for at in range(0, len(text), _GROUP))


def _base32(content: bytes) -> str:
    """Five bytes become eight characters, the highest bits first."""
    number = int.from_bytes(content)
    return "".join(_ALPHABET[number >> shift & 31] for shift in range(len(content) * 8 - 5, -1, -5))


def _bytes(text: str, length: int) -> bytes | None:
    text = text.translate(_READ_AS)
    if len(text) != length * 8 // 5 or any(character not in _ALPHABET for character in text):
        return None
    number = 0
    for character in text:
        number = number << 5 | _ALPHABET.index(character)
    return number.to_bytes(length)
