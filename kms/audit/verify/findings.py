"""What the verification of a log finds wrong, entry by entry, in words that a person can act on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import msgspec

from kms.audit.checkpoint import Checkpoint
from kms.audit.note import Verifier
from kms.enums import TextEnum

_SHOWN_CHARACTERS = 200


class Kind(TextEnum):
    """In what way a log is wrong."""

    CHANGED = "changed"
    DROPPED = "dropped"
    INSERTED = "inserted"
    MOVED = "moved"
    CUT = "cut"
    """Entries are missing from its end."""
    TILE = "tile"
    """Hashes are wrong or missing, while the entries under them are proven right by others."""
    FORK = "fork"
    """It does not continue what an older checkpoint says."""
    CHECKPOINT = "checkpoint"
    """There is no checkpoint that its key has signed, so that nothing can be proven."""


class Glimpse(msgspec.Struct, frozen=True, rename={"client": "client_id"}):
    """What an entry says of itself, as far as it can be read. An entry that is wrong may say anything."""

    time: str = ""
    operation: str = ""
    client: str = ""

    @classmethod
    def of(cls, entry: bytes) -> Glimpse | None:
        """Read an entry, or None if it is not the JSON of one."""
        try:
            read = _decode(entry)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return None
        return cls(read.time[:_SHOWN_CHARACTERS], read.operation[:_SHOWN_CHARACTERS], read.client[:_SHOWN_CHARACTERS])


_decode = msgspec.json.Decoder(Glimpse).decode


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong.

    It concerns the entries from number `first` to `last`, which are both None where no entry is concerned. If it is
    `is_exact`, each of them is wrong; otherwise at least one, and what is left of the log does not tell which. What
    was inserted stands before `first`. `glimpse` is what now stands there, or was moved from there to `moved_to`.
    `path` is the tile that is wrong.
    """

    kind: Kind
    sentence: str
    first: int | None = None
    last: int | None = None
    is_exact: bool = True
    glimpse: Glimpse | None = None
    path: str | None = None
    moved_to: int | None = None


class Cosigned(NamedTuple):
    """What a witness has cosigned last: the `time` that it states, in seconds since 1970, and how many entries."""

    time: int
    size: int


@dataclass(frozen=True)
class Verdict:
    """What a verification came to: the log holds if there are no `findings`. The first wrong entry comes first.

    `checkpoint` is None if it could not be trusted. `cosigned` are the witnesses that have signed it, or the one
    that is kept apart for being cosigned, which it continues if the log holds. Of `without_entries` entries only the
    hashes were there to check. Those of them that are in `unannounced` may be missing only because the caller said
    so: no entry of the log says that retention drops them.
    """

    checkpoint: Checkpoint | None
    findings: tuple[Finding, ...]
    cosigned: Mapping[Verifier, Cosigned] = field(default_factory=dict)
    without_entries: int = 0
    unannounced: range = range(0)

    @property
    def holds(self) -> bool:
        """Whether everything is as the log's checkpoint says."""
        return not self.findings


def numbers(first: int, last: int) -> str:
    """Entries in words: `entry 7`, or `entries 7 to 9`."""
    return f"entry {first}" if first == last else f"entries {first} to {last}"


def missing(first: int, last: int, size: int) -> Finding:
    """That these entries are not there, in a log that should have `size`."""
    if last == size - 1:
        return Finding(Kind.CUT, f"The log is cut: {numbers(first, last)}, its last, are missing.", first, last)
    were = "was" if first == last else "were"
    return Finding(Kind.DROPPED, f"{numbers(first, last).capitalize()} {were} dropped.", first, last)


def joined(findings: Iterable[Finding], size: int) -> list[Finding]:
    """Findings in their order, where what is missing side by side is one."""
    every: list[Finding] = []
    for each in findings:
        before = every[-1] if every else None
        if before is not None and each.kind in {Kind.DROPPED, Kind.CUT} and before.kind in {Kind.DROPPED, Kind.CUT}:
            assert before.first is not None and before.last is not None and each.last is not None
            if each.first == before.last + 1 and each.last < size:
                every[-1] = missing(before.first, each.last, size)
                continue
        every.append(each)
    return every
