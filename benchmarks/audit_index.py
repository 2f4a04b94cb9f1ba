"""What the index of the audit log costs, and how long searches in a long log take.

    python -m benchmarks.audit_index [ENTRIES]

makes a log of that many entries (1,000,000) like those of a service with 60 clients, 2,000 keys and 300 sessions, and
indexes it as the folding process does. It prints the processor time per entry and, for each kind of search, how long
it took at the median and at worst, and how long the processor was busy with it. The log lies in the directory for
temporary files (TMPDIR).
"""

from __future__ import annotations

import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sized
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from kms.audit.entry import SUCCESS, AuditEntry, timestamp
from kms.audit.growing import grown
from kms.audit.index import Index
from kms.audit.index_check import check
from kms.audit.questions import MOST_BUNDLES, Log, asking, novelties, users_of
from kms.audit.search import Query, search
from kms.audit.tiles import Tiles
from kms.audit.tree import leaf_hash

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
AT_ONCE = 20_480
OPERATIONS = ("encrypt", "decrypt", "sign", "verify", "generate_data_key", "mac", "get_key", "issue_token", "rotate")
WEIGHTS = (300, 300, 100, 80, 100, 50, 20, 5, 1)


def entries(count: int, seed: int = 17) -> Iterator[bytes]:
    """Lines of entries, 30 a second, with hot and rare clients and keys."""
    chance = random.Random(seed)
    for number in range(count):
        client = min(int(chance.expovariate(0.08)), 59)
        key = 0 if chance.random() < 0.1 else min(int(chance.expovariate(0.004)), 1999)
        operation = chance.choices(OPERATIONS, WEIGHTS)[0]
        is_refused = chance.random() < 0.02
        is_log_in = operation == "issue_token"
        yield AuditEntry(
            1,
            timestamp(BEGIN + timedelta(seconds=number / 30, microseconds=chance.randrange(20_000))),
            f"{chance.getrandbits(64):016x}",
            operation,
            chance.choice(("key-revoked", "permission-denied", "rate-limited")) if is_refused else SUCCESS,
            f"10.0.{client}.{chance.randrange(8)}",
            f"client-{client:02d}",
            None if is_log_in else f"key-{key:04d}",
            None if is_log_in else 1 + number * 5 // count,
            f"{chance.getrandbits(96):024x}" if is_log_in else None,
            credential="secret" if is_log_in else None,
            session=None if is_log_in else f"{client * 5 + chance.randrange(5):024x}",
        ).line()


def write_log(directory: Path, count: int) -> int:
    """A log of so many entries; returns the mean length of an entry in bytes."""
    lines, size, length = entries(count), 0, 0
    while batch := [line for _, line in zip(range(AT_ONCE), lines, strict=False)]:
        growth = grown(Tiles.in_directory(directory), size, batch)
        for path, content in growth.files.items():
            (directory / path).parent.mkdir(parents=True, exist_ok=True)
            (directory / path).write_bytes(content)
        size, length = growth.size, length + sum(map(len, batch))
    return length // count


def measured(name: str, act: Callable[[], int], times: int = 5) -> None:
    """Print how long `act`, which returns what it found, takes."""
    seconds, of_processor = [], []
    for _ in range(times):
        began, processor = time.perf_counter(), time.process_time()
        found = act()
        of_processor.append(time.process_time() - processor)
        seconds.append(time.perf_counter() - began)
    median, worst, busy = (1e3 * each for each in (statistics.median(seconds), max(seconds), min(of_processor)))
    print(
        f"{name:54} {found:6} found {median:8.1f} ms {worst:8.1f} ms worst {busy:8.1f} ms of the processor",
        flush=True,
    )


def asked(index: Index, size: int, ask: Callable[[Log], Sized]) -> int:
    """How much the answer to a question is."""
    with asking(index, size) as log:
        return len(ask(log))


def main(count: int, directory: Path) -> None:
    """Measure, and print what came of it."""
    began = time.perf_counter()
    length = write_log(directory, count)
    print(f"{count} entries of {length} bytes, written in {time.perf_counter() - began:.0f} s")
    index = Index(directory)
    took: list[float] = []
    for end in range(AT_ONCE, count + AT_ONCE, AT_ONCE):
        began_at = time.process_time()
        while index.catch_up(min(end, count)):
            pass
        took.append(time.process_time() - began_at)
    total, bytes_used = sum(took), (directory / "index.db").stat().st_size
    print(
        f"indexed with {count / total:,.0f} entries per second of one core, {bytes_used / count:.0f} bytes an entry;"
    )
    print(f"of 20,000 entries a second: {20_000 * total / count:.1%} of a core, {max(took):.3f} s in the worst fold")
    hot, rare = Query(client_id="client-00", key_id="key-0000"), Query(client_id="client-58", key_id="key-1500")
    late, early = (timestamp(BEGIN + timedelta(seconds=count / 30 * part)) for part in (0.99, 0.01))
    last = (directory / "tile").exists() and next(iter(search(index, Query(), count, 1).entries))
    assert last
    for name, query in {
        "newest": Query(),
        "hot client": Query(client_id="client-00"),
        "rare client": Query(client_id="client-59"),
        "hot key": Query(key_id="key-0000"),
        "rare key": Query(key_id="key-1700"),
        "old version of a hot key": Query(key_id="key-0000", version=1),
        "operation": Query(operation="rotate"),
        "refused": Query(outcome="refused"),
        "one outcome": Query(outcome="key-revoked"),
        "session": Query(session=f"{7:024x}"),
        "hot client and key": hot,
        "hot client and rare key": Query(client_id="client-00", key_id="key-1900"),
        "rare client and key": rare,
        "client, key, operation, refused": replace(hot, operation="sign", outcome="refused"),
        "only hot terms, nothing": Query(client_id="client-00", operation="encrypt", outcome=SUCCESS, target="x"),
        "hot terms that exclude each other": replace(hot, operation="issue_token", outcome=SUCCESS),
        "hot terms, nothing by a request id": replace(hot, operation="encrypt", request_id="0"),
        "after": Query(after=late),
        "before": Query(before=early),
        "hot client, before": Query(client_id="client-00", before=early),
        "hot terms, a time that matches nothing": replace(hot, after=late, before=late),
        "request id": Query(request_id=last.entry.request_id),
        "request id, nothing": Query(request_id="0"),
    }.items():
        for oldest_first in (False, True):
            way = "oldest" if oldest_first else "newest"
            measured(
                f"{name}, {way} 100",
                lambda query=query, oldest_first=oldest_first: len(  # type: ignore[misc]
                    search(index, query, count, oldest_first=oldest_first).entries
                ),
            )
    measured(
        "hot client, newest 10,000", lambda: len(search(index, Query(client_id="client-00"), count, 10_000).entries)
    )
    measured("leaf hash", lambda: int(index.number_of(leaf_hash(last.line), count) is not None))
    middle = timestamp(BEGIN + timedelta(seconds=count / 60))
    for name, ask in {
        "who used version 3 of a hot key": lambda log: users_of(log, "key-0000", 3),
        "what a session did": lambda log: list(log.oldest_first(Query(session=f"{7:024x}"))),
        "what a hot client did first in the last hundredth": lambda log: novelties(
            log, "client-00", late, MOST_BUNDLES
        ),
        "what a rare client did first": lambda log: novelties(log, "client-50", middle, MOST_BUNDLES),
    }.items():
        measured(name, lambda ask=ask: asked(index, count, ask), 3)  # type: ignore[misc]
    measured("the index compared with the tiles", lambda: int(check(index, count) is not None), 1)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        main(int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000, Path(temporary))
