"""The socket of a sealed service: who may use it, and what it does with what it cannot read."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from multiprocessing import get_context
from pathlib import Path

import pytest

from helpers.running import wait_until
from kms.unseal_socket import Answer, Question, ask, serve
from kms.vault.keyset import Keyset, new_secret
from kms.vault.keyslots import SealRecord, context
from kms.vault.rows import Keyslot
from kms.vault.seals.base import wrap_with
from kms.vault.shares import Share, split
from kms.vault.unsealing import Unsealing

NOBODY = 65534


class Sealed:
    """A vault that three shares open, and a socket that takes them."""

    def __init__(self, directory: Path) -> None:
        key, self.keyset = new_secret(), Keyset.new()
        share_set, self.shares = split(key, shares=5, threshold=3)
        record = SealRecord("shamir", share_set.parameters()).encoded()
        slot = Keyslot("seal", record, wrap_with(key, self.keyset.encoded(), context(b"id", record)))
        self.slots = [slot]
        self.unsealing = Unsealing(self.slots, b"id")
        self.directory = directory
        self.said: list[str] = []
        self.thread = threading.Thread(target=serve, args=(directory, self.unsealing, self.said.append), daemon=True)
        self.thread.start()
        wait_until((directory / "unseal.sock").exists)

    def give(self, share: Share) -> Answer:
        """Give a share."""
        return ask(self.directory, Question(share=share.encoded()))


@pytest.fixture
def sealed(tmp_path: Path) -> Iterator[Sealed]:
    """One whose path is longer than a socket's may be."""
    directory = tmp_path / ("long" * 40)
    directory.mkdir(mode=0o700)
    made = Sealed(directory)
    yield made
    for each in made.shares:
        if made.thread.is_alive() and not made.unsealing.is_done:
            made.give(each)
    made.thread.join(30)


def test_shares_are_taken_until_there_are_enough(sealed: Sealed) -> None:
    first, second, third, *_ = sealed.shares
    assert ask(sealed.directory, Question()) == Answer("sealed: 0 of 3 shares given")
    assert sealed.give(first) == Answer("sealed: 1 of 3 shares given")
    refused = sealed.give(first).refused
    assert refused is not None
    assert "Share 1 was given already" in refused
    assert ask(sealed.directory, Question(share="x" * 3000)).refused is not None
    assert ask(sealed.directory, Question(reset=True)) == Answer("sealed: 0 of 3 shares given")
    for share in (third, first):
        sealed.give(share)
    assert sealed.give(second) == Answer("unsealed")
    sealed.thread.join(30)
    assert not (sealed.directory / "unseal.sock").exists()
    with pytest.raises(FileNotFoundError):
        ask(sealed.directory, Question())
    assert sealed.unsealing(sealed.slots, b"id") == sealed.keyset
    assert not any(each.encoded()[30:] in "".join(sealed.said) for each in sealed.shares)


def test_there_is_no_socket_before_it_can_be_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listen, was_there = socket.socket.listen, list[bool]()

    def looking(listening: socket.socket, backlog: int) -> None:
        was_there.append((tmp_path / "unseal.sock").exists())
        listen(listening, backlog)

    monkeypatch.setattr(socket.socket, "listen", looking)
    sealed = Sealed(tmp_path)
    for share in sealed.shares[:3]:
        sealed.give(share)
    sealed.thread.join(30)
    assert was_there == [False]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
def test_another_user_is_refused_even_where_the_files_let_him_in(sealed: Sealed) -> None:
    for path in (each for each in (sealed.directory, *sealed.directory.parents) if "pytest-of-" in str(each)):
        path.chmod(0o755)
    (sealed.directory / "unseal.sock").chmod(0o666)
    receiving, sending = get_context("fork").Pipe(duplex=False)

    def try_as_nobody() -> None:
        os.setuid(NOBODY)
        with socket.socket(socket.AF_UNIX) as connection:
            os.chdir(sealed.directory)
            connection.connect("unseal.sock")
            sending.send(connection.makefile("rb").readline())

    child = get_context("fork").Process(target=try_as_nobody)
    child.start()
    assert receiving.poll(30)
    assert b"Only the user of the service, and root" in receiving.recv()
    child.join(30)
    assert ask(sealed.directory, Question()).progress == "sealed: 0 of 3 shares given"
