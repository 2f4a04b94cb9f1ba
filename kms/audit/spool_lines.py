"""What stands in a spool: a line that names it, then an entry on each line, with a code that ties it to its place.

    {"spool":"ID"}
    {"v":1,…}⇥"CODE"

CODE is the keyed BLAKE2b (RFC 7693) of nine bytes, in base64, over the offset of the line in the file (eight bytes,
big endian) and the leaf hash of the entry. Its key is made from a key of the service and the ID, so that whoever can
only write files cannot alter a line, move it, leave one out in between, or bring one from another spool. The ID is
the name of the file. A spool of a release from before has neither. Each line is a sequence of JSON values, for
whoever reads it with other tools.
"""

from __future__ import annotations

from binascii import b2a_base64
from dataclasses import dataclass
from hashlib import blake2b
from hmac import compare_digest

import msgspec

from kms.audit.tree import leaf_hash

CODE_BYTES = 9
_FIRST = b'{"spool":"'
_BEFORE_CODE, _AFTER_CODE = b'\t"', b'"'


class _Named(msgspec.Struct):
    spool: str


@dataclass(frozen=True)
class SpoolDamaged:
    """The file `spool` is not what its process wrote. `offset` is that of the first byte that is wrong.

    It `is_gap` where nothing is wrong in it, and what its process wrote before it is missing.
    """

    spool: str
    offset: int
    reason: str
    is_gap: bool = False

    def __str__(self) -> str:
        return f"The spool {self.spool} of the audit log is wrong at byte {self.offset}: {self.reason}."


@dataclass
class CheckedLines:
    """The `entries` of a part of a spool, the last of which ends at byte `end`.

    `left_out` lines, the first of them at `wrong`, were not written by the service where they stand.
    """

    entries: list[bytes]
    end: int
    left_out: int = 0
    wrong: int = 0

    def leave_out(self, offset: int) -> None:
        """Count a line that is wrong."""
        if not self.left_out:
            self.wrong = offset
        self.left_out += 1

    def add(self, following: CheckedLines) -> None:
        """Add what stands behind these lines."""
        if following.entries:
            self.entries += following.entries
            self.end = following.end
        if following.left_out:
            self.leave_out(following.wrong)
            self.left_out += following.left_out - 1

    def damage(self, spool: str) -> SpoolDamaged | None:
        """What to say of the lines that are left out of `spool`."""
        if not self.left_out:
            return None
        lines = "this line" if self.left_out == 1 else f"{self.left_out} lines from there on"
        return SpoolDamaged(spool, self.wrong, f"the service did not write {lines}")


def first_line(spool: str) -> bytes:
    """The line that names a spool, with its newline."""
    return _FIRST + spool.encode() + b'"}\n'


def name_in(content: bytes) -> str | None:
    """The name that the first line gives the spool; None where there is no such line."""
    line, newline, _ = content.partition(b"\n")
    if not newline or not line.startswith(_FIRST):
        return None
    try:
        return msgspec.json.decode(line, type=_Named).spool
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


class Codes:
    """The codes of the lines of one spool. `key` is the service's key for spools, 32 bytes."""

    def __init__(self, key: bytes, spool: str) -> None:
        self.spool = spool
        of_this = blake2b(spool.encode(), key=key, digest_size=32).digest()
        self._keyed = blake2b(key=of_this, digest_size=CODE_BYTES)  # copied for each line, which is faster

    def coded(self, line: bytes, leaf: bytes, offset: int) -> bytes:
        """What is written for an entry whose leaf hash is `leaf`, at `offset`; without the newline."""
        return line + _BEFORE_CODE + self._code(leaf, offset) + _AFTER_CODE

    def _code(self, leaf: bytes, offset: int) -> bytes:
        keyed = self._keyed.copy()
        keyed.update(offset.to_bytes(8) + leaf)
        return b2a_base64(keyed.digest(), newline=False)

    def entries(self, content: bytes, offset: int) -> CheckedLines:
        """What is in `content`, whole lines that stand at `offset` of the spool.

        A line that the service did not write where it stands is left out. Those after it have codes of their own.
        """
        found = CheckedLines([], offset)
        for written in content.split(b"\n")[:-1]:
            line, tab, code = written.rpartition(_BEFORE_CODE)
            begin, offset = offset, offset + len(written) + 1
            if tab and compare_digest(code, self._code(leaf_hash(line), begin) + _AFTER_CODE):
                found.entries.append(line)
                found.end = offset
            else:
                found.leave_out(begin)
        return found


def entry_in(written: bytes) -> bytes:
    """The entry on a line of a spool, unchecked; nothing for the line that names it, and what is allocated ahead."""
    if not written.startswith(b"{") or written.startswith(_FIRST):
        return b""
    return written.partition(b"\t")[0]
