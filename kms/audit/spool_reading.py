"""Reading spools to fold them: what stands behind the part that is folded already.

Only a line whose code is right moves on how far a process is folded. So whatever somebody writes into a spool, behind
it, or into a copy of it, what its process writes later is found where the process writes it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import BinaryIO

from kms.audit.spool_files import (
    ALLOCATED_AT_ONCE,
    FIRST_LINE_BYTES,
    MOST_BYTES,
    Place,
    SpoolFile,
    copy_aside,
    is_over,
    move_aside,
    opened,
    spools_in,
)
from kms.audit.spool_lines import CheckedLines, Codes, SpoolDamaged, entry_in, name_in

MOST_SHOWN_BYTES = 256 << 20
_LONGEST_LINE_BYTES = 1 << 17
_NOT_FOLDED: Mapping[str, int] = MappingProxyType({})


@dataclass
class SpoolRead:
    """What was read of the spool at `path`: `entries`, up to `end` of what its `process` has written.

    The file was read from byte `begin` to `read_to`, which `is_all` of it, except for what comes later. `is_over`
    says that nothing does. Of a file that is no spool there is only the damage; its `process` is empty.
    """

    path: Path
    process: str = ""
    end: int = 0
    entries: list[bytes] = field(default_factory=list)
    damage: list[SpoolDamaged] = field(default_factory=list)
    begin: int = 0
    read_to: int = 0
    is_all: bool = True
    is_over: bool = True

    def settle(self, *, keeps: bool) -> None:
        """Remove the file if its process has ended and all of it was read. Raises OSError.

        What is damaged gets another name then, that of no spool. Before, it `keeps` a copy under that name.
        """
        if not (self.is_over and self.is_all):
            if keeps:
                copy_aside(self.path)
        elif self.damage:
            move_aside(self.path)
        elif self._ends_here():
            self.path.unlink(missing_ok=True)

    def _ends_here(self) -> bool:
        """Whether nothing but zeros follows; a line that was not finished is cut off later."""
        with suppress(FileNotFoundError):
            file = opened(self.path)
            if file is not None:
                with file:
                    rest = file.seek(0, os.SEEK_END) - self.read_to
                    file.seek(self.read_to)
                    while 0 < rest <= MOST_BYTES and not (content := file.read(1 << 20)).strip(b"\0"):
                        rest -= len(content) or rest
                    return rest <= 0
        return False


def read(files: list[SpoolFile], folded: Mapping[str, int], key: bytes, most_bytes: int) -> list[SpoolRead]:
    """Read `files`, in the order of `spools_in`, on from where their processes are `folded`. Raises OSError.

    `folded` was asked for the processes of these files, and of no others. The entries of all take about `most_bytes`;
    what is wrong does not count, so that it keeps nothing else waiting.
    """
    found: list[SpoolRead] = []
    reached, unfinished = dict(folded), set[str]()
    for place, path in files:
        if most_bytes <= 0:
            break
        if place is not None and place.process in unfinished:
            continue  # what a process wrote later is read later
        with suppress(FileNotFoundError):
            try:
                each = _read(place, path, reached, key, most_bytes)
            except PermissionError:  # another user's: its process writes another, if it is there
                each = SpoolRead(path, damage=[SpoolDamaged(_shown(path), 0, "it cannot be read")])
            if each is not None:
                found.append(each)
                if not each.is_all:
                    unfinished.add(each.process)
                if each.entries:
                    reached[each.process] = each.end
                    most_bytes -= each.read_to - each.begin
    return found


def waiting(
    directory: Path, folded: Mapping[str, int], key: bytes, most_bytes: int = MOST_SHOWN_BYTES
) -> list[bytes]:
    """The entries that are not `folded` yet and whose codes are right, of the spools written last first."""
    found: list[bytes] = []
    for place, path in _last_written_first(directory):
        with suppress(OSError):
            each = _read(place, path, folded, key, most_bytes)
            if each is not None:
                found += each.entries
                most_bytes = max(0, most_bytes - sum(map(len, each.entries)))
    return found


def unchecked(
    directory: Path, folded: Mapping[str, int] = _NOT_FOLDED, most_bytes: int = MOST_SHOWN_BYTES
) -> list[bytes]:
    """The entries that are not `folded` yet, of the spools written last first, as anybody may have written them."""
    found: list[bytes] = []
    for place, path in _last_written_first(directory):
        with suppress(OSError):
            file = opened(path) if place is not None else None
            if place is not None and file is not None:
                with file:
                    begin = max(0, folded.get(place.process, 0) - place.begin)
                    content, _ = _whole_lines(file, begin, most_bytes)
                found += [entry for line in content.split(b"\n") if (entry := entry_in(line))]
                most_bytes = max(0, most_bytes - len(content))
    return found


def bytes_waiting(directory: Path, folded: Mapping[str, int]) -> int:
    """About how many bytes are not `folded` yet, without reading them."""
    behind = 0
    for place, path in spools_in(directory):
        if place is not None:
            with suppress(FileNotFoundError):
                written = place.begin + path.lstat().st_size - ALLOCATED_AT_ONCE
                behind += max(0, written - max(place.begin, folded.get(place.process, 0)))
    return behind


def _last_written_first(directory: Path) -> list[SpoolFile]:
    return sorted(spools_in(directory), key=lambda each: _written_at(each[1]), reverse=True)


def _written_at(path: Path) -> float:
    try:
        return path.lstat().st_mtime
    except FileNotFoundError:
        return 0.0


def _whole_lines(file: BinaryIO, begin: int, most_bytes: int) -> tuple[bytes, bool]:
    """What stands from `begin` up to the last newline in `most_bytes`, and whether more may follow."""
    file.seek(begin)
    read_ = file.read(most_bytes)
    # Again: of what its process wrote meanwhile, the newline may have been read and the line before it not.
    file.seek(begin)
    return file.read(read_.rfind(b"\n") + 1), len(read_) == most_bytes


def _read(
    place: Place | None, path: Path, folded: Mapping[str, int], key: bytes, most_bytes: int
) -> SpoolRead | None:
    """What is new in one file; None where its process has not named it yet."""
    file = opened(path)
    if file is None:
        return SpoolRead(path, damage=[SpoolDamaged(_shown(path), 0, "it is no file")])
    with file:
        over = is_over(file)  # before it is read, so that nothing is missed in what is removed
        first = file.read(FIRST_LINE_BYTES)
        if not first.strip(b"\0"):
            return None
        name = name_in(first)
        if name is None or place is None or name != path.stem:
            reason = "it has no codes, and this release writes them" if name is None else "it has another's name"
            return SpoolRead(path, damage=[SpoolDamaged(_shown(path), 0, reason)], is_over=over)
        named, position = first.index(b"\n") + 1, folded.get(place.process, 0)
        begin = max(named, position - place.begin)
        found = SpoolRead(path, place.process, begin=begin, is_over=over)
        lines = _lines(file, begin, Codes(key, name), most_bytes, found)
    found.entries, found.end = lines.entries, place.begin + lines.end
    if lines.entries and position < place.begin:
        missing = f"{place.begin - position} bytes that its process wrote before it are missing"
        found.damage.append(SpoolDamaged(name, 0, missing, is_gap=True))
    if (damage := lines.damage(name)) is not None:
        found.damage.append(damage)
    if found.read_to == named:
        found.is_over = False  # there was nothing in it yet: it may have been made this moment
    return found


def _lines(file: BinaryIO, begin: int, codes: Codes, most_bytes: int, found: SpoolRead) -> CheckedLines:
    """The lines from `begin`, on to the next that is right where there are only wrong ones."""
    lines = CheckedLines([], begin)
    found.read_to = begin
    while found.read_to - begin < MOST_BYTES:
        content, is_more = _whole_lines(file, found.read_to, most_bytes)
        lines.add(codes.entries(content, found.read_to))
        if not content and is_more and most_bytes > _LONGEST_LINE_BYTES:
            lines.leave_out(found.read_to)  # no process writes that much without a newline
            found.read_to += most_bytes
        found.read_to += len(content)
        if lines.entries or not is_more or most_bytes <= _LONGEST_LINE_BYTES:
            found.is_all = not is_more
            break
    return lines


def _shown(path: Path) -> str:
    """The name of a file for an entry of the log, whatever characters somebody gave it."""
    return path.name.encode("unicode_escape").decode()[:200]
