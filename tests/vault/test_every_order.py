"""A change commits, workers read and use, hosts stop, die and come back, rows are pruned: in every order.

Hypothesis drives the real vault, memories, host files and nodes of two hosts with two workers each on one database.
Only the clock is ours, and no thread runs: whenever something would wait, other steps are taken in between. The
promise: a use that began after a change had answered never acts on what was before.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test
from sqlalchemy import delete

from kms.config import Settings
from kms.errors import Refusal
from kms.vault import memory, names, nodes, queue, store, tables
from kms.vault.memory import Cache, Memory
from kms.vault.opening import open_vault
from kms.vault.rows import Mount
from kms.vault.store import Vault

LEASE = timedelta(milliseconds=250)
NOW = datetime(2026, 1, 1, tzinfo=UTC)
THINGS = ["a", "b"]
HOSTS = range(2)
WORKERS = range(4)  # of host `worker // 2`


class Worker:
    """One process: its own vault, memory and cache."""

    def __init__(self, data_dir: Path, database: str) -> None:
        self.vault: Vault = open_vault(Settings(data_dir=data_dir, database_url=database, lease=LEASE))
        self.memory = Memory(self.vault)
        self.cache: Cache[str, int] = Cache(self.memory, 10)

    def close(self) -> None:
        self.vault.memories.clear()
        self.vault.close()


class Orders(RuleBasedStateMachine):
    """The steps, and what must hold."""

    template: Path

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="kms-orders-"))
        shutil.copytree(self.template, self.folder / "host0")
        (self.folder / "host1").mkdir(mode=0o700)
        shutil.copy(self.template / "root.key", self.folder / "host1")
        self.time = 1000.0
        self.depth = 0
        self.answered = dict.fromkeys(THINGS, 0)
        self.written = dict.fromkeys(THINGS, 0)
        self.stopped: set[int] = set()
        self.absent: set[int] = set()
        clock = mock.patch.multiple
        self.patches = [
            clock(memory, steady_seconds=lambda: self.time),
            clock(nodes, steady_seconds=lambda: self.time),
            clock(queue, steady_seconds=lambda: self.time),
            clock(store, steady_seconds=lambda: self.time),
            mock.patch.object(store.time, "sleep", self.wait),
        ]
        for patch in self.patches:
            patch.start()
        database = f"sqlite:///{self.folder / 'host0' / 'kms.db'}"
        self.database = database
        self.workers = [Worker(self.folder / f"host{worker // 2}", database) for worker in WORKERS]

    def teardown(self) -> None:
        for worker in self.workers:
            worker.close()
        for patch in self.patches:
            patch.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    @initialize(hosts=st.sampled_from(HOSTS))
    def begin(self, hosts: int) -> None:
        self.absent = set(HOSTS[hosts + 1 :])  # one host, or both
        with self.workers[0].vault.change() as change:
            for thing in THINGS:
                change.insert(Mount(thing, "", NOW))
        self.everybody_renews()

    def alive(self, worker: int) -> bool:
        return worker // 2 not in self.stopped | self.absent

    def wait(self, seconds: float) -> None:
        """A change waits for leases: meanwhile others do what they like, and time goes on to where it must."""
        until = self.time + seconds
        self.meanwhile()
        self.time = max(self.time, until)

    def meanwhile(self) -> None:
        if self.depth >= 2:
            return
        self.depth += 1
        for _ in range(self.draw(st.integers(0, 3))):
            step = self.draw(st.sampled_from([self.step_use, self.step_renew, self.step_time, self.step_change]))
            step()
        self.depth -= 1

    def draw(self, strategy: st.SearchStrategy[Any]) -> Any:
        return self.data.draw(strategy)

    def renewed(self, worker: Worker) -> None:
        for _ in range(2):  # the first may find that this host is not among the nodes and join
            with suppress(Refusal):
                worker.memory.renew()

    def step_renew(self) -> None:
        worker = self.draw(st.sampled_from(WORKERS))
        if self.alive(worker):
            self.renewed(self.workers[worker])

    def step_time(self) -> None:
        self.time += self.draw(st.sampled_from([0.001, 0.1, 0.2499, 0.26]))

    def step_use(self) -> None:
        self.used_by(self.draw(st.sampled_from(WORKERS)), self.draw(st.sampled_from(THINGS)))

    def used_by(self, number: int, thing: str) -> None:
        worker = self.workers[number]
        if not self.alive(number) or not worker.memory.held:
            return  # it would refuse
        promised = self.answered[thing]
        got = worker.cache.get(thing, self.loading(worker, thing))
        assert got >= promised, f"worker {number} used {thing} {got} after {promised} had been answered"

    def loading(self, worker: Worker, thing: str) -> Callable[[], tuple[int, tuple[str, ...]]]:
        def load() -> tuple[int, tuple[str, ...]]:
            with worker.vault.read() as snapshot:
                found = snapshot.find(Mount, thing)
            self.meanwhile()  # between the read and the moment it is remembered
            assert found is not None
            return (found.created_at - NOW) // timedelta(seconds=1), (names.of_mount(thing),)

        return load

    @rule(data=st.data())
    def use(self, data: st.DataObject) -> None:
        self.data = data
        self.step_use()

    def everybody_uses(self) -> None:
        for number in WORKERS:
            for thing in THINGS:
                self.used_by(number, thing)

    @rule()
    def everybody_renews(self) -> None:
        for number in WORKERS:
            if self.alive(number):
                self.renewed(self.workers[number])

    @rule(data=st.data())
    def renew(self, data: st.DataObject) -> None:
        self.data = data
        self.step_renew()

    @rule(data=st.data())
    def pass_time(self, data: st.DataObject) -> None:
        self.data = data
        self.step_time()

    @rule(data=st.data(), pruned=st.booleans(), renewed=st.booleans())
    def change(self, data: st.DataObject, pruned: bool, renewed: bool) -> None:
        """What is remembered before a change is used after it."""
        self.data = data
        if self.draw(st.booleans()):
            self.everybody_renews()
        self.everybody_uses()
        self.step_change()
        if pruned:
            self.prune()
        if renewed:
            self.everybody_renews()
        self.everybody_uses()

    def step_change(self) -> None:
        number = self.draw(st.sampled_from(WORKERS))
        some = self.draw(st.sets(st.sampled_from(THINGS), min_size=1))
        if not self.alive(number):
            return
        versions = {thing: self.written[thing] + 1 for thing in some}
        with self.workers[number].vault.change() as change:
            for thing, version in versions.items():
                before = change.find(Mount, thing)
                assert before is not None
                change.replace(before, Mount(thing, "", NOW + timedelta(seconds=version)))
                self.written[thing] = version
        for thing, version in versions.items():
            self.answered[thing] = max(self.answered[thing], version)

    def prune(self) -> None:
        writing = self.workers[0].vault.engine.connect().execution_options(kms_writes=True)
        with writing as connection, connection.begin():
            connection.execute(delete(tables.changes))

    @rule(host=st.sampled_from(HOSTS))
    def stop(self, host: int) -> None:
        """As by SIGSTOP: it has its memory and its lease when it goes on."""
        self.stopped.add(host)

    @rule(host=st.sampled_from(HOSTS))
    def go_on(self, host: int) -> None:
        self.stopped.discard(host)

    @rule(number=st.sampled_from(WORKERS))
    def kill(self, number: int) -> None:
        """A worker dies and another takes its place."""
        self.workers[number].close()
        self.workers[number] = Worker(self.folder / f"host{number // 2}", self.database)

    @rule(data=st.data(), silent=st.sampled_from(HOSTS))
    def long_silence(self, data: st.DataObject, silent: int) -> None:
        """A host does not beat, so long that the other forgets it; that does not say that it does nothing else."""
        self.data = data
        for _ in range(10):
            self.time += 6.0
            for number in (0, 2):
                if self.alive(number):
                    self.renewed(self.workers[number])
            worker = self.workers[2 - 2 * silent]
            if self.alive(2 - 2 * silent) and worker.vault.nodes.is_beat_due():
                with worker.vault.change() as change:
                    worker.vault.nodes.beat(change)
                self.change(data, False, False)


@pytest.mark.parametrize("steps", [20])
def test_no_use_outruns_a_change(tmp_path: Path, steps: int) -> None:
    Orders.template = tmp_path / "template"
    open_vault(Settings(data_dir=Orders.template, lease=LEASE)).close()
    for shared in Orders.template.glob("newest-*"):
        shared.unlink()
    run_state_machine_as_test(
        Orders,
        settings=settings(
            max_examples=80,
            stateful_step_count=steps,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
