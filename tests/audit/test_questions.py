"""The questions that people ask the audit log."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import pytest

from kms.audit.entry import SUCCESS, AuditEntry, timestamp
from kms.audit.growing import grown
from kms.audit.index import Index
from kms.audit.questions import Log, TooMuch, asking, novelties, users_of
from kms.audit.search import Query
from kms.audit.tiles import Tiles

T = TypeVar("T")
BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
USES = {"encrypt", "decrypt"}


def day(number: float) -> str:
    return timestamp(BEGIN + timedelta(days=number))


class Story:
    """A log that a test tells entry by entry."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.lines: list[bytes] = []

    def tell(self, when: float, client_id: str, operation: str, key_id: str | None = None, **more: object) -> int:
        made = AuditEntry(1, day(when), f"{len(self.lines):016x}", operation, SUCCESS, "127.0.0.1", client_id, key_id)
        self.lines.append(msgspec.structs.replace(made, **more).line())
        return len(self.lines) - 1

    def filler(self, when: float, count: int) -> None:
        for _ in range(count):
            self.tell(when, "filler", "encrypt", "filler")

    def ask(self, question: Callable[..., T], *more: Any) -> T:
        for path, content in grown(Tiles.in_directory(self.directory), 0, self.lines).files.items():
            (self.directory / path).parent.mkdir(parents=True, exist_ok=True)
            (self.directory / path).write_bytes(content)
        index = Index(self.directory)
        while index.catch_up(len(self.lines)):
            pass
        index.close()
        with asking(index, len(self.lines)) as log:
            return question(log, *more)


def numbers_of_story(log: Log, session: str) -> list[int]:
    return [each.number for each in log.oldest_first(Query(session=session))]


@pytest.fixture
def story(tmp_path: Path) -> Story:
    return Story(tmp_path)


def test_who_used_a_version_of_a_key_since_a_time(story: Story) -> None:
    story.tell(1, "early", "encrypt", "orders", version=3)
    story.filler(2, 300)
    first = story.tell(5, "bob", "decrypt", "orders", version=3)
    story.tell(6, "alice", "encrypt", "orders", version=2)
    story.tell(6, "carol", "encrypt", "orders", version=3, outcome="permission-denied")
    story.filler(7, 300)
    batch = story.tell(7, "dave", "encrypt", "orders", items=5, refused=0)
    last = story.tell(8, "bob", "encrypt", "orders", version=3)
    story.tell(8, "erin", "encrypt", "mail", version=3)
    (bob,) = story.ask(users_of, "orders", 3, day(4))
    assert (bob.client_id, bob.uses, bob.first.number, bob.last.number) == ("bob", 2, first, last)
    assert [each.client_id for each in story.ask(users_of, "orders", 3)] == ["bob", "early"]
    users = story.ask(users_of, "orders", None, day(4))
    assert [each.client_id for each in users] == ["alice", "bob", "dave"]
    assert users[2].first.number == batch


def test_what_a_session_did(story: Story) -> None:
    session, other = "5e" * 12, "0f" * 12
    told = [story.tell(1, "alice", "issue_token", target=session, credential="secret")]
    story.tell(1, "alice", "issue_token", target=other, credential="secret")
    story.filler(1, 300)
    told.append(story.tell(2, "alice", "encrypt", "orders", session=session))
    story.tell(2, "alice", "encrypt", "orders", session=other)
    story.filler(2, 300)
    told.append(story.tell(3, "alice", "decrypt", "mail", session=session, outcome="key-revoked"))
    told.append(story.tell(4, "admin", "end_one_session", target=session, session=other))
    assert story.ask(numbers_of_story, session) == told


def test_what_a_client_did_for_the_first_time(story: Story) -> None:
    story.tell(1, "alice", "encrypt", "orders")
    story.tell(1, "alice", "list_keys")
    story.tell(1, "alice", "export_key", "mail", outcome="permission-denied")
    story.tell(1, "bob", "decrypt", "orders")
    story.filler(1, 600)
    story.tell(11, "alice", "encrypt", "orders")
    new = story.tell(11, "alice", "decrypt", "orders")
    story.tell(12, "alice", "decrypt", "orders")
    mail = story.tell(13, "alice", "export_key", "mail")
    story.tell(14, "alice", "list_keys")
    aliases = story.tell(15, "alice", "list_aliases")
    story.tell(16, "alice", "destroy_key", "mail", outcome="permission-denied")
    found = story.ask(novelties, "alice", day(10), 99)
    assert [(each.operation, each.key_id, each.first.number) for each in found] == [
        ("decrypt", "orders", new),
        ("export_key", "mail", mail),
        ("list_aliases", None, aliases),
    ]
    assert story.ask(novelties, "alice", day(20), 99) == []
    assert len(story.ask(novelties, "alice", "", 99)) == 5


def test_what_would_take_too_long_is_refused(story: Story) -> None:
    for number in range(3):
        story.tell(11, "alice", "encrypt", f"orders-{number}")
        story.filler(11, 256)
    with pytest.raises(TooMuch):
        story.ask(novelties, "alice", day(10), 2)
    assert len(story.ask(novelties, "alice", day(10), 3)) == 3
    story.tell(12, "alice", "encrypt", "orders-1")
    assert len(story.ask(novelties, "alice", day(11.5), 3)) == 0
    with pytest.raises(TooMuch):  # what came before is looked through within the same limit
        story.ask(novelties, "alice", day(11.5), 1)
