"""The keyset that the processes of a host share: several learn at once, and any of them may die as it does."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from dataclasses import replace

import pytest

from kms.vault.keyset import Keyset, new_secret
from kms.vault.unsealed import Unsealed

_forked = multiprocessing.get_context("fork")  # as the service makes its workers; others would not share the page
KEYSETS = 1000
FIRST = Keyset.new()


def keyset(number: int) -> Keyset:
    """With two root keys while a change is under way, and with one after it."""
    both = replace(FIRST, root_keys={number // 2 + 1: new_secret(), number // 2 + 2: new_secret()})
    return both.since(both.newest) if number % 2 else both


def age(found: Keyset) -> tuple[int, int]:
    return found.newest, found.oldest


def in_processes(count: int, work: Callable[[], None]) -> list[int | None]:
    """Have `work` done by so many processes that begin at the same moment; their exit codes."""
    together = _forked.Barrier(count)

    def run() -> None:
        together.wait(timeout=60)
        work()

    processes = [_forked.Process(target=run) for _ in range(count)]
    for each in processes:
        each.start()
    for each in processes:
        each.join(timeout=60)
    return [each.exitcode for each in processes]


def test_processes_that_learn_at_once_never_take_a_keyset_back() -> None:
    shared = Unsealed(FIRST)
    every = [keyset(number) for number in range(1, KEYSETS)]

    def learn_and_look() -> None:
        seen = 0, 0
        for each in every:
            shared.learn(each)
            found = age(shared.keyset())
            assert found >= max(seen, age(each))
            seen = found

    assert in_processes(4, learn_and_look) == [0] * 4
    assert age(shared.keyset()) == age(every[-1])


class _Slow(Keyset):
    """One that lets others learn between the look at what is there and the writing."""

    meanwhile: Callable[[], object]

    def encoded(self) -> bytes:
        self.meanwhile()
        return super().encoded()


def test_an_older_keyset_does_not_take_the_place_of_one_that_another_process_has_just_learned() -> None:
    shared = Unsealed(FIRST)
    is_at_it, other_is_done = _forked.Event(), _forked.Event()

    def learn_slowly() -> None:
        older = keyset(3)
        slow = _Slow(older.root_keys, older.credential_key, older.digest_key, older.backup_key)
        object.__setattr__(slow, "meanwhile", lambda: (is_at_it.set(), other_is_done.wait(0.5)))
        shared.learn(slow)

    process = _forked.Process(target=learn_slowly)
    process.start()
    assert is_at_it.wait(30)
    shared.learn(keyset(9))
    other_is_done.set()
    process.join()
    assert process.exitcode == 0
    assert age(shared.keyset()) == age(keyset(9))


def test_a_process_that_is_killed_as_it_learns_neither_keeps_the_turn_nor_takes_the_keyset_with_it() -> None:
    shared = Unsealed(FIRST)

    def learn() -> None:
        for number in range(1, 1_000_000):
            shared.learn(keyset(number))

    for _ in range(20):
        process = _forked.Process(target=learn)
        process.start()
        before = age(shared.keyset())
        deadline = time.monotonic() + 30
        while age(shared.keyset()) == before and time.monotonic() < deadline:
            pass
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        after = shared.keyset()
        following = after.plus(after.newest + 1, new_secret())
        shared.learn(following)
        assert age(shared.keyset()) == age(following)
        shared = Unsealed(FIRST)  # the next one begins at the first again


@pytest.mark.parametrize("learned", [1, 2])
def test_a_write_that_was_cut_off_leaves_the_keyset_of_before(learned: int) -> None:
    shared = Unsealed(FIRST)
    for number in range(1, 1 + learned):
        shared.learn(keyset(number))
    before = shared.keyset()
    free = 0 if not any(shared._page[:2048]) else 2048
    shared._page[free : free + 60] = (200).to_bytes(4) + os.urandom(56)  # where the next one is written to
    assert age(shared.keyset()) == age(before)
    shared.learn(keyset(9))
    assert age(shared.keyset()) == age(keyset(9))


def test_what_was_retired_is_not_in_the_page_any_more() -> None:
    retired = new_secret()
    shared = Unsealed(FIRST.plus(2, retired))
    assert retired.reveal() in bytes(shared._page)
    shared.learn(FIRST.plus(2, retired).plus(3, new_secret()).since(3))
    assert retired.reveal() not in bytes(shared._page)


def test_a_keyset_that_does_not_fit_is_refused() -> None:
    shared = Unsealed(FIRST)
    many = FIRST
    for number in range(2, 200):
        many = many.plus(number, new_secret())
    with pytest.raises(ValueError, match="too many"):
        shared.learn(many)
    assert age(shared.keyset()) == age(FIRST)
    shared.learn(keyset(9))  # and the turn was given back
    assert age(shared.keyset()) == age(keyset(9))
