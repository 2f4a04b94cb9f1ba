"""One pass over the files of a log, before it is known which of them are right."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from kms.audit.tiles import ENTRIES, TILE_WIDTH, TileMissing, TileName, Tiles, bundle_path, entries_of, width_in
from kms.audit.tree import HASH_BYTES, Unverified, complete_root, leaf_hashes

MOST_MISSING = 4096  # tiles in a row, a million entries: a checkpoint may speak of any number of them


@dataclass
class Reading:
    """What the files give: for each full tile of level 0 its root as `stored`, and as `computed` from its bundle.

    `differing` are the tiles, also the partial one, whose bundle is not what they say, or that are missing, or whose
    bundle is. `without_entries` counts entries whose bundle may be missing and is,
    the last of them before number `without_up_to`.
    From entry `nothing_from` on there was so little that reading ended there; None where it went to the end.
    """

    stored: list[bytes | None] = field(default_factory=list)
    computed: list[bytes | None] = field(default_factory=list)
    differing: set[int] = field(default_factory=set)
    missing: set[int] = field(default_factory=set)
    without_entries: int = 0
    without_up_to: int = 0
    nothing_from: int | None = None


def stored_hashes(tiles: Tiles, level: int, index: int, size: int) -> bytes | None:
    """The hashes in a tile, or None if it is missing or malformed."""
    try:
        return tiles.hashes(level, index, size)
    except Unverified:
        return None


def bundle_entries(tiles: Tiles, index: int, size: int, *, or_narrower: bool = False) -> list[bytes] | None:
    """The entries that stand in a bundle, however many, or None if it is missing.

    Bytes behind the last entry that are none count as one more: nothing may stand there. `or_narrower` looks for one
    that holds fewer, as a log leaves behind that was cut or written again.
    """
    width = width_in(ENTRIES, index, size)
    try:
        content, path = tiles.content(ENTRIES, index, size)
    except TileMissing:
        return _narrower(tiles, index, width) if or_narrower else None
    except Unverified:
        return []
    entries, is_whole = entries_of(content)
    name = TileName.parse(path)
    stored = name.width if name is not None else width
    behind = []
    if not is_whole and len(entries) >= stored:
        behind.append(content[sum(2 + len(entry) for entry in entries) :])
    elif len(entries) > stored > width:
        behind = entries[stored:]
    return [*(entries[:width] if stored > width else entries), *behind]


def _narrower(tiles: Tiles, index: int, width: int) -> list[bytes] | None:
    for each in range(width - 1, 0, -1):
        try:
            return entries_of(tiles.fetch(bundle_path(index, each)))[0]
        except (FileNotFoundError, Unverified):
            continue
    return None


def read(tiles: Tiles, size: int, bundles_from: int, progress: Callable[[int, int], None]) -> Reading:
    """Read every tile of level 0 and every bundle. Bundles below entry `bundles_from` may be missing.

    It ends where `MOST_MISSING` tiles in a row are not there.
    """
    reading = Reading()
    missing = 0
    for index in range(-(-size // TILE_WIDTH)):
        end = min(size, (index + 1) * TILE_WIDTH)
        row = stored_hashes(tiles, 0, index, size)
        entries = bundle_entries(tiles, index, size)
        if entries is None and end <= bundles_from:
            reading.without_entries += end - index * TILE_WIDTH
            reading.without_up_to = end
            mine = row
        else:
            mine = b"".join(leaf_hashes(entries)) if entries is not None else None
        missing = missing + 1 if row is None else 0
        if missing == MOST_MISSING:
            reading.nothing_from = (index + 1 - missing) * TILE_WIDTH
            break
        if row is None or mine != row:
            reading.differing.add(index)
            if row is None and mine is None:
                reading.missing.add(index)
        if (index + 1) * TILE_WIDTH <= size:
            root = complete_root(row) if row is not None else None
            reading.stored.append(root)
            is_whole = mine is not None and len(mine) == TILE_WIDTH * HASH_BYTES
            reading.computed.append(root if mine == row else complete_root(mine) if mine and is_whole else None)
        progress(end, size)
    return reading
