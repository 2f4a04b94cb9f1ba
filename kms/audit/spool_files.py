"""The files of spools: their names, what is no spool and set aside, and tidying up.

A process names what it writes by the moment and its id. It writes that into files that follow one another: the name
of each but the first ends in how many bytes stand in those before it. So a position counts from the first byte that
the process has written, and what is in the tree up to a position never begins again, whatever file is put back.
"""

from __future__ import annotations

import fcntl
import os
import re
import stat
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from kms.audit.spool_lines import name_in
from kms.files import appearing

PATTERN = "spool-*.jsonl"
ALLOCATED_AT_ONCE = 1 << 18
FIRST_LINE_BYTES = 4096
_NAME = re.compile(r"(spool-[0-9]{1,20}-[0-9]{1,10})(?:-([1-9][0-9]{0,17}))?")
MOST_BYTES = 64 << 20
"""How much of a file is copied or searched, four times what a spool has: others may make it as long as they like."""
_MOST_NAME_BYTES = 200


@dataclass(frozen=True, order=True)
class Place:
    """Where a spool stands in what its `process` has written: after `begin` bytes."""

    process: str
    begin: int = 0

    @classmethod
    def of(cls, path: Path) -> Place | None:
        """The place that the name of a file says; None where that is no spool's."""
        found = _NAME.fullmatch(path.stem)
        return cls(found[1], int(found[2] or 0)) if found is not None else None

    def __str__(self) -> str:
        return f"{self.process}-{self.begin}" if self.begin else self.process


SpoolFile = tuple[Place | None, Path]


def spools_in(directory: Path) -> list[SpoolFile]:
    """Every file that is named like a spool, those of a process in the order in which it wrote them."""
    found = [(Place.of(path), path) for path in directory.glob(PATTERN)]
    return sorted(found, key=lambda each: (each[0] or Place(""), each[1]))


def processes_of(files: Iterable[SpoolFile]) -> set[str]:
    """The processes of these spools."""
    return {place.process for place, _ in files if place is not None}


def opened(path: Path, flags: int = os.O_RDONLY) -> BinaryIO | None:
    """The file, without a buffer; None for what is no file, such as a pipe, which would never end. Raises OSError."""
    if not stat.S_ISREG(path.lstat().st_mode):
        return None
    return os.fdopen(os.open(path, flags | os.O_NONBLOCK | os.O_NOFOLLOW), "rb" if flags == os.O_RDONLY else "r+b", 0)


def is_over(file: BinaryIO) -> bool:
    """Whether the process that writes a spool has ended, or goes on in another."""
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    fcntl.flock(file, fcntl.LOCK_UN)
    return True


def move_aside(path: Path) -> None:
    """Give what is no spool, or no whole one, a name that is no spool's. Raises OSError."""
    name, number = _name_aside(path), 1
    while os.path.lexists(aside := path.with_name(name if number == 1 else f"{name}.{number}")):
        number += 1
    with suppress(FileNotFoundError):
        path.rename(aside)


def copy_aside(path: Path) -> None:
    """Keep what stands in a spool that its process may go on in. Raises OSError."""
    with suppress(FileNotFoundError):
        file = opened(path)
        if file is None:
            return
        with file, appearing(path.with_name(_name_aside(path)), replace=True) as kept:
            most = MOST_BYTES
            while most and (content := file.read(min(most, 1 << 20))):
                kept.write(content)
                most -= len(content)


def _name_aside(path: Path) -> str:
    return os.fsdecode(os.fsencode(f"damaged-{path.name}")[:_MOST_NAME_BYTES])


def tidy(directory: Path) -> None:
    """Tidy up the spools of processes that have ended: cut off their trailing zeros, and remove empty ones."""
    for path in directory.glob(PATTERN):
        with suppress(OSError):  # another worker may have removed it; what cannot be read is told when it is folded
            file = opened(path, os.O_RDWR)
            if file is not None:
                with file:
                    _tidy(path, file)


def _tidy(path: Path, file: BinaryIO) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return  # somebody writes it
    length = _length(file)
    if length > _length_of_name(file):
        file.truncate(length)
    else:
        path.unlink(missing_ok=True)


def _length(file: BinaryIO) -> int:
    """How long the entries in a spool are: what follows are zeros, and perhaps a line that was not finished."""
    end = size = file.seek(0, os.SEEK_END)
    while end:
        if size - end > MOST_BYTES:
            return size  # this was not allocated ahead
        begin = max(0, end - ALLOCATED_AT_ONCE)
        file.seek(begin)
        newline = file.read(end - begin).rfind(b"\n")
        if newline >= 0:
            return begin + newline + 1
        end = begin
    return 0


def _length_of_name(file: BinaryIO) -> int:
    file.seek(0)
    first = file.read(FIRST_LINE_BYTES).partition(b"\n")[0] + b"\n"
    return len(first) if name_in(first) is not None else 0


def sizes(directory: Path) -> list[int]:
    """The size of every spool in bytes, with what is allocated ahead."""
    found = []
    for path in directory.glob(PATTERN):
        with suppress(FileNotFoundError):  # an empty one is removed
            found.append(path.lstat().st_size)
    return found
