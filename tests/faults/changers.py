"""Many clients that change their keys at once, and write down what was acknowledged."""

from __future__ import annotations

import random
import threading
import time
from dataclasses import dataclass, field
from typing import Any

from faults.connection import Connection, Reply, Unanswered
from faults.ledger import UNKNOWN_OUTCOME, Act, Condition, KeyBook, acts_on
from faults.outcome import Outcome
from faults.site import Site
from helpers.support import b64
from helpers.transfer import wrap

CLIENTS, THREADS_EACH = 6, 4
_IMPORT_SHARE = 0.15
_OPEN_KEYS = 3
_MATERIAL = bytes(range(32))


@dataclass
class Changers:
    """Threads of several clients of one service. They are started and stopped for each round; their books stay.

    `acknowledged_at`: when each acknowledged change of this round began and was answered, on the monotonic clock.
    """

    site: Site
    seed: int
    outcome: Outcome
    tokens: list[str] = field(default_factory=list)
    reader: str = ""
    books: list[KeyBook] = field(default_factory=list)
    acknowledged_at: list[tuple[float, float]] = field(default_factory=list)
    _numbers: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _stopping: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)

    def enrol(self) -> None:
        """Make the clients, and one who is granted the use of their keys."""
        self.tokens = [self.site.user(f"client{number}") for number in range(CLIENTS)]
        self.reader = self.site.user("reader")

    def start(self, round_number: int) -> None:
        """Begin a round."""
        self._stopping.clear()
        self.acknowledged_at = []
        self._threads = [
            threading.Thread(target=self._work, args=(client, f"{self.seed}/{round_number}/{client}/{number}"))
            for client in range(CLIENTS)
            for number in range(THREADS_EACH)
        ]
        for each in self._threads:
            each.daemon = True
            each.start()

    def stop(self) -> None:
        """Let each finish what it is about, and end the round."""
        self._stopping.set()
        for each in self._threads:
            each.join(timeout=120)
            if each.is_alive():
                self.outcome.find("wrong", "a client waits for its answer for two minutes")

    def wait_for(self, count: int, seconds: float = 60) -> None:
        """Wait until so many changes of this round are acknowledged, at most so long."""
        deadline = time.monotonic() + seconds
        while len(self.acknowledged_at) < count and time.monotonic() < deadline:
            time.sleep(0.002)

    def acknowledged_after(self, moment: float, seconds: float = 120) -> float:
        """How long after `moment` the next change was acknowledged that began after it. Raises TimeoutError."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            with self._lock:
                later = [ended for began, ended in self.acknowledged_at if began > moment]
            if later:
                return min(later) - moment
            time.sleep(0.005)
        raise TimeoutError("no change is acknowledged any more: " + self.site.log.read_text(errors="replace")[-3000:])

    def _new_book(self, client: int) -> KeyBook:
        with self._lock:
            self._numbers += 1
            book = KeyBook(f"k{client}-{self._numbers:05d}", client)
            self.books.append(book)
        return book

    def _work(self, client: int, seed: str) -> None:
        chance = random.Random(seed)  # replayed by its seed
        connection = Connection(self.site, self.tokens[client])
        mine = [self._new_book(client) for _ in range(_OPEN_KEYS)]
        while not self._stopping.is_set():
            at = chance.randrange(len(mine))
            if not mine[at].is_open:
                mine[at] = self._new_book(client)
            book = mine[at]
            act = chance.choice(acts_on(book))
            if act.name == "create" and chance.random() < _IMPORT_SHARE:
                act = self._imported(connection, book, act)
            self._carry_out(connection, book, act)
            if book.is_open and book.now.may_encrypt and book.now.versions not in book.sealed:
                self._seal(connection, book, b64(chance.randbytes(12)))
        connection.close()

    def _imported(self, connection: Connection, book: KeyBook, otherwise: Act) -> Act:
        """An import in place of a creation, which takes a wrapping key (a change of its own) before."""
        try:
            given = connection.ask("POST", "/api/v1/keys/import-wrapping-key", {"algorithm": "HPKE"})
        except Unanswered:
            return otherwise
        if not given.is_success:
            return otherwise
        body = {
            "key_id": book.key_id, "wrapping_key_id": given.body["wrapping_key_id"], "format": "raw",
            "wrapped_key": b64(wrap(given.body["public_key"], _MATERIAL, "HPKE")),
        }  # fmt: skip
        return Act("import", "import_key", "POST", "/api/v1/keys/import", body, Condition("active", 1))

    def _carry_out(self, connection: Connection, book: KeyBook, act: Act) -> None:
        began = time.monotonic()
        try:
            reply = connection.ask(act.method, act.path, act.body)
        except Unanswered as unanswered:
            if unanswered.sent:
                book.pending = act.after
                with self._lock:
                    self.outcome.unanswered += 1
            time.sleep(0.02)
            return
        if reply.is_success:
            book.acknowledge(act, reply.request_id)
            if act.name in {"grant", "ungrant"}:
                book.grant_id = reply.body["grant_id"] if act.name == "grant" else ""
            with self._lock:
                self.outcome.acknowledged += 1
                self.acknowledged_at.append((began, time.monotonic()))
            return
        self._refused(book, act, reply)
        time.sleep(0.02)

    def _refused(self, book: KeyBook, act: Act, reply: Reply) -> None:
        with self._lock:
            if reply.status == 503 and reply.problem in {"unavailable", "integrity-failure"}:
                self.outcome.refused += 1
                if UNKNOWN_OUTCOME in reply.body["detail"]:
                    book.pending = act.after
                else:
                    book.refused, book.refusal = act.after, _short(reply.body)
            elif reply.status == 503 and act.name == "create":
                self.outcome.refused += 1
            else:
                self.outcome.find("wrong", f"{act.name} of {book.key_id}: {reply.status} {_short(reply.body)}")
                book.pending = act.after

    def _seal(self, connection: Connection, book: KeyBook, plaintext: str) -> None:
        try:
            reply = connection.ask("POST", f"/api/v1/keys/{book.key_id}/encrypt", {"plaintext": plaintext})
        except Unanswered:
            return
        if reply.is_success:
            book.sealed[int(reply.body["version"])] = reply.body["ciphertext"], plaintext


def _short(body: Any) -> str:
    return str(body)[:300]
