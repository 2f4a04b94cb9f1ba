"""What the index finds is what a plain scan finds; damaged, it is never wrong, and what is missing is found out."""

from __future__ import annotations

import random
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from shutil import copytree, rmtree

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kms.audit import index as index_module
from kms.audit import postings
from kms.audit.entry import SUCCESS, AuditEntry, entry_of, timestamp
from kms.audit.growing import grown
from kms.audit.index import PART_ENTRIES, Index
from kms.audit.index_check import check
from kms.audit.index_file import FORMAT, IndexUnusable
from kms.audit.search import MOST_UNINDEXED, Query, TooFarBehind, search
from kms.audit.tiles import TileMissing, Tiles, bundle_path
from kms.audit.tree import leaf_hash

SIZE = 1500
BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
CLIENTS = ["alice", "bob", "caroline", "dave", None]
KEYS = ["orders", "mail", "backup", None]
OPERATIONS = ["encrypt", "decrypt", "rotate", "issue_token"]
OUTCOMES = [SUCCESS] * 8 + ["key-revoked", "permission-denied"]
SESSIONS = ["5e55", "5e56", None]


def at(second: float) -> str:
    return timestamp(BEGIN + timedelta(seconds=second))


def entry(number: int, **members: object) -> AuditEntry:
    plain = AuditEntry(1, at(number), f"{number:016x}", "encrypt", SUCCESS, "127.0.0.1", "alice")
    return msgspec.structs.replace(plain, **members)


def random_entries(count: int, seed: int = 1) -> list[bytes]:
    """Lines of entries in nearly the order of their times; a few cannot be read."""
    chance = random.Random(seed)
    lines = []
    for number in range(count):
        line = entry(
            number,
            time=at(number + chance.randrange(-300, 300)),
            client_id=chance.choice(CLIENTS),
            key_id=chance.choice(KEYS) if chance.random() < 0.98 else f"rare-{chance.randrange(9)}",
            version=chance.choice([None, 1, 2, 3]),
            operation=chance.choice(OPERATIONS),
            outcome=chance.choice(OUTCOMES),
            target=chance.choice([None, None, "5e55", "bob"]),
            session=chance.choice(SESSIONS),
            credential=chance.choice([None, "access-key:K1"]),
        ).line()
        lines.append(line if chance.random() < 0.995 else chance.choice([b"", b"\xff{", b'{"time":1}', line[:-1]]))
    return lines


class World:
    """A log in a directory and its index."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.lines: list[bytes] = []
        self.index = Index(directory)

    def append(self, lines: Iterable[bytes]) -> None:
        added = list(lines)
        for path, content in grown(Tiles.in_directory(self.directory), self.size, added).files.items():
            (self.directory / path).parent.mkdir(parents=True, exist_ok=True)
            (self.directory / path).write_bytes(content)
        self.lines += added

    @property
    def size(self) -> int:
        return len(self.lines)

    @property
    def file(self) -> Path:
        return self.index.file.path

    def catch_up(self, most: int = 20_480) -> None:
        while self.index.catch_up(self.size, most):
            pass

    def scan(self, query: Query, begin: int = 0) -> list[int]:
        read = ((number, entry_of(line)) for number, line in enumerate(self.lines))
        return [number for number, each in read if number >= begin and each is not None and query.is_met(each)]

    def found(self, query: Query, limit: int = 10_000, most_bundles: int = 1000) -> list[int]:
        """All that is found, in the order of the log; the other way it has to be the same."""
        both = [self._found(query, limit, most_bundles, oldest_first) for oldest_first in (True, False)]
        assert both[0] == both[1][::-1]
        return both[0]

    def _found(self, query: Query, limit: int, most_bundles: int, oldest_first: bool) -> list[int]:
        found: list[int] = []
        cursor = None
        while True:
            page = search(
                self.index,
                query,
                self.size,
                limit,
                oldest_first=oldest_first,
                cursor=cursor,
                most_bundles=most_bundles,
            )
            found += [each.number for each in page.entries]
            assert all(each.line == self.lines[each.number] for each in page.entries)
            assert len(page.entries) <= limit
            cursor = page.next_cursor
            if cursor is None:
                return found

    def require_right(self, begin: int = 0) -> None:
        for query in QUERIES:
            assert self.found(query) == self.scan(query, begin), query


QUERIES = [
    Query(),
    Query(client_id="alice"),
    Query(client_id="nobody"),
    Query(key_id="rare-3"),
    Query(client_id="bob", key_id="rare-3", outcome=SUCCESS),
    Query(key_id="orders", version=3, after=at(500)),
    Query(operation="rotate", outcome="refused"),
    Query(outcome="key-revoked", before=at(300)),
    Query(outcome=SUCCESS, client_id="dave", after=at(200), before=at(900)),
    Query(session="5e55"),
    Query(session="5e55", target="bob"),
    Query(credential="access-key:K1", key_id="mail", version=1),
    Query(request_id=f"{700:016x}"),
    Query(after=at(1200)),
    Query(before=at(-200)),
]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> World:
    """A log of some bundles, indexed, that nobody changes."""
    world = World(tmp_path_factory.mktemp("log"))
    world.append(random_entries(SIZE))
    world.catch_up()
    world.index.close()
    return world


@pytest.fixture
def world(made: World, tmp_path: Path) -> World:
    copy = World(tmp_path / "log")
    copytree(made.directory, copy.directory)
    copy.lines = list(made.lines)
    return copy


def test_searches_find_what_a_scan_finds(made: World) -> None:
    made.require_right()
    pages = Query(client_id="bob", outcome=SUCCESS)
    assert made.found(pages, 7, 1) == made.found(pages, 1, 9) == made.found(pages, 50, 2) == made.scan(pages)
    first = search(made.index, Query(client_id="nobody"), made.size, most_bundles=1)
    assert (first.entries, first.next_cursor) == ([], None)  # no bundle had to be read
    first = search(made.index, Query(), made.size, most_bundles=2)
    assert first.next_cursor == first.entries[-1].number
    assert check(made.index, made.size) is None
    assert made.index.state().size == made.size
    assert made.file.stat().st_mode & 0o777 == 0o600


MEMBERS = {
    "client_id": st.sampled_from([*CLIENTS, "nobody"]),
    "key_id": st.sampled_from([*KEYS, *(f"rare-{number}" for number in range(9))]),
    "version": st.sampled_from([None, 1, 2, 3, 4]),
    "operation": st.sampled_from([None, *OPERATIONS]),
    "outcome": st.sampled_from([None, SUCCESS, "refused", "key-revoked", "no-outcome"]),
    "target": st.sampled_from([None, "bob"]),
    "session": st.sampled_from(SESSIONS),
    "credential": st.sampled_from([None, "access-key:K1"]),
    "after": st.just("") | st.integers(-300, 1800).map(at),
    "before": st.just("") | st.integers(-300, 1800).map(at),
}


def test_where_the_index_does_not_help_a_page_reads_less(made: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kms.audit.search.MOST_BUNDLES_UNINDEXED", 2)
    elsewhere = frozenset({"10.9.9.9"})
    page = search(made.index, Query(sources=elsewhere), made.size)
    assert (page.entries, page.next_cursor) == ([], 1024)
    assert search(made.index, Query(sources=elsewhere, client_id="alice"), made.size).next_cursor is None


@given(st.fixed_dictionaries({}, optional=MEMBERS))
@settings(max_examples=60, deadline=None)
def test_any_combination_of_filters_finds_what_a_scan_finds(made: World, filters: dict[str, object]) -> None:
    query = Query(**filters)  # type: ignore[arg-type]
    page = search(made.index, query, made.size, 10_000)
    assert [each.number for each in reversed(page.entries)] == made.scan(query)


@given(steps=st.lists(st.integers(0, 700), min_size=1, max_size=6), most=st.sampled_from([1, 256, 600, 20_480]))
@settings(max_examples=15, deadline=None)
def test_it_follows_a_log_that_grows(tmp_path_factory: pytest.TempPathFactory, steps: list[int], most: int) -> None:
    world = World(tmp_path_factory.mktemp("growing"))
    for seed, step in enumerate(steps):
        world.append(random_entries(step, seed))
        if seed % 2:
            assert world.index.catch_up(world.size, most) >= 0  # in part; the rest is searched entry by entry
        else:
            world.catch_up(most)
        for query in (Query(client_id="bob"), Query(key_id="mail", outcome=SUCCESS), Query(outcome="refused")):
            assert world.found(query) == world.scan(query)
    world.catch_up(most)
    assert check(world.index, world.size) is None
    world.index.close()


def test_a_log_over_several_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(tmp_path)
    world.append(
        entry(number, client_id="rare" if number % 40_000 == 9 else "hot").line() for number in range(66_000)
    )
    world.catch_up()
    assert world.size > PART_ENTRIES
    assert world.found(Query(client_id="rare")) == [9, 40_009]
    assert [each.number for each in search(world.index, Query(client_id="hot"), world.size, 2).entries] == [
        65999,
        65998,
    ]
    for number in (0, 9, 65_535, 65_536, 65_999):
        assert world.index.number_of(leaf_hash(world.lines[number]), world.size) == number
    world.index.forget_before(65_536 + 300)
    assert world.index.state().begin == 65_536 + 256
    assert world.found(Query()) == list(range(65_536 + 256, 66_000))
    assert check(world.index, world.size) == "The index has forgotten entries before 65792 that the log still has."
    (world.directory / bundle_path(256)).unlink()
    assert check(world.index, world.size) is None


def test_leaf_hashes_are_found_and_compared(world: World) -> None:
    chance = random.Random(3)
    for line in chance.sample(world.lines, 100):
        found = world.index.number_of(leaf_hash(line), world.size)
        assert found is not None
        assert world.lines[found] == line
    leaf = leaf_hash(world.lines[77])
    assert world.index.number_of(leaf[:8] + bytes(24), world.size) is None
    assert world.index.number_of(leaf, 77) is None
    assert world.index.number_of(b"short", world.size) is None


def test_terms_that_collide_find_nothing_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def colliding(kind: postings.Kind, value: str) -> int:
        return 1 + len(value) % 2

    monkeypatch.setattr(postings, "term", colliding)
    monkeypatch.setattr("kms.audit.search.term", colliding)
    world = World(tmp_path)
    world.append(random_entries(600))
    world.catch_up()
    world.require_right()
    assert check(world.index, world.size) is None


def test_a_search_without_an_index_is_a_scan(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.index.discard()
    world.require_right()
    assert not world.file.exists()
    with pytest.raises(IndexUnusable, match="being made"):
        world.index.state()
    monkeypatch.setattr("kms.audit.search.MOST_UNINDEXED", 100)
    with pytest.raises(TooFarBehind, match="1500"):
        search(world.index, Query(), world.size)
    assert MOST_UNINDEXED > 20_480


def damage_by_garbage(file: Path) -> None:
    file.write_bytes(random.Random(2).randbytes(50_000))


def damage_by_truncation(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2 + 100])


def damage_by_emptying(file: Path) -> None:
    file.write_bytes(b"")


def damage_by_zeros(file: Path) -> None:
    content = file.read_bytes()
    file.write_bytes(content[:4096] + bytes(len(content) - 4096))


def damage_by_format(file: Path) -> None:
    altered(f"PRAGMA user_version = {FORMAT + 1}")(file)


def altered(statement: str) -> Callable[[Path], None]:
    def alter(file: Path) -> None:
        database = sqlite3.connect(file)
        with database:
            database.execute(statement)
        database.close()

    return alter


SEEN = [
    damage_by_garbage,
    damage_by_truncation,
    damage_by_emptying,
    damage_by_zeros,
    damage_by_format,
    altered("DROP TABLE postings"),
    altered("DELETE FROM state"),
    altered("UPDATE state SET size = 'many'"),
    altered("UPDATE postings SET places = 'x'"),
    altered("UPDATE postings SET places = x'' WHERE bundle = 2"),
    altered("UPDATE postings SET places = 7"),
    altered("UPDATE spans SET earliest = 5"),
    altered("DELETE FROM spans WHERE bundle = 3"),
]
UNSEEN = [
    altered("UPDATE state SET begin = 256"),
    altered("UPDATE state SET begin = 25600"),
    altered("DELETE FROM postings WHERE bundle = 1"),
    altered("DELETE FROM leaves WHERE place % 256 = 3"),
    altered("UPDATE postings SET places = x'07' WHERE bundle = 0"),
    altered("UPDATE postings SET term = term + 1 WHERE bundle = 4"),
    altered("UPDATE postings SET bundle = 'x' || bundle WHERE bundle = 4"),
    altered("UPDATE leaves SET prefix = prefix + 1 WHERE place = 5"),
    altered("UPDATE spans SET earliest = '9', latest = '9' WHERE bundle = 2"),
    altered("INSERT INTO postings VALUES (0, 1, 2, x'00')"),
    altered("INSERT INTO postings VALUES (9, 1, 2, x'00')"),
    altered("INSERT INTO spans VALUES (-5, '1', '2', x'')"),
    altered("INSERT INTO leaves VALUES ('a', 'b', 'c')"),
]


def found_or_unusable(world: World, query: Query) -> list[int] | None:
    """What is found; None where the index says that it is damaged, which is no answer, and so no wrong one."""
    try:
        return world.found(query)
    except IndexUnusable:
        return None


@pytest.mark.parametrize("damage", [*SEEN, *UNSEEN], ids=range(len(SEEN) + len(UNSEEN)))
def test_a_damaged_index_is_never_wrong_and_is_made_anew(world: World, damage: Callable[[Path], None]) -> None:
    damage(world.file)
    for query in QUERIES:
        found = found_or_unusable(world, query)
        assert found is None or set(found) <= set(world.scan(query))
    if damage in UNSEEN:
        wrong = check(world.index, world.size)
        assert wrong is not None
        assert wrong.startswith("The index")
        world.index.discard()
    world.append(random_entries(10, 5))
    world.catch_up()
    if damage in SEEN[-6:] and check(world.index, world.size) is not None:
        world.index.discard()
        world.catch_up()
    world.require_right()
    assert check(world.index, world.size) is None


FULL_DISK = """
import resource, signal, sys
from pathlib import Path
from kms.audit.index import Index
from kms.audit.index_file import IndexUnusable
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
try:
    Index(Path(sys.argv[1])).state()
except IndexUnusable as unusable:
    print(unusable, unusable.__cause__.sqlite_errorname)
"""


def test_a_disk_without_room_is_no_damage(world: World) -> None:
    world.index.close()
    before = world.file.read_bytes()
    command = [sys.executable, "-c", FULL_DISK, str(world.directory)]
    told = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    assert "cannot be used now" in told and "SQLITE_IOERR" in told
    assert world.file.read_bytes() == before
    world.require_right()


def test_what_a_check_finds_names_the_entries(world: World) -> None:
    altered("DELETE FROM postings WHERE bundle = 4 AND length(places) = 32")(world.file)
    assert check(world.index, world.size) == "The index does not say what the tiles say of the entries 1024 to 1279."


def test_places_that_no_entry_has_are_passed_over(world: World) -> None:
    altered("UPDATE postings SET places = x'" + "ff" * 32 + "' WHERE term != 0")(world.file)
    world.require_right()


def test_the_index_of_another_log_is_made_anew(world: World, tmp_path: Path) -> None:
    other = World(tmp_path / "other")
    other.directory.mkdir()
    other.append(random_entries(1500, 9))
    other.index = Index(other.directory, world.file)
    wrong = check(other.index, other.size)
    assert wrong is not None
    assert "not those of this log" in wrong
    other.catch_up()
    other.require_right()
    assert check(other.index, other.size) is None


def test_the_index_of_a_longer_log_is_made_anew(world: World) -> None:
    rmtree(world.directory / "tile")
    world.lines = []
    world.append(random_entries(700, 3))
    world.catch_up()
    assert world.index.state().size == 700
    world.require_right()
    assert check(world.index, world.size) is None


class Crash(BaseException):
    """The process ends here."""


def test_a_crash_while_it_catches_up_changes_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.append(random_entries(1000, 4))
    before = world.index.state()

    def crash(*given: object) -> bytes:
        raise Crash

    with monkeypatch.context() as patched:
        patched.setattr(index_module, "root_at", lambda size, at: before.root if size == before.size else crash())
        with pytest.raises(Crash):
            world.index.catch_up(world.size)
    assert world.index.state() == before
    world.require_right()
    world.catch_up(512)
    world.require_right()
    assert check(world.index, world.size) is None


KILLED = """
import os, signal, sys
from pathlib import Path
from kms.audit import index
roots, root_at = [], index.root_at
def killed(size, subtree):
    roots.append(size)
    if len(roots) == 6:  # in the third slice, whose rows are written and not committed
        os.kill(os.getpid(), signal.SIGKILL)
    return root_at(size, subtree)
index.root_at = killed
made = index.Index(Path(sys.argv[1]))
while made.catch_up(int(sys.argv[2]), 256):
    pass
"""


def test_a_process_that_is_killed_while_it_catches_up_leaves_whole_slices(world: World) -> None:
    world.index.discard()
    command = [sys.executable, "-c", KILLED, str(world.directory), str(world.size)]
    root = Path(index_module.__file__).parents[2]
    ended = subprocess.run(command, cwd=root, timeout=60, check=False)
    assert ended.returncode == -signal.SIGKILL
    assert world.index.state().size == 512
    assert check(world.index, world.size) is None
    world.require_right()
    world.catch_up()
    assert check(world.index, world.size) is None
    world.require_right()


def test_a_bundle_that_is_missing_stops_it_where_it_is(world: World) -> None:
    world.append(random_entries(2000, 4))
    path = world.directory / bundle_path(9)
    content = path.read_bytes()
    path.unlink()
    with pytest.raises(TileMissing):
        world.catch_up(256)
    assert world.index.state().size == 9 * 256
    path.write_bytes(content)
    world.catch_up()
    world.require_right()


def test_what_retention_dropped_is_forgotten(world: World) -> None:
    world.index.forget_before(700)
    world.index.forget_before(300)  # later than that, and so nothing
    assert world.index.state().begin == 512
    assert world.index.number_of(leaf_hash(world.lines[100]), world.size) is None
    for bundle in (0, 1):
        (world.directory / bundle_path(bundle)).unlink()
    world.require_right(begin=512)
    assert check(world.index, world.size) is None
    world.index.discard()
    world.catch_up()  # it finds out where the log begins
    assert world.index.state().begin == 512
    world.append(random_entries(600, 8))
    world.catch_up()
    world.require_right(begin=512)
    assert check(world.index, world.size) is None


def test_it_is_read_while_it_grows(tmp_path: Path) -> None:
    world = World(tmp_path)
    lines = random_entries(6000, 6)
    world.append(lines)
    expected = world.scan(Query(key_id="mail"))
    done = threading.Event()
    wrong: list[list[int]] = []

    def read() -> None:
        while not done.is_set():
            found = [each.number for each in search(world.index, Query(key_id="mail"), 6000, 10_000).entries]
            if found[::-1] != expected:
                wrong.append(found)

    reader = threading.Thread(target=read)
    reader.start()
    world.catch_up(256)
    done.set()
    reader.join(60)
    assert not wrong
    assert world.found(Query(key_id="mail")) == expected


def test_a_file_that_somebody_removed_is_made_anew(world: World) -> None:
    world.catch_up()
    world.append(random_entries(5))
    world.catch_up()
    Index(world.directory).discard()
    world.append(random_entries(5))
    world.catch_up()
    assert check(world.index, world.size) is None
    world.require_right()
