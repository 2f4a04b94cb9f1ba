"""Reading spools to fold them: what stands behind the part that is folded already."""

from __future__ import annotations

import fcntl
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from kms.audit.spool import PATTERN
from kms.audit.spool_lines import Codes, SpoolDamaged, entry_in, name_in
from kms.files import appearing, sync_directory

_FIRST_LINE_BYTES = 4096
MOST_SHOWN_BYTES = 256 << 20


@dataclass
class SpoolRead:
    """What was read of the spool `name`: its `entries` up to byte `end`.

    `damage` says which are left out, and why. Without `has_codes` nothing that comes after those can be believed.
    """

    name: str
    path: Path
    end: int
    entries: list[bytes] = field(default_factory=list)
    damage: SpoolDamaged | None = None
    has_codes: bool = True

    def remove_if_over(self) -> None:
        """Remove the file if its process has ended and all of it was read. Raises OSError.

        One that was altered is kept under a name that is no spool's: a copy, while its process may go on in it.
        """
        if self.damage is not None:
            aside = self.path.with_name(f"damaged-{self.path.name}")
            if not self.has_codes:
                self.path.rename(aside)
                return
            with suppress(FileNotFoundError):
                content = self.path.read_bytes()
                with appearing(aside, replace=True) as kept:
                    kept.write(content)
        try:
            with self.path.open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                file.seek(self.end)
                if file.read().strip(b"\0"):
                    return
                self.path.unlink()
        except (BlockingIOError, FileNotFoundError):
            return
        sync_directory(self.path.parent)  # before the row that says that it is folded may go


def read(
    directory: Path, folded: Mapping[str, int], key: bytes | None, most_bytes: int, *, takes_older: bool
) -> list[SpoolRead]:
    """Read every spool on from where it is `folded`, all together about `most_bytes`.

    A spool without a name and codes, of a release from before, counts as damaged unless it was begun already, or this
    host `takes_older` ones, as it does while it has folded nothing yet. Raises OSError.
    """
    found: dict[str, SpoolRead] = {}
    for path in sorted(directory.glob(PATTERN)):
        try:
            each = _read(path, folded, key, most_bytes, takes_older=takes_older)
        except FileNotFoundError:
            continue
        known = found.get(each.name)
        if known is None or _worth(known) < _worth(each):
            found[each.name] = each
        most_bytes = max(0, most_bytes - (each.end - folded.get(each.name, 0)))
    return list(found.values())


def _worth(read_: SpoolRead) -> tuple[bool, int]:
    """Of two files of one name one is a copy: the longer one has all of it, unless it was altered."""
    return read_.damage is None, read_.end


def unchecked(
    directory: Path, folded: Mapping[str, int] = MappingProxyType({}), most_bytes: int = MOST_SHOWN_BYTES
) -> list[bytes]:
    """The entries that are not `folded` yet, for people to see, of the most recently written spools first."""
    found: list[bytes] = []
    for path in sorted(directory.glob(PATTERN), key=_written_at, reverse=True):
        with suppress(FileNotFoundError):
            _, _, content = _content(path, folded, most_bytes)
            found += [entry for line in content.split(b"\n") if (entry := entry_in(line))]
            most_bytes = max(0, most_bytes - len(content))
    return found


def _written_at(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def _content(path: Path, folded: Mapping[str, int], most_bytes: int) -> tuple[str | None, int, bytes]:
    """The name of a spool, where what is not folded of it begins, and whole lines from there."""
    with path.open("rb", buffering=0) as file:
        first = file.read(_FIRST_LINE_BYTES)
        name = name_in(first)
        begin = folded.get(name or path.stem, 0)
        if name is not None:
            begin = max(begin, first.index(b"\n") + 1)
        file.seek(begin)
        length = file.read(most_bytes).rfind(b"\n") + 1
        # Again: of what its process wrote meanwhile, the newline may have been read and the line before it not.
        file.seek(begin)
        content = file.read(length)
    return name, begin, content


def _read(
    path: Path, folded: Mapping[str, int], key: bytes | None, most_bytes: int, *, takes_older: bool
) -> SpoolRead:
    name, begin, content = _content(path, folded, most_bytes)
    read_ = SpoolRead(name or path.stem, path, begin + len(content))
    if name is None:
        read_.has_codes = False
        if not takes_older and path.stem not in folded and content:
            read_.damage = SpoolDamaged(path.stem, 0, "it has no codes, and this release writes them")
        else:
            read_.entries = content.split(b"\n")[:-1]
        return read_
    assert key is not None  # who writes such a spool has it
    read_.entries, read_.damage = Codes(key, name).entries(content, begin)
    return read_
