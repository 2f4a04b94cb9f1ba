"""A log as files: tiles of hashes and bundles of entries, laid out as C2SP tlog-tiles says (c2sp.org/tlog-tiles).

A tile holds up to 256 hashes in a row, each over 256 of the level below; those of level 0 are leaf hashes. A bundle
holds up to 256 entries, each after its length. What is full never changes; what is partial carries its width in its
name. All bytes follow from the entries alone, whoever writes them.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from kms.audit.tree import (
    HASH_BYTES,
    Subtree,
    Unverified,
    complete_root,
    inclusion_proof,
    leaf_hashes,
    root_at,
    verify_inclusion,
)

TILE_WIDTH = 256
TILE_BYTES = TILE_WIDTH * HASH_BYTES
MAX_ENTRY_BYTES = (1 << 16) - 1
MAX_FILE_BYTES = TILE_WIDTH * (2 + MAX_ENTRY_BYTES)  # of a full bundle
ENTRIES = -1  # the "level" of bundles, where one function serves tiles and bundles

_PATH = re.compile(r"tile/(entries|[0-9]|[1-5][0-9]|6[0-3])/((?:x[0-9]{3}/)*[0-9]{3})(?:\.p/([1-9][0-9]{0,2}))?")

Fetch = Callable[[str], bytes]
"""Gives the content of a path of the log, of which it should read no more than `MAX_FILE_BYTES`, and one to tell.

Raises FileNotFoundError where there is none.
"""


class TileMissing(Unverified):
    """A tile or bundle is not there. `path` says which."""

    def __init__(self, path: str) -> None:
        super().__init__(f"{path} is missing from the log.")
        self.path = path


class TileMalformed(Unverified):
    """A tile or bundle is not what its name says. `path` says which."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"{path} of the log is malformed: {reason}.")
        self.path = path


@dataclass(frozen=True, slots=True)
class TileName:
    """What a path says: `level` (ENTRIES for a bundle), `index` in the level, `width` (256 if it is full)."""

    level: int
    index: int
    width: int = TILE_WIDTH

    @property
    def path(self) -> str:
        """The path below the log's prefix, such as `tile/0/x001/x234/067.p/12`."""
        level = "entries" if self.level == ENTRIES else str(self.level)
        digits = f"{self.index % 1000:03d}"
        rest = self.index // 1000
        while rest:
            digits = f"x{rest % 1000:03d}/{digits}"
            rest //= 1000
        partial = "" if self.width == TILE_WIDTH else f".p/{self.width}"
        return f"tile/{level}/{digits}{partial}"

    @classmethod
    def parse(cls, path: str) -> TileName | None:
        """What `path` says, or None if it is not exactly a path that this layout writes."""
        found = _PATH.fullmatch(path) if len(path) <= 80 else None
        if found is None:
            return None
        level, digits, width = found.groups()
        index = int(digits.replace("x", "").replace("/", ""))
        name = cls(ENTRIES if level == "entries" else int(level), index, int(width or TILE_WIDTH))
        is_partial_and_full = width is not None and name.width >= TILE_WIDTH
        return None if is_partial_and_full or name.path != path else name


def tile_path(level: int, index: int, width: int = TILE_WIDTH) -> str:
    """The path of a tile of hashes."""
    return TileName(level, index, width).path


def bundle_path(index: int, width: int = TILE_WIDTH) -> str:
    """The path of a bundle of entries: bundle `index` holds those from `index * 256` on."""
    return TileName(ENTRIES, index, width).path


def width_in(level: int, index: int, size: int) -> int:
    """How many hashes (or entries) the tile has in the tree of `size` entries: 256, fewer, or 0 for no tile."""
    hashes = size >> (8 * max(level, 0))
    return max(0, min(TILE_WIDTH, hashes - index * TILE_WIDTH))


def bundle_of(entries: Iterable[bytes]) -> bytes:
    """Entries as the content of a bundle. Raises OverflowError for one above 65,535 bytes."""
    parts: list[bytes] = []
    for entry in entries:
        parts += (len(entry).to_bytes(2, "big"), entry)
    return b"".join(parts)


def entries_of(bundle: bytes) -> tuple[list[bytes], bool]:
    """The entries in a bundle, as far as its lengths fit, and whether they fit to its end."""
    entries: list[bytes] = []
    at, total = 0, len(bundle)
    while at < total:
        begin = at + 2
        at = begin + (bundle[at] << 8) + bundle[begin - 1] if begin <= total else total + 1
        if at > total:
            return entries, False
        entries.append(bundle[begin:at])
    return entries, True


def _without_waiting(path: str, flags: int) -> int:
    """Open what may be a pipe in place of a file, for which nobody should wait."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


class Tiles:
    """Reads a log from wherever `fetch` gets its files."""

    def __init__(self, fetch: Fetch) -> None:
        self.fetch = fetch

    @classmethod
    def in_directory(cls, directory: Path) -> Tiles:
        """The log in a directory."""

        def fetch(path: str) -> bytes:
            try:
                with open(f"{directory}/{path}", "rb", opener=_without_waiting) as file:
                    status = os.fstat(file.fileno())
                    if not stat.S_ISREG(status.st_mode):
                        raise TileMalformed(path, "it is not a file")
                    if status.st_size > MAX_FILE_BYTES:
                        raise TileMalformed(path, f"it has more than {MAX_FILE_BYTES} bytes")
                    return file.read(status.st_size)  # Python makes room for as many bytes as may be read
            except (NotADirectoryError, IsADirectoryError):
                raise FileNotFoundError(path) from None

        return cls(fetch)

    def content(self, level: int, index: int, size: int) -> tuple[bytes, str]:
        """The bytes of a tile or bundle of the tree of `size` entries, unchecked, and the path they were read from.

        In place of a partial one, the full one may be there, which continues it. Raises TileMissing.
        """
        width = width_in(level, index, size)
        name = TileName(level, index, width)
        if width == 0:
            raise ValueError(f"a tree of {size} entries has no tile {index} at level {level}")
        for path in dict.fromkeys((name.path, replace(name, width=TILE_WIDTH).path)):
            try:
                return self.fetch(path), path
            except FileNotFoundError:
                continue
        raise TileMissing(name.path)

    def hashes(self, level: int, index: int, size: int) -> bytes:
        """The hashes in a tile, in a row. Raises TileMissing or TileMalformed."""
        width = width_in(level, index, size)
        content, path = self.content(level, index, size)
        stored = TileName.parse(path)
        if stored is None or len(content) != stored.width * HASH_BYTES:
            raise TileMalformed(path, f"it has {len(content)} bytes")
        return content[: width * HASH_BYTES]

    def bundle(self, index: int, size: int) -> list[bytes]:
        """The entries in a bundle. Raises TileMissing or TileMalformed."""
        width = width_in(ENTRIES, index, size)
        content, path = self.content(ENTRIES, index, size)
        stored = TileName.parse(path)
        entries, is_whole = entries_of(content)
        if stored is None or not is_whole or len(entries) != stored.width:
            raise TileMalformed(path, f"it does not hold {stored.width if stored else width} entries")
        return entries[:width]

    def checked_bundle(self, index: int, size: int, root: bytes) -> list[bytes]:
        """The entries in a bundle, after they were found to be those of the tree of this `size` and `root`.

        Raises Unverified.
        """
        entries = self.bundle(index, size)
        leaves = b"".join(leaf_hashes(entries))
        above = self.at(size)

        def subtree(level: int, place: int) -> bytes:
            at = ((place << level) - index * TILE_WIDTH) * HASH_BYTES
            is_inside = level <= 8 and place >> (8 - level) == index
            return complete_root(leaves[at : at + (HASH_BYTES << level)]) if is_inside else above(level, place)

        first = index * TILE_WIDTH  # its proof goes over all others of its bundle
        path = inclusion_proof(first, size, subtree)
        if not verify_inclusion(leaves[:HASH_BYTES], first, size, path, root):
            raise TileMalformed(bundle_path(index, width_in(ENTRIES, index, size)), "its entries are not the tree's")
        return entries

    def entries(self, begin: int, end: int, size: int) -> Iterator[bytes]:
        """The entries from `begin` up to `end` of the tree of `size` entries, unchecked.

        Raises TileMissing or TileMalformed, ValueError for entries that the tree does not have.
        """
        if not 0 <= begin <= end <= size:
            raise ValueError(f"entries {begin} to {end} are not in a tree of {size} entries")
        for index in range(begin // TILE_WIDTH, -(-end // TILE_WIDTH)):
            first = index * TILE_WIDTH
            yield from self.bundle(index, size)[max(begin - first, 0) : end - first]

    def at(self, size: int) -> Subtree:
        """The hashes of complete subtrees of the tree of `size` entries, for `tree`'s functions.

        It keeps what it reads. What it gives is unchecked. It raises TileMissing or TileMalformed.
        """
        read: dict[tuple[int, int], bytes] = {}

        def subtree(level: int, index: int) -> bytes:
            if (index + 1) << level > size:
                raise ValueError(f"a tree of {size} entries has no complete subtree {index} of level {level}")
            tile_level, height = divmod(level, 8)
            tile, first = divmod(index << height, TILE_WIDTH)
            if (tile_level, tile) not in read:
                read[tile_level, tile] = self.hashes(tile_level, tile, size)
            return complete_root(read[tile_level, tile][first * HASH_BYTES : (first + (1 << height)) * HASH_BYTES])

        return subtree

    def root(self, size: int) -> bytes:
        """The root that the tiles give for the tree of `size` entries. Raises TileMissing or TileMalformed."""
        return root_at(size, self.at(size))
