"""Growing the tree in its tiles: what is new or wider after entries were appended, from its right edge alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from kms.audit.tiles import (
    ENTRIES,
    TILE_BYTES,
    TILE_WIDTH,
    TileMalformed,
    TileName,
    Tiles,
    bundle_of,
    bundle_path,
    tile_path,
)
from kms.audit.tree import HASH_BYTES, Unverified, complete_root, joined, leaf_hashes, peaks_of


class Growth(NamedTuple):
    """What growing a tree makes: the new `size` and `root`, and the `files` to write (path → content)."""

    size: int
    root: bytes
    files: dict[str, bytes]


def grown(tiles: Tiles, size: int, lines: Sequence[bytes], root: bytes | None = None) -> Growth:
    """Append `lines` to the tree of `size` entries that `tiles` holds; what is new or wider is returned.

    Nothing is written. Only the right edge of the old tree is read, each file once. Where its `root` is given, these
    very bytes must give it; otherwise whoever knows the new root compares that. Raises Unverified, as where a bundle
    does not hold the entries that its tile says; OverflowError for a line above 65,535 bytes.
    """
    edge = _edge(tiles, size)
    _require(root, edge)
    files = _bundles(tiles, size, lines, edge[0] if edge else b"")
    grown_edge = _append(edge, size, b"".join(leaf_hashes(lines)), files)
    return Growth(size + len(lines), _root_of(grown_edge), files)


def leaves_between(tiles: Tiles, old: tuple[int, bytes], new: tuple[int, bytes]) -> list[bytes]:
    """The hashes of the entries that the tree `new` (its size and root) has and the tree `old` does not.

    Raises Unverified unless the tiles hold both, and the one continues the other with these hashes.
    """
    (size, root), (new_size, new_root) = old, new
    edge = _edge(tiles, size)
    _require(root, edge)
    begin = size // TILE_WIDTH
    rows = [tiles.hashes(0, index, new_size) for index in range(begin, -(-new_size // TILE_WIDTH))]
    added = b"".join(rows)[(size - begin * TILE_WIDTH) * HASH_BYTES :]
    _require(new_root, _append(edge, size, added, {}))
    return [added[at : at + HASH_BYTES] for at in range(0, len(added), HASH_BYTES)]


def _edge(tiles: Tiles, size: int) -> list[bytes]:
    """The hashes in the partial tile of each level, from level 0 up; all of the tree follows from them."""
    found: list[bytes] = []
    while hashes := size >> (8 * len(found)):
        index, width = divmod(hashes, TILE_WIDTH)
        found.append(tiles.hashes(len(found), index, size) if width else b"")
    return found


def _root_of(edge: list[bytes]) -> bytes:
    return joined([peak for hashes in reversed(edge) for peak in peaks_of(hashes)])


def _require(root: bytes | None, edge: list[bytes]) -> None:
    if root is not None and _root_of(edge) != root:
        raise Unverified("The newest tiles of the log do not give the root of its tree.")


def _append(edge: list[bytes], size: int, added: bytes, files: dict[str, bytes]) -> list[bytes]:
    """Append hashes to level 0 of a tree with that edge. The tiles go into `files`; the new edge is returned."""
    found: list[bytes] = []
    new_size = size + len(added) // HASH_BYTES
    while new_size >> (8 * len(found)):
        level = len(found)
        hashes = (edge[level] if level < len(edge) else b"") + added
        is_wider, added = bool(added), b""
        index = size >> (8 * (level + 1))
        end = len(hashes) - len(hashes) % TILE_BYTES
        for at in range(0, end, TILE_BYTES):
            tile = hashes[at : at + TILE_BYTES]
            files[tile_path(level, index)] = tile
            added += complete_root(tile)
            index += 1
        partial = hashes[end:]
        if partial and is_wider:
            files[tile_path(level, index, len(partial) // HASH_BYTES)] = partial
        found.append(partial)
    return found


def _bundles(tiles: Tiles, size: int, lines: Sequence[bytes], leaves: bytes) -> dict[str, bytes]:
    """The bundles that hold `lines`; `leaves` are the hashes of those before them that share the first one."""
    files = {}
    index, width = divmod(size, TILE_WIDTH)
    entries = tiles.bundle(index, size) if width else []
    if b"".join(leaf_hashes(entries)) != leaves:
        raise TileMalformed(bundle_path(index, width), "its entries are not those of the tree")
    before = bundle_of(entries)
    at = 0
    while at < len(lines):
        taken = lines[at : at + TILE_WIDTH - width]
        width += len(taken)
        files[bundle_path(index, width)] = before + bundle_of(taken)
        at += len(taken)
        index, width, before = index + 1, 0, b""
    return files


def outdated(old_size: int, size: int) -> list[str]:
    """The directories of partial tiles and bundles that may go once the tree has grown from `old_size` to `size`.

    A partial one may go when the full one is there (tlog-tiles, "Partial Tiles"): until then somebody may hold a
    checkpoint that needs it. Whoever removes them does so last: `grown` reads them when a fold is done again.
    """
    found = []
    for level in (ENTRIES, *range(8)):
        first, last = (count >> (8 * (max(level, 0) + 1)) for count in (old_size, size))
        found += [f"{TileName(level, index).path}.p" for index in range(first, last)]
    return found
