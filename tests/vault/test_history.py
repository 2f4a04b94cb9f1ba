"""Changes that a failover lost are noticed, also once others have made as many."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import delete, insert, select

from helpers.backups import backup_of, restored
from helpers.support import new_database
from kms.config import Settings
from kms.errors import IntegrityFailure
from kms.vault import opening, store, tables
from kms.vault.accepting import accept
from kms.vault.change import Change
from kms.vault.head import ACCEPTED_BEYOND, Head
from kms.vault.history import FIRST_BRANCH, NOT_KNOWN, Seen, Switch, timeline_of
from kms.vault.memory import Memory
from kms.vault.opening import open_vault
from kms.vault.store import Vault

Rows = dict[str, list[dict[str, Any]]]


@dataclass
class Server:
    """A database whose timeline is steered, and which goes back to what it was. It is of SQLite, which is fast."""

    url: str
    folder: Path
    timeline: int = 1
    vaults: list[Vault] = field(default_factory=list)

    def node(self, name: str) -> Vault:
        """A node's vault, without a thread that reads."""
        folder = self.folder / name
        if self.vaults and not folder.exists():
            folder.mkdir(mode=0o700)
            shutil.copy(self.folder / "a" / "root.key", folder)
        self.vaults.append(open_vault(Settings(data_dir=folder, database_url=self.url)))
        self.vaults[-1].lease_seconds = 0.01
        return self.vaults[-1]

    def kept(self) -> Rows:
        """What a replica has."""
        with self.vaults[0].engine.connect() as connection:
            rows = {each.name: connection.execute(select(each)).mappings() for each in tables.metadata.sorted_tables}
            return {name: [dict(row) for row in found] for name, found in rows.items()}

    def fail_over(self, kept: Rows) -> None:
        """A replica that has `kept` is promoted."""
        self.timeline += 1
        writing = self.vaults[0].engine.connect().execution_options(kms_writes=True)
        with writing as connection, connection.begin():
            for table in tables.metadata.sorted_tables:
                connection.execute(delete(table))
                if kept[table.name]:
                    connection.execute(insert(table), kept[table.name])


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    made = Server(f"sqlite:///{tmp_path / 'shared.db'}", tmp_path)
    ask = Change.locked_head

    def locked_head(change: Change, node_id: str = "", *, asks_timeline: bool = False) -> tuple[bytes, bool, int]:
        return *ask(change, node_id)[:2], made.timeline if asks_timeline else NOT_KNOWN

    monkeypatch.setattr(Change, "locked_head", locked_head)
    for module in (store, opening):
        monkeypatch.setattr(module, "timeline_of", lambda _: made.timeline)
    made.node("a")
    yield made
    for vault in made.vaults:
        vault.close()


def commit(vault: Vault, times: int = 1) -> None:
    for _ in range(times):
        with vault.change() as made:
            made.outdated.add("something")


def head_of(vault: Vault) -> Head:
    with vault.read() as snapshot:
        return snapshot.head()


def by_a_change(vault: Vault) -> Callable[[], None]:
    return lambda: commit(vault)


def by_its_memory(vault: Vault) -> Callable[[], None]:
    memory = Memory(vault)
    commit(vault)
    memory.renew()  # joins
    memory.renew()
    return memory.renew


def by_its_file(vault: Vault) -> Callable[[], None]:
    return vault.require_newest


@pytest.mark.parametrize("looks", [by_a_change, by_its_memory, by_its_file])
@pytest.mark.parametrize("made_since", [1, 2, 6])
def test_lost_changes_are_noticed_however_many_were_made_since(
    server: Server, looks: Callable[[Vault], Callable[[], None]], made_since: int
) -> None:
    (first,) = server.vaults
    look = looks(first)
    kept = server.kept()
    at = head_of(first).counter
    commit(first, 2)
    if looks is by_its_memory:
        look()
    server.fail_over(kept)
    commit(server.node("b"), made_since)
    older = made_since < 2
    said = "older than what was seen" if older else f"lost changes {at + 1} to {at + 2} that this node saw"
    with pytest.raises(IntegrityFailure, match=said):
        look()
    before = head_of(first)
    with pytest.raises(IntegrityFailure):
        commit(first)
    assert head_of(first) == before


def test_a_restart_in_between_forgets_nothing(server: Server) -> None:
    (first,) = server.vaults
    server.node("b")
    commit(first)
    kept = server.kept()
    commit(first, 2)
    first.host.close()
    first.engine.dispose()
    server.vaults.pop(0)
    server.fail_over(kept)
    commit(server.vaults[0], 5)
    with pytest.raises(IntegrityFailure, match="lost changes"):
        commit(server.node("a"))


def test_who_saw_nothing_of_what_was_lost_goes_on(server: Server) -> None:
    (first,) = server.vaults
    second = server.node("b")
    commit(second)
    kept = server.kept()
    commit(first)
    server.fail_over(kept)
    commit(second, 3)
    second.require_newest()
    assert [switch.timeline for switch in head_of(second).switches] == [2]


def test_a_failover_that_loses_nothing_is_none_to_anybody(server: Server) -> None:
    (first,) = server.vaults
    second = server.node("b")
    for each in range(20):
        commit(first)
        server.fail_over(server.kept())
        commit(second, 1 + each % 2)
    commit(first)
    assert [switch.timeline for switch in head_of(first).switches] == list(range(6, 22))


def test_two_failovers_in_a_row(server: Server) -> None:
    (first,) = server.vaults
    second, third = server.node("b"), server.node("c")
    commit(third)
    kept = server.kept()
    commit(first)
    server.fail_over(kept)
    commit(second)
    server.fail_over(kept)
    commit(third, 5)
    for each in (first, second):
        with pytest.raises(IntegrityFailure, match="lost changes"):
            commit(each)


def test_two_replicas_that_chose_the_same_timeline(server: Server) -> None:
    (first,) = server.vaults
    second = server.node("b")
    kept = server.kept()
    server.fail_over(kept)
    commit(first, 2)
    server.timeline = 1
    server.fail_over(kept)
    commit(second, 4)
    with pytest.raises(IntegrityFailure, match="lost changes"):
        commit(first)


@pytest.mark.parametrize("looks", [by_a_change, by_its_memory, by_its_file])
def test_a_former_primary_that_went_on_is_noticed(
    server: Server, looks: Callable[[Vault], Callable[[], None]]
) -> None:
    """Its counter is further than what the node saw on the new primary, and it knows of no failover."""
    (first,) = server.vaults
    commit(first)
    kept = server.kept()
    server.fail_over(kept)
    commit(first)
    look = looks(first)
    if looks is by_its_memory:
        look()
    server.fail_over(kept)
    server.timeline = 1  # the former primary is back
    commit(server.node("b"), 9)
    assert head_of(first).switches == ()
    before = head_of(first)
    with pytest.raises(IntegrityFailure, match="it is a former primary"):
        look()
    with pytest.raises(IntegrityFailure):
        commit(first)
    assert head_of(first) == before


def test_a_replica_of_a_former_primary_is_noticed(server: Server) -> None:
    (first,) = server.vaults
    kept = server.kept()
    server.fail_over(kept)
    commit(first)
    server.fail_over(kept)
    server.timeline = 1
    commit(server.node("b"), 5)
    server.timeline = 2
    server.fail_over(server.kept())
    commit(server.node("c"))
    with pytest.raises(IntegrityFailure, match="it is a former primary"):
        commit(first)


def test_who_was_away_for_more_failovers_than_are_kept_goes_on(server: Server) -> None:
    (first,) = server.vaults
    second = server.node("b")
    server.fail_over(server.kept())
    commit(first)  # and so it has seen the first switch
    for _ in range(20):
        server.fail_over(server.kept())
        commit(second, 2)
    assert first.host.seen.branch not in [switch.branch for switch in head_of(second).switches]
    commit(first)


def test_a_release_that_forgets_the_switches_causes_no_alarm(server: Server) -> None:
    (first,) = server.vaults
    second = server.node("b")
    server.fail_over(server.kept())
    commit(first)
    commit(second)

    def without_history(**more: Any) -> None:
        """As a release from before there was a history writes it."""
        with second.engine.connect().execution_options(kms_writes=True) as connection, connection.begin():
            head = replace(head_of(second), switches=(), history_from=None, **more)
            connection.execute(tables.head.update().values(sealed=head.sealed(second.derived_keys)))

    without_history(counter=head_of(second).counter + 1)
    commit(first)
    without_history(counter=head_of(second).counter + 1)
    commit(second)
    for each in (first, second):
        each.require_newest()
        commit(each)


def test_an_accepted_database_is_trusted_by_all_again(server: Server) -> None:
    (first,) = server.vaults
    second = server.node("b")
    kept = server.kept()
    commit(first, 2)
    server.fail_over(kept)
    commit(second, 4)
    with pytest.raises(IntegrityFailure, match="lost changes"):
        first.require_newest()
    accept(first, "{}")
    for each in (first, second, first):
        commit(each)
        each.require_newest()
    assert head_of(first).counter > ACCEPTED_BEYOND


def test_a_rollback_that_was_accepted_is_trusted_by_all_again(server: Server, tmp_path: Path) -> None:
    (first,) = server.vaults
    second = server.node("b")
    server.fail_over(server.kept())
    commit(first)
    backup = backup_of(first)
    server.fail_over(server.kept())
    for each in (first, second):
        commit(each)
    for each in (first, second):
        each.close()
    server.vaults.clear()
    url = f"sqlite:///{tmp_path / 'restored.db'}"
    restored(Settings(data_dir=tmp_path / "a", database_url=url), backup, accepting=True)
    after = Server(url, tmp_path, vaults=server.vaults)
    for name in ("b", "a", "b"):
        commit(after.node(name))


def test_an_acceptance_that_a_failover_lost_does_not_lend_its_epochs_to_the_next(server: Server) -> None:
    (first,) = server.vaults
    second = server.node("b")
    commit(first)
    kept = server.kept()
    accept(first, "{}")
    commit(first)
    lost = head_of(first)
    second.host.saw(lost.seen)  # as its memory does; that announces no epoch
    server.fail_over(kept)
    accept(second, "{}")
    # What `first` remembers of the lost epochs it would take for what is valid at the same epochs now.
    assert head_of(second).epoch > lost.epoch
    assert head_of(second).counter > lost.counter


def test_a_cluster_that_was_promoted_before_is_no_failover(server: Server) -> None:
    server.timeline = 7
    (first,) = server.vaults
    at = head_of(first).counter
    commit(first, 2)
    (switch,) = head_of(first).switches
    assert (switch.timeline, switch.counter) == (7, at)


def test_a_host_of_an_older_release_knows_no_branch(server: Server) -> None:
    (first,) = server.vaults
    kept = server.kept()
    commit(first, 2)
    for at in range(128, 512):
        first.host.words[at] = 0  # as its file was then
    assert first.host.seen == Seen(0, NOT_KNOWN)
    assert first.host.counter == head_of(first).counter
    server.fail_over(kept)
    second = server.node("b")
    commit(second, 4)
    commit(first)


def test_the_word_of_a_host_grows_with_the_counter() -> None:
    some = [Seen(0, 65535), Seen(1, 1), Seen(1, 2), Seen((1 << 48) - 1, 65535)]
    assert [Seen.in_word(each.word) for each in some] == some
    assert sorted(some, key=lambda each: each.word) == some
    assert some[-1].word < 1 << 64
    assert Seen(1 << 48, 1).word == 0
    assert all(FIRST_BRANCH < Switch.to(2, 1).branch < 1 << 16 for _ in range(200))


def test_a_real_server_tells_its_timeline_to_an_ordinary_owner(postgres: str, tmp_path: Path) -> None:
    vault = open_vault(Settings(data_dir=tmp_path, database_url=new_database(postgres)))
    commit(vault)
    assert vault._tells_timeline
    assert head_of(vault).switches == ()
    with vault.engine.connect() as connection, connection.begin():
        connection.exec_driver_sql("CREATE ROLE timeline_asker")
        connection.exec_driver_sql("SET LOCAL ROLE timeline_asker")
        assert timeline_of(connection) == 1
        connection.exec_driver_sql("RESET ROLE")
        connection.exec_driver_sql("REVOKE EXECUTE ON FUNCTION pg_current_wal_insert_lsn() FROM PUBLIC")
        connection.exec_driver_sql("SET LOCAL ROLE timeline_asker")
        assert timeline_of(connection) == NOT_KNOWN
        assert connection.exec_driver_sql("SELECT 1").scalar_one() == 1
        connection.rollback()
    vault.close()


def test_sqlite_has_none(tmp_path: Path) -> None:
    vault = open_vault(Settings(data_dir=tmp_path))
    commit(vault)
    assert head_of(vault).switches == ()
    vault.close()
