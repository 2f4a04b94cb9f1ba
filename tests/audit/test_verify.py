"""Every way to tamper with a log is found, and the first entry that is wrong is named."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.tlog import ORIGIN, WrittenLog, entry
from kms.audit.checkpoint import Checkpoint
from kms.audit.cosignature import Cosigner
from kms.audit.growing import grown, outdated
from kms.audit.note import Ed25519Signer, signed
from kms.audit.tiles import Tiles, bundle_of, bundle_path, tile_path, width_in
from kms.audit.tree import complete_root, leaf_hash, leaf_hashes, root_of
from kms.audit.verify import Finding, Glimpse, Hint, Kind, Verdict, verify_log
from kms.audit.verify.differences import differences

SIZE = 1000  # three full tiles, and one of 232
FORGED = entry(7).replace(b"encrypt", b"decrypt").replace(b"alice", b"mallory")


@pytest.fixture
def log(tmp_path: Path) -> WrittenLog:
    written = WrittenLog(tmp_path / "log")
    written.grow([entry(number) for number in range(600)])
    written.grow([entry(number) for number in range(600, SIZE)])
    return written


def read(log: WrittenLog, index: int) -> list[bytes]:
    return log.tiles.bundle(index, log.size)


def put(log: WrittenLog, index: int, entries: Sequence[bytes]) -> None:
    """Write a bundle under the name that the tree expects."""
    log.write(bundle_path(index, width_in(-1, index, log.size)), bundle_of(entries))


def put_with_hashes(log: WrittenLog, index: int, entries: Sequence[bytes]) -> None:
    """Write a bundle, and the tile of its hashes so that both fit."""
    put(log, index, entries)
    log.write(tile_path(0, index, width_in(0, index, log.size)), b"".join(leaf_hashes(entries)))


def rewrite(log: WrittenLog, entries: Sequence[bytes]) -> None:
    """Write the bundles of a log anew, as if these were its entries, and nothing else."""
    for path, content in grown(Tiles(nothing), 0, entries).files.items():
        if path.startswith("tile/entries/"):
            log.write(path, content)


def nothing(path: str) -> bytes:
    raise FileNotFoundError(path)


def verified(log: WrittenLog, **options: object) -> Verdict:
    return verify_log(log.tiles, log.key, **options)  # type: ignore[arg-type]


def only(verdict: Verdict) -> Finding:
    assert len(verdict.findings) == 1, verdict.findings
    assert not verdict.holds
    return verdict.findings[0]


def hint_of(entries: Sequence[bytes]) -> Hint:
    hashes = leaf_hashes(entries)
    return lambda begin, end: hashes[begin:end]


def original() -> list[bytes]:
    return [entry(number) for number in range(SIZE)]


# A log that is right


@pytest.mark.parametrize("size", [0, 1, 255, 256, 257, 512, SIZE])
def test_a_log_that_is_right_holds(tmp_path: Path, size: int) -> None:
    log = WrittenLog(tmp_path)
    log.grow([entry(number) for number in range(size)])
    witness = Cosigner("witness.example", Ed25519PrivateKey.generate(), lambda: 1_700_000_000)
    old = log.grow([], witness)
    seen: list[tuple[int, int]] = []
    verdict = verified(log, witnesses=[witness.key], older=[old], progress=lambda *done: seen.append(done))
    assert verdict.holds, verdict.findings
    assert verdict.checkpoint == Checkpoint(ORIGIN, log.size, log.root)
    assert verdict.cosigned == {witness.key: (1_700_000_000, size)}
    assert [done for done, _ in seen] == sorted({*range(256, size, 256), *([size] if size else [])})


def test_a_log_that_has_grown_is_consistent_with_every_older_checkpoint(tmp_path: Path) -> None:
    log = WrittenLog(tmp_path)
    older = []
    for step in (0, 1, 200, 55, 1, 300, 0, 700):
        older.append(log.grow([entry(log.size + number) for number in range(step)]))
    for path in outdated(0, log.size):
        shutil.rmtree(tmp_path / path, ignore_errors=True)
    assert verified(log, older=older).holds
    for checkpoint in older:
        verdict = verified(log, checkpoint=checkpoint)  # as a reader who has fetched it before the log grew on
        assert verdict.holds, verdict.findings


# Entries


def test_an_edited_entry_is_named(log: WrittenLog) -> None:
    entries = read(log, 1)
    entries[300 - 256] = FORGED
    put(log, 1, entries)
    found = only(verified(log))
    assert (found.kind, found.first, found.last, found.is_exact) == (Kind.CHANGED, 300, 300, True)
    assert found.glimpse == Glimpse("2026-11-24T12:00:07.000000Z", "decrypt", "mallory")
    assert found.sentence == "Entry 300 was changed."


@pytest.mark.parametrize("number", [0, 255, 256, 700, 767, 768, SIZE - 1])
@pytest.mark.parametrize("is_moved_up", [False, True])
def test_a_dropped_entry_is_named(log: WrittenLog, number: int, is_moved_up: bool) -> None:
    """Whether what follows it moves up in all later bundles, or only its own bundle is shorter."""
    if is_moved_up:
        entries = original()
        del entries[number]
        rewrite(log, entries)
        put(log, 3, entries[768:])
    else:
        entries = read(log, number // 256)
        del entries[number % 256]
        put(log, number // 256, entries)
    found = only(verified(log))
    kind = Kind.CUT if number == SIZE - 1 else Kind.DROPPED
    assert (found.kind, found.first, found.last, found.is_exact) == (kind, number, number, True)


def test_several_dropped_entries_are_named_together(log: WrittenLog) -> None:
    entries = original()
    del entries[250:300]
    rewrite(log, entries)
    put(log, 3, entries[768:])
    found = only(verified(log))
    assert (found.kind, found.first, found.last) == (Kind.DROPPED, 250, 299)
    assert found.sentence == "Entries 250 to 299 were dropped."


@pytest.mark.parametrize("number", [0, 255, 256, 700, 767, SIZE])
@pytest.mark.parametrize("is_moved_down", [False, True])
def test_an_inserted_entry_is_named(log: WrittenLog, number: int, is_moved_down: bool) -> None:
    if is_moved_down:
        entries = original()
        entries.insert(number, FORGED)
        rewrite(log, entries)
        put(log, 3, entries[768:])
    else:
        index = min(number // 256, 3)
        entries = read(log, index)
        entries.insert(number - index * 256, FORGED)
        put(log, index, entries)
    found = only(verified(log))
    assert (found.kind, found.first, found.is_exact) == (Kind.INSERTED, number, True)
    assert found.glimpse is not None
    assert found.glimpse.client == "mallory"
    assert found.sentence == f"An entry was inserted before entry {number}."


def test_a_copy_of_another_entry_is_an_insertion(log: WrittenLog) -> None:
    entries = read(log, 1)
    entries[10:10] = [entry(256 + 50), entry(3)]
    put(log, 1, entries)
    found = only(verified(log))
    assert (found.kind, found.first, found.sentence) == (
        Kind.INSERTED,
        266,
        "2 entries were inserted before entry 266.",
    )


@pytest.mark.parametrize(("left", "right"), [(300, 301), (260, 500), (0, 255), (200, 900), (255, 256), (5, 999)])
def test_two_entries_that_were_exchanged_are_named(log: WrittenLog, left: int, right: int) -> None:
    entries = original()
    entries[left], entries[right] = entries[right], entries[left]
    rewrite(log, entries)
    found = only(verified(log))
    assert (found.kind, found.first, found.moved_to, found.is_exact) == (Kind.MOVED, left, right, True)
    assert found.sentence == f"Entry {left} was exchanged with {right}."


@pytest.mark.parametrize(("number", "to"), [(300, 310), (310, 300), (5, 900), (900, 5), (0, 999)])
def test_an_entry_that_was_moved_is_named(log: WrittenLog, number: int, to: int) -> None:
    entries = original()
    entries.insert(to, entries.pop(number))
    rewrite(log, entries)
    found = only(verified(log))
    assert (found.kind, found.first, found.moved_to) == (Kind.MOVED, number, to)
    assert found.sentence == f"Entry {number} stands at {to}."
    assert found.glimpse == Glimpse.of(entry(number))


def test_every_wrong_entry_is_named_in_order(log: WrittenLog) -> None:
    entries = original()
    entries[900], entries[20] = FORGED, FORGED
    del entries[500]
    rewrite(log, entries)
    put(log, 3, entries[768:])
    found = verified(log).findings
    assert [(each.kind, each.first) for each in found] == [
        (Kind.CHANGED, 20),
        (Kind.DROPPED, 500),
        (Kind.CHANGED, 900),
    ]


def test_a_bundle_that_is_gone_or_no_bundle(log: WrittenLog) -> None:
    path = log.directory / bundle_path(1)
    path.write_bytes(bundle_of(read(log, 1))[:-1])
    found = only(verified(log))
    assert (found.kind, found.first, found.last) == (Kind.DROPPED, 511, 511)
    path.write_bytes(b"")
    found = only(verified(log))
    assert (found.kind, found.first, found.last) == (Kind.DROPPED, 256, 511)
    path.unlink()
    found = only(verified(log))
    assert (found.kind, found.first, found.last) == (Kind.DROPPED, 256, 511)
    (log.directory / bundle_path(2)).unlink()
    found = only(verified(log))
    assert (found.kind, found.first, found.last) == (Kind.DROPPED, 256, 767)
    (log.directory / bundle_path(3, 232)).unlink()
    found = only(verified(log))
    assert (found.kind, found.first, found.last) == (Kind.CUT, 256, 999)


@pytest.mark.parametrize("rest", [b"\xff\xffnote", b"\x00", b"\x00\x04note"])
def test_nothing_stands_behind_the_last_entry_of_a_bundle(log: WrittenLog, rest: bytes) -> None:
    for index, inserted in ((1, 512), (SIZE // 256, SIZE)):
        path = bundle_path(index, min(256, SIZE - 256 * index))
        right = (log.directory / path).read_bytes()
        log.write(path, right + rest)
        (finding,) = verified(log).findings
        assert (finding.kind, finding.first) == (Kind.INSERTED, inserted)
        log.write(path, right)
    checkpoint = (log.directory / "checkpoint").read_bytes()
    log.grow([entry(number) for number in range(SIZE, 1024)])
    full = bundle_path(SIZE // 256)
    log.write(full, (log.directory / full).read_bytes() + rest)
    (log.directory / bundle_path(SIZE // 256, SIZE % 256)).unlink()
    (finding,) = verified(log, checkpoint=checkpoint).findings  # the full one is read in place of the partial one
    assert (finding.kind, finding.first) == (Kind.INSERTED, SIZE)


def test_what_an_entry_says_is_shown_only_as_far_as_it_can_be_read(log: WrittenLog) -> None:
    for forged in (b"", b"{", b"[]", b"null", b"\xff" * 9, b'{"time": 5}', b'{"x":' + b"[" * 50_000, b"x" * 65_535):
        entries = read(log, 0)
        entries[9] = forged
        put(log, 0, entries)
        found = only(verified(log))
        assert (found.kind, found.first, found.glimpse) == (Kind.CHANGED, 9, None)
    long = b'{"operation":"%s"}' % (b"x" * 1000)
    put(log, 0, [long, *read(log, 0)[1:]])
    found = verified(log).findings[0]
    assert found.glimpse is not None
    assert len(found.glimpse.operation) == 200


# The end


@pytest.mark.parametrize("left", [0, 1, 255, 256, 600, 700, 768, 800, 999])
def test_a_log_that_was_cut_says_from_where(tmp_path: Path, left: int) -> None:
    """Tiles and bundles are those of a smaller tree; the checkpoint is the newest."""
    log = WrittenLog(tmp_path)
    if left:
        log.grow([entry(number) for number in range(left)])
        shutil.copytree(tmp_path, tmp_path / "before")
    checkpoint = log.grow([entry(number) for number in range(left, SIZE)])
    shutil.rmtree(tmp_path / "tile")
    if left:
        shutil.copytree(tmp_path / "before/tile", tmp_path / "tile")
    assert (tmp_path / "checkpoint").read_bytes() == checkpoint
    found = only(verified(log))
    assert (found.kind, found.first, found.last, found.is_exact) == (Kind.CUT, left, SIZE - 1, True)


def test_a_whole_tree_of_before_is_betrayed_by_a_newer_checkpoint(tmp_path: Path) -> None:
    log = WrittenLog(tmp_path)
    before = log.grow([entry(number) for number in range(700)])
    newer = log.grow([entry(number) for number in range(700, SIZE)])
    log.write("checkpoint", before)
    assert verified(log).holds
    found = only(verified(log, older=[newer]))
    assert (found.kind, found.first, found.last) == (Kind.CUT, 700, 999)


def test_what_is_left_of_a_cut_log_is_compared_all_the_same(log: WrittenLog) -> None:
    entries = read(log, 1)
    entries[44] = FORGED
    put(log, 1, entries)
    (log.directory / bundle_path(3, 232)).unlink()
    (log.directory / tile_path(0, 3, 232)).unlink()
    found = verified(log).findings
    assert [(each.kind, each.first) for each in found] == [(Kind.CHANGED, 300), (Kind.CUT, 768)]


# Hashes


def test_an_entry_that_was_edited_with_its_hash_is_narrowed_to_its_tile(log: WrittenLog) -> None:
    entries = read(log, 1)
    entries[44] = FORGED
    put_with_hashes(log, 1, entries)
    found = only(verified(log))
    assert (found.kind, found.first, found.last, found.is_exact) == (Kind.CHANGED, 256, 511, False)


def first(verdict: Verdict) -> tuple[Kind, int | None, int | None, bool]:
    found = verdict.findings[0]
    return found.kind, found.first, found.last, found.is_exact


def test_a_hint_names_an_entry_that_was_edited_with_its_hash(log: WrittenLog) -> None:
    for index, place in ((1, 44), (3, 100)):
        before = read(log, index)
        put_with_hashes(log, index, [*before[:place], FORGED, *before[place + 1 :]])
        number = index * 256 + place
        verdict = verified(log, hint=hint_of(original()))
        assert first(verdict) == (Kind.CHANGED, number, number, True)
        assert [each.kind for each in verdict.findings] == [Kind.CHANGED, Kind.TILE]
        assert verdict.findings[0].glimpse == Glimpse.of(FORGED)
        put_with_hashes(log, index, before)
    assert verified(log).holds


@pytest.mark.parametrize(
    "hint",
    [
        lambda begin, end: [],
        lambda begin, end: [None] * (end - begin),
        lambda begin, end: [bytes(32)] * (end - begin),
        lambda begin, end: [b"short"] * (end - begin) * 2,
        hint_of([FORGED] * SIZE),
    ],
)
def test_a_hint_is_not_trusted(log: WrittenLog, hint: Hint) -> None:
    entries = read(log, 1)
    entries[44] = FORGED
    put_with_hashes(log, 1, entries)
    assert first(verified(log, hint=hint)) == (Kind.CHANGED, 256, 511, False)


def test_the_newest_entries_that_were_edited_with_their_hashes(log: WrittenLog) -> None:
    """The root is over several tiles at the right edge, and does not tell which of them is wrong. Older ones help."""
    entries = read(log, 3)
    entries[-1] = FORGED
    before = signed(Checkpoint(ORIGIN, 990, root_of(b"".join(leaf_hashes(original()[:990])))).text, log.signer)
    early = signed(Checkpoint(ORIGIN, 10, root_of(b"".join(leaf_hashes(original()[:10])))).text, log.signer)
    put_with_hashes(log, 3, entries)
    assert first(verified(log)) == (Kind.CHANGED, 0, 999, False)
    assert first(verified(log, older=[bytes(early), bytes(before)])) == (Kind.CHANGED, 990, 999, False)
    entries[:5] = [FORGED] * 5
    put_with_hashes(log, 3, entries)
    verdict = verified(log, older=[bytes(before), bytes(early)])
    assert first(verdict) == (Kind.CHANGED, 10, 989, False)
    assert len(verdict.findings) == 1


def test_only_the_hash_of_an_entry_was_altered(log: WrittenLog) -> None:
    """The entry is proven right by the rest of the tree, the tile is named."""
    for index in (1, 3):
        path = tile_path(0, index, width_in(0, index, SIZE))
        tile = bytearray(log.tiles.fetch(path))
        tile[44 * 32] ^= 1
        log.write(path, bytes(tile))
        found = only(verified(log))
        assert (found.kind, found.first, found.path) == (Kind.TILE, None, path)
        assert f"first in its hash of entry {index * 256 + 44}." in found.sentence
        tile[44 * 32] ^= 1
        log.write(path, bytes(tile))


def test_a_tile_that_is_gone_is_named_and_the_entries_hold(log: WrittenLog) -> None:
    for path in (tile_path(0, 1), tile_path(0, 3, 232), tile_path(1, 0, 3)):
        content = log.tiles.fetch(path)
        for wrong in (None, content[:-1], b""):
            if wrong is None:
                (log.directory / path).unlink()
            else:
                log.write(path, wrong)
            found = only(verified(log))
            assert (found.kind, found.path) == (Kind.TILE, path)
        log.write(path, content)


@pytest.fixture(scope="module")
def tall_log(tmp_path_factory: pytest.TempPathFactory) -> WrittenLog:
    """Three levels of tiles; tests put back what they change."""
    log = WrittenLog(tmp_path_factory.mktemp("tall"))
    log.grow([entry(number) for number in range(256 * 256 + 256 * 3 + 7)])
    return log


@contextmanager
def restoring(log: WrittenLog, *paths: str) -> Iterator[dict[str, bytes]]:
    """Put these files back at the end. Yields what is in them."""
    contents = {path: log.tiles.fetch(path) for path in paths}
    try:
        yield contents
    finally:
        for path, content in contents.items():
            log.write(path, content)


def flipped(content: bytes) -> bytes:
    return bytes([content[0] ^ 1]) + content[1:]


@pytest.mark.parametrize("path", [tile_path(1, 0), tile_path(1, 1, 3), tile_path(2, 0, 1)])
def test_a_higher_tile_that_was_altered_is_named(tall_log: WrittenLog, path: str) -> None:
    with restoring(tall_log, path) as contents:
        tall_log.write(path, flipped(contents[path]))
        found = only(verified(tall_log))
        assert (found.kind, found.path) == (Kind.TILE, path)
        (tall_log.directory / path).unlink()
        found = only(verified(tall_log))
        assert (found.kind, found.path) == (Kind.TILE, path)


def test_several_things_were_altered_at_once(tall_log: WrittenLog) -> None:
    """An entry, the tile of another, and a hash above: each is told apart as long as something proves it."""
    paths = [bundle_path(7), tile_path(0, 9), tile_path(1, 0)]
    with restoring(tall_log, *paths) as contents:
        entries = read(tall_log, 7)
        entries[3] = FORGED
        put(tall_log, 7, entries)
        for path in paths[1:]:
            tall_log.write(path, flipped(contents[path]))
        found = verified(tall_log).findings
    assert [(each.kind, each.first) for each in found[:1]] == [(Kind.CHANGED, 7 * 256 + 3)]
    assert [each.path for each in found[1:]] == [paths[2], paths[1]]


def test_a_branch_that_was_rewritten_up_to_a_level_is_narrowed_to_it(tall_log: WrittenLog) -> None:
    path = tile_path(1, 0)
    with restoring(tall_log, bundle_path(7), tile_path(0, 7), path) as contents:
        entries = read(tall_log, 7)
        entries[3] = FORGED
        put_with_hashes(tall_log, 7, entries)
        root = complete_root(tall_log.tiles.fetch(tile_path(0, 7)))
        tall_log.write(path, contents[path][: 7 * 32] + root + contents[path][8 * 32 :])
        assert first(verified(tall_log)) == (Kind.CHANGED, 0, 65_535, False)
        right = [entry(number) for number in range(tall_log.size)]
        number = 7 * 256 + 3
        assert first(verified(tall_log, hint=hint_of(right))) == (Kind.CHANGED, number, number, True)
    assert verified(tall_log).holds


@pytest.fixture
def long_log(tmp_path: Path) -> WrittenLog:
    """More bundles than are compared at once."""
    log = WrittenLog(tmp_path)
    log.grow([entry(number) for number in range(80 * 256 + 7)])
    return log


@pytest.mark.parametrize(
    ("act", "expected"),
    [
        (lambda entries: entries.pop(300), (Kind.DROPPED, 300, None)),
        (lambda entries: entries.insert(300, FORGED), (Kind.INSERTED, 300, None)),
        (lambda entries: entries.insert(20_000, entries.pop(300)), (Kind.MOVED, 300, 20_000)),
        (lambda entries: entries.insert(300, entries.pop(20_000)), (Kind.MOVED, 20_000, 300)),
        (lambda entries: entries.__setitem__(slice(16_000, 16_900), []), (Kind.DROPPED, 16_000, None)),
    ],
)
def test_every_later_bundle_was_written_anew(
    long_log: WrittenLog, act: Callable[[list[bytes]], object], expected: tuple[Kind, int, int | None]
) -> None:
    """What moved up or down in all later bundles is one finding."""
    entries = [entry(number) for number in range(long_log.size)]
    act(entries)
    rewrite(long_log, entries)
    for index in range(len(entries) // 256, 81):
        put(long_log, index, entries[index * 256 : None if index == 80 else (index + 1) * 256])
        if index * 256 > len(entries):
            (long_log.directory / bundle_path(index, width_in(-1, index, long_log.size))).unlink()
    found = only(verified(long_log))
    assert (found.kind, found.first, found.moved_to) == expected


def test_a_log_that_is_wrong_everywhere_is_not_told_entry_by_entry(long_log: WrittenLog) -> None:
    rewrite(long_log, [b"x" + entry(number) for number in range(long_log.size)])
    found = verified(long_log).findings
    assert [(each.kind, each.first, each.last, each.is_exact) for each in found] == [
        (Kind.CHANGED, 0, 999, True),
        (Kind.CHANGED, 999, long_log.size - 1, False),
    ]


# Checkpoints


def test_a_checkpoint_that_its_key_has_not_signed_proves_nothing(log: WrittenLog) -> None:
    content = log.tiles.fetch("checkpoint")
    stranger = Ed25519Signer(ORIGIN, Ed25519PrivateKey.generate())
    text = Checkpoint(ORIGIN, log.size, log.root).text
    for wrong, why in (
        (content.replace(b"1000", b"1001"), "The signature of"),
        (bytes(signed(text, stranger)), "No key that is known"),
        (bytes(signed(text.replace("5000", "5001"), log.signer)), "is of the log kms.example:5001/audit, not of"),
        (b"", "has no signature"),
        (bytes(signed("hello\n", log.signer)), "three lines"),
    ):
        log.write("checkpoint", wrong)
        verdict = verified(log)
        found = only(verdict)
        assert (found.kind, found.first, verdict.checkpoint) == (Kind.CHECKPOINT, None, None)
        assert why in found.sentence
    (log.directory / "checkpoint").unlink()
    assert only(verified(log)).kind is Kind.CHECKPOINT


def test_an_older_checkpoint_must_be_signed_too(log: WrittenLog) -> None:
    stranger = Ed25519Signer(ORIGIN, Ed25519PrivateKey.generate())
    forged = bytes(signed(Checkpoint(ORIGIN, 5, bytes(32)).text, stranger))
    found = only(verified(log, older=[forged]))
    assert (found.kind, found.first) == (Kind.CHECKPOINT, None)
    assert "older" in found.sentence


@pytest.mark.parametrize(("number", "old_size"), [(3, 5), (100, 256), (300, 700), (999, 1000)])
def test_a_fork_is_found(tmp_path: Path, number: int, old_size: int) -> None:
    """The whole log is written and signed anew, with one entry changed; whoever kept a checkpoint notices."""
    first_log = WrittenLog(tmp_path / "first")
    older = first_log.grow(original()[:old_size])
    log = WrittenLog(tmp_path / "second", first_log.signer)
    entries = original()
    entries[number] = FORGED
    log.grow(entries)
    assert verified(log).holds
    found = only(verified(log, older=[older]))
    assert (found.kind, found.first, found.last, found.is_exact) == (Kind.FORK, 0, old_size - 1, False)
    assert f"does not continue the older checkpoint of {old_size} entries" in found.sentence
    found = only(verified(log, older=[older], hint=hint_of(original())))
    assert (found.kind, found.first, found.last, found.is_exact) == (Kind.FORK, number, number, True)
    assert found.glimpse == Glimpse.of(FORGED)
    assert not only(verified(log, older=[older], hint=hint_of(entries))).is_exact  # a hint of the new history


# Retention


def test_bundles_may_be_missing_where_retention_says_so(log: WrittenLog) -> None:
    for index in (0, 1):
        (log.directory / bundle_path(index)).unlink()
    verdict = verified(log, bundles_from=600)
    assert verdict.holds, verdict.findings
    assert verdict.without_entries == 512
    found = only(verified(log, bundles_from=511))
    assert (found.kind, found.first, found.last) == (Kind.DROPPED, 256, 511)
    found = only(verified(log))
    assert (found.kind, found.first, found.last) == (Kind.DROPPED, 0, 511)


def test_hashes_are_checked_where_the_entries_are_gone(log: WrittenLog) -> None:
    (log.directory / bundle_path(1)).unlink()
    path = tile_path(0, 1)
    tile = log.tiles.fetch(path)
    log.write(path, tile[:320] + bytes(32) + tile[352:])
    assert first(verified(log, bundles_from=600)) == (Kind.CHANGED, 256, 511, False)
    verdict = verified(log, bundles_from=600, hint=hint_of(original()))
    assert (only(verdict).kind, only(verdict).path) == (Kind.TILE, path)
    (log.directory / path).unlink()
    assert first(verified(log, bundles_from=600)) == (Kind.DROPPED, 256, 511, True)


def test_a_bundle_that_retention_has_left_is_checked(log: WrittenLog) -> None:
    entries = read(log, 1)
    entries[44] = FORGED
    put(log, 1, entries)
    (log.directory / bundle_path(0)).unlink()
    assert first(verified(log, bundles_from=600)) == (Kind.CHANGED, 300, 300, True)


# Whatever is done


def edited(entries: list[bytes], at: int, other: int) -> int:
    entries[at] = b"%d!" % other
    return at


def dropped(entries: list[bytes], at: int, other: int) -> int:
    del entries[at]
    return at


def inserted(entries: list[bytes], at: int, other: int) -> int:
    entries.insert(at, b"%d!" % other)
    return at


def exchanged(entries: list[bytes], at: int, other: int) -> int:
    entries[at], entries[other] = entries[other], entries[at]
    return min(at, other)


@given(st.data())
@settings(deadline=None, max_examples=150)
def test_differences_lead_from_one_row_to_the_other(data: st.DataObject) -> None:
    """The first place that differs is the first that is named, whatever was done; equal rows have no differences."""
    row = [leaf_hash(b"%d" % data.draw(st.integers(0, 30))) for _ in range(data.draw(st.integers(0, 30)))]
    there = list(row)
    for _ in range(data.draw(st.integers(0, 5))):
        if there:
            act: Callable[[list[bytes], int, int], int] = data.draw(
                st.sampled_from([edited, dropped, inserted, exchanged])
            )
            places = st.integers(0, len(there) - 1)
            act(there, data.draw(places), data.draw(places))
    found, used, used_there = differences(row, there, most=1000)
    assert (used, used_there) == (len(row), len(there))
    assert bool(found) == (row != there)
    if found:
        pairs = zip(row, there, strict=False)
        differing = next((n for n, (a, b) in enumerate(pairs) if a != b), min(len(row), len(there)))
        named = min(min(each.proven, each.other if each.other is not None else each.proven) for each in found)
        assert named == differing
    kinds = [each.kind for each in found]
    grown_by = kinds.count(Kind.INSERTED) - kinds.count(Kind.DROPPED)
    assert len(there) - len(row) == grown_by


@pytest.mark.parametrize("seed", range(6))
def test_one_byte_anywhere_in_the_files_is_found(log: WrittenLog, seed: int) -> None:
    chance = random.Random(seed)
    needed = [name for name in (log.directory / "tile").rglob("*") if name.is_file() and "002.p" not in str(name)]
    for path in sorted(str(name.relative_to(log.directory)) for name in needed if name.name != "2"):
        with restoring(log, path) as contents:
            content = contents[path]
            at = chance.randrange(len(content))
            other = bytes([content[at] ^ chance.randrange(1, 256)])
            log.write(path, content[:at] + other + content[at + 1 :])
            assert not verified(log).holds, (path, at)
