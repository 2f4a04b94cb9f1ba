"""Tiles and bundles against the definition in tlog-tiles, and how a log grows."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.naive_tree import mth, path, proof, tile
from helpers.tlog import WrittenLog, entry
from kms.audit.growing import grown, leaves_between, outdated
from kms.audit.tiles import (
    ENTRIES,
    MAX_FILE_BYTES,
    TileMalformed,
    TileMissing,
    TileName,
    Tiles,
    bundle_of,
    bundle_path,
    entries_of,
    tile_path,
)
from kms.audit.tree import HASH_BYTES, Unverified, consistency_proof, inclusion_proof


class Kept(dict[str, bytes]):
    """A log in memory."""

    def fetch(self, name: str) -> bytes:
        if name not in self:
            raise FileNotFoundError(name)
        return self[name]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (TileName(0, 1234067), "tile/0/x001/x234/067"),  # from tlog-tiles
        (TileName(0, 1), "tile/0/001"),  # and these as in golang.org/x/mod/sumdb/tlog, tlog_test.go
        (TileName(0, 1, 5), "tile/0/001.p/5"),
        (TileName(5, 123456078), "tile/5/x123/x456/078"),
        (TileName(5, 123456078, 2), "tile/5/x123/x456/078.p/2"),
        (TileName(ENTRIES, 3057500), "tile/entries/x003/x057/500"),
        (TileName(63, 0, 255), "tile/63/000.p/255"),
        (TileName(0, 1000), "tile/0/x001/000"),
    ],
)
def test_paths(name: TileName, text: str) -> None:
    assert name.path == text
    assert TileName.parse(text) == name


@pytest.mark.parametrize(
    "text",
    [
        "tile/5/123/456/078",  # tlog_test.go
        "tile/-1/123/456/078",  # tlog_test.go
        "tile/64/000",
        "tile/00/000",
        "tile/01/000",
        "tile/0/0",
        "tile/0/0000",
        "tile/0/x000/001",
        "tile/0/001.p/0",
        "tile/0/001.p/256",
        "tile/0/001.p/05",
        "tile/0/001.p/",
        "tile/0/001.p",
        "tile/0/001\n",
        "tile/0/../0/001",
        "tile/0/٠٠١",  # Arabic digits
        "tile/data/001",
        "/tile/0/001",
        "checkpoint",
        "tile/0/" + "x001/" * 100 + "001",
    ],
)
def test_other_paths_are_nobodys(text: str) -> None:
    assert TileName.parse(text) is None


@given(st.integers(ENTRIES, 63), st.integers(0, 10**15), st.integers(1, 256))
def test_every_path_reads_back(level: int, index: int, width: int) -> None:
    assert TileName.parse(TileName(level, index, width).path) == TileName(level, index, width)


@given(st.lists(st.binary(max_size=300), max_size=30))
def test_bundles_read_back(entries: list[bytes]) -> None:
    bundle = bundle_of(entries)
    assert entries_of(bundle) == (entries, True)
    for cut in range(len(bundle)):
        found, is_whole = entries_of(bundle[:cut])
        assert found == entries[: len(found)]
        assert is_whole == (bundle_of(found) == bundle[:cut])


def test_the_sizes_of_tlog_tiles_example() -> None:
    """Its "Partial Tiles": a tree of size 70,000, and one of size 256."""
    kept = Kept()
    growth = grown(Tiles(kept.fetch), 0, [b""] * 70_000)
    tiles = {name for name in growth.files if not name.startswith("tile/entries/")}
    full = {tile_path(0, index) for index in range(273)}
    assert tiles == full | {"tile/0/273.p/112", "tile/1/000", "tile/1/001.p/17", "tile/2/000.p/1"}
    bundles = {bundle_path(index) for index in range(273)} | {bundle_path(273, 112)}
    assert set(growth.files) - tiles == bundles
    kept.update(growth.files)
    growth = grown(Tiles(kept.fetch), 70_000, [b""])  # only what is wider is written
    assert set(growth.files) == {"tile/entries/273.p/113", "tile/0/273.p/113"}
    growth = grown(Tiles(kept.fetch), 70_000, [])
    assert (growth.size, growth.files) == (70_000, {})
    growth = grown(Tiles(kept.fetch), 0, [b""] * 256)
    assert set(growth.files) == {"tile/entries/000", "tile/0/000", "tile/1/000.p/1"}


@given(st.lists(st.integers(0, 700), min_size=1, max_size=6))
@settings(deadline=None, max_examples=25)
def test_a_log_grows_as_the_definition_says(steps: list[int]) -> None:
    """Whatever the steps, the tiles are those of the definition, and a tile that was written never changes."""
    kept = Kept()
    tiles = Tiles(kept.fetch)
    entries: list[bytes] = []
    for step in steps:
        lines = [b"%d" % (len(entries) + number) for number in range(step)]
        growth = grown(tiles, len(entries), lines)
        assert growth == grown(tiles, len(entries), lines, mth(entries))
        for name, content in growth.files.items():
            assert kept.setdefault(name, content) == content
        entries += lines
        assert (growth.size, growth.root) == (len(entries), mth(entries))
        assert tiles.root(growth.size) == growth.root
        if lines:
            there, before = (growth.size, growth.root), len(entries) - len(lines)
            leaves = leaves_between(tiles, (before, mth(entries[:before])), there)
            assert leaves == [mth([each]) for each in lines]
    hashes = [mth([each]) for each in entries]
    for index in range(-(-len(entries) // 256)):
        part = slice(index * 256, index * 256 + 256)
        assert tiles.hashes(0, index, len(entries)) == b"".join(hashes[part])
        assert tiles.bundle(index, len(entries)) == entries[part]
    if len(entries) >= 256:
        assert tiles.hashes(1, 0, len(entries)) == b"".join(tile(entries, 1, 0))


def test_proofs_come_from_the_tiles(tmp_path: Path) -> None:
    log = WrittenLog(tmp_path)
    entries = [b"%d" % number for number in range(1100)]
    log.grow(entries[:300])
    log.grow(entries[300:])
    subtree = log.tiles.at(1100)
    for index in (0, 255, 256, 511, 1023, 1024, 1099):
        assert inclusion_proof(index, 1100, subtree) == path(index, entries)
    for old in (1, 255, 256, 257, 300, 512, 1024, 1100):
        assert consistency_proof(old, 1100, subtree) == proof(old, entries)
    with pytest.raises(ValueError, match="no complete subtree"):
        subtree(11, 0)


def test_a_reader_of_an_older_tree_takes_the_full_tile(tmp_path: Path) -> None:
    """What is partial may go when the full tile is there, and then a checkpoint of before is read from that."""
    log = WrittenLog(tmp_path)
    log.grow([entry(number) for number in range(700)])
    old_root = log.root
    log.grow([entry(number) for number in range(700, 800)])
    gone = outdated(700, 800)
    assert gone == ["tile/entries/002.p", "tile/0/002.p"]
    for name in gone:
        for file in (tmp_path / name).iterdir():
            file.unlink()
        (tmp_path / name).rmdir()
    assert log.tiles.root(700) == old_root
    assert list(log.tiles.entries(690, 700, 700)) == [entry(number) for number in range(690, 700)]
    assert log.tiles.root(800) == log.root


@given(st.integers(0, 200_000), st.integers(0, 200_000))
def test_what_is_outdated_has_become_full(old: int, more: int) -> None:
    gone = set(outdated(old, old + more))
    for level in (ENTRIES, 0, 1, 2):
        each = 256 ** (max(level, 0) + 1)
        whole = range(old // each, (old + more) // each)
        assert {name for name in gone if name.startswith(f"tile/{'entries' if level < 0 else level}/")} == {
            f"{TileName(level, index).path}.p" for index in whole
        }


def test_entries_are_read_from_where_they_are(tmp_path: Path) -> None:
    log = WrittenLog(tmp_path)
    lines = [entry(number) for number in range(600)]
    log.grow(lines)
    for begin, end in ((0, 600), (255, 257), (0, 0), (600, 600), (512, 600), (10, 20)):
        assert list(log.tiles.entries(begin, end, 600)) == lines[begin:end]
    with pytest.raises(ValueError, match="are not in a tree"):
        list(log.tiles.entries(0, 601, 600))


def test_what_is_missing_or_malformed_is_named(tmp_path: Path) -> None:
    log = WrittenLog(tmp_path)
    log.grow([entry(number) for number in range(300)])
    (tmp_path / "tile/0/000").write_bytes(bytes(8191))
    with pytest.raises(TileMalformed, match="tile/0/000 of the log is malformed: it has 8191 bytes"):
        log.tiles.hashes(0, 0, 300)
    (tmp_path / "tile/entries/001.p/44").unlink()
    with pytest.raises(TileMissing, match=r"tile/entries/001\.p/44 is missing"):
        log.tiles.bundle(1, 300)
    (tmp_path / "tile/entries/000").write_bytes(bundle_of([b"x"] * 255))
    with pytest.raises(TileMalformed, match="does not hold 256 entries"):
        log.tiles.bundle(0, 300)
    with (tmp_path / "tile/entries/000").open("wb") as file:
        file.truncate(MAX_FILE_BYTES + 1)
    with pytest.raises(TileMalformed, match="it has more than"):
        log.tiles.bundle(0, 300)
    (tmp_path / "tile/entries/000").unlink()
    (tmp_path / "tile/entries/000").mkdir()
    with pytest.raises(TileMissing):
        log.tiles.bundle(0, 300)
    with pytest.raises(ValueError, match="has no tile 2"):
        log.tiles.hashes(0, 2, 300)
    with pytest.raises(OverflowError):
        grown(log.tiles, 256, [bytes(65_536)])


@pytest.mark.parametrize("size", [1, 2, 255, 256, 300, 511, 512, 600, 70_000])
def test_a_bundle_is_compared_with_the_root(size: int) -> None:
    kept = Kept()
    lines = [b"%d" % number for number in range(size)]
    growth = grown(Tiles(kept.fetch), 0, lines)
    kept.update(growth.files)
    tiles = Tiles(kept.fetch)
    last = (size - 1) // 256
    for index in {0, last // 2, last}:
        mine = lines[index * 256 : index * 256 + 256]
        assert tiles.checked_bundle(index, size, growth.root) == mine
        path = bundle_path(index, len(mine))
        for number in {0, len(mine) // 2, len(mine) - 1}:
            altered = bundle_of([*mine[:number], b"other", *mine[number + 1 :]])
            with pytest.raises(TileMalformed):
                Tiles(Kept(kept | {path: altered}).fetch).checked_bundle(index, size, growth.root)


@pytest.mark.parametrize("size", [1, 255, 256, 300, 600])
def test_a_tree_only_grows_from_its_own_root(size: int) -> None:
    kept = Kept()
    lines = [b"%d" % number for number in range(size)]
    kept.update(grown(Tiles(kept.fetch), 0, lines).files)
    old, other = mth(lines), mth([*lines[:-1], b"another"])
    growth = grown(Tiles(kept.fetch), size, [b"more"], old)
    with pytest.raises(Unverified):
        grown(Tiles(kept.fetch), size, [b"more"], other)
    kept.update(growth.files)
    for before, after in ((other, growth.root), (old, other)):
        with pytest.raises(Unverified):
            leaves_between(Tiles(kept.fetch), (size, before), (size + 1, after))


def test_the_longest_entry_fits() -> None:
    kept = Kept()
    longest = b"x" * 65_535
    kept.update(grown(Tiles(kept.fetch), 0, [longest]).files)
    assert Tiles(kept.fetch).bundle(0, 1) == [longest]
    assert len(kept["tile/0/000.p/1"]) == HASH_BYTES
