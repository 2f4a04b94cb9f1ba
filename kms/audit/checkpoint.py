"""Checkpoints (c2sp.org/tlog-checkpoint): notes that say how large a log is, and the root of its tree."""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from kms.audit.note import Note, NoteMalformed, SignatureRefused, Verifier, from_base64
from kms.audit.tree import EMPTY_ROOT, HASH_BYTES, MAX_SIZE

_DECIMAL = re.compile(r"0|[1-9][0-9]{0,18}")


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint says: the `origin` (which log), its `size` in entries, its `root` (32 bytes), extensions."""

    origin: str
    size: int
    root: bytes
    extensions: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """The text of the note."""
        return "\n".join((self.origin, str(self.size), b64encode(self.root).decode(), *self.extensions, ""))

    @classmethod
    def parse(cls, text: str) -> Checkpoint:
        """Read the text of a note. Raises NoteMalformed."""
        lines = text.split("\n")
        if len(lines) < 4 or lines.pop() or "" in lines:
            raise NoteMalformed("The checkpoint does not have the three lines origin, size and root.")
        origin, size, root, *extensions = lines
        checkpoint = cls(origin, decimal(size), from_base64(root), tuple(extensions))
        if len(checkpoint.root) != HASH_BYTES:
            raise NoteMalformed("The root in the checkpoint does not have 32 bytes.")
        if not checkpoint.size and checkpoint.root != EMPTY_ROOT:
            raise NoteMalformed("The checkpoint is of an empty log, and has the root of another.")
        return checkpoint


@dataclass(frozen=True)
class SignedCheckpoint:
    """A checkpoint whose log has signed it: the `note` as it was read, and the cosignatures that were checked.

    `cosigned` has the time that each witness states, in seconds since 1970; those that are not known are not in it.
    """

    checkpoint: Checkpoint
    note: Note
    cosigned: Mapping[Verifier, int] = field(default_factory=dict)


def open_checkpoint(
    content: bytes, key: Verifier, witnesses: Iterable[Verifier] = (), *, origin: str | None = None
) -> SignedCheckpoint:
    """Read a checkpoint and check the signature of its log, and those of the witnesses that are known.

    Its origin must be `origin`, by default the name of `key`. Raises NoteMalformed, or SignatureRefused if the log
    has not signed, or any signature of a known key is wrong.
    """
    note = Note.parse(content)
    checkpoint = Checkpoint.parse(note.text)
    expected = key.name if origin is None else origin
    if checkpoint.origin != expected:
        raise SignatureRefused(f"The checkpoint is of the log {checkpoint.origin}, not of {expected}.")
    times = note.verified((key, *witnesses))
    if key not in times:
        raise SignatureRefused(f"The log {expected} has not signed the checkpoint.")
    cosigned = {each: time for each, time in times.items() if time is not None and each != key}
    return SignedCheckpoint(checkpoint, note, cosigned)


def decimal(text: str) -> int:
    """A number of entries, without leading zeros and of at most 63 bits. Raises NoteMalformed."""
    if not _DECIMAL.fullmatch(text) or int(text) > MAX_SIZE:
        raise NoteMalformed("A size or an index is not a decimal number without leading zeros, or is too large.")
    return int(text)
