"""Damaged files: the schema of SQLite, and what the host has seen."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest

from helpers.support import make_key
from kms.config import Settings
from kms.crypto.registry import key_type
from kms.errors import IntegrityFailure, StartError
from kms.vault.accepting import accept
from kms.vault.history import Seen
from kms.vault.host import _COUNTERS, EPOCH
from kms.vault.opening import open_vault


def test_a_damaged_schema_is_a_reason_not_to_start(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path)
    open_vault(settings).close()
    with closing(sqlite3.connect(tmp_path / "kms.db", isolation_level=None)) as connection:
        connection.execute("PRAGMA writable_schema=ON")
        damaged = (
            "UPDATE sqlite_master SET sql = CAST(x'435245415445205441424C45205B6B65F5' AS TEXT) WHERE name = 'keys'"
        )
        assert connection.execute(damaged).rowcount == 1
    with pytest.raises(StartError, match="damaged"):
        open_vault(settings)


@pytest.mark.parametrize("bit", [40, 62, 63])
@pytest.mark.parametrize("word", [EPOCH, EPOCH + 1])
def test_after_an_acceptance_a_damaged_file_of_the_host_does_no_harm(tmp_path: Path, word: int, bit: int) -> None:
    vault = open_vault(Settings(data_dir=tmp_path))
    kind = key_type("xaes-256-gcm")
    vault.host.words[word] ^= 1 << bit

    def make(key_id: str) -> None:
        with vault.change() as change:
            make_key(change, key_id, "user1", kind, kind.generate(), datetime(2026, 1, 1, tzinfo=UTC))

    if word != EPOCH:
        with pytest.raises(IntegrityFailure):
            make("refused")
    accept(vault, "{}")
    make("made")
    with vault.change() as change:
        change.outdated.add("everything")  # whose epoch the database has to store
    assert vault.host.words[EPOCH] < 1 << 63
    vault.require_newest()
    vault.close()


def test_what_another_process_sees_while_the_database_is_accepted_stays_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vault = open_vault(Settings(data_dir=tmp_path))
    begin_anew = vault.host.begin_anew
    word = next(at for at in range(_COUNTERS.start, _COUNTERS.stop) if at != vault.host._own_word())
    newer: list[Seen] = []

    def another_is_faster(seen: Seen, epoch: int, remembered: tuple[int, tuple[int, ...]]) -> None:
        newer.append(Seen(seen.counter + 1, 7))  # a change of another node, which follows the acceptance
        vault.host.words[word] = newer[0].word
        begin_anew(seen, epoch, remembered)

    monkeypatch.setattr(vault.host, "begin_anew", another_is_faster)
    accept(vault, "{}")
    assert vault.host.seen == newer[0]
    with pytest.raises(IntegrityFailure, match="older than what was seen"):
        vault.require_newest()
    vault.close()
