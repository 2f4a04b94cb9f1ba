"""What the machines do, and what must hold whatever happens to them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

from kms.errors import IntegrityFailure, NotFound, Refusal
from kms.keys.model import Alias
from kms.vault import tables
from kms.vault.head import ACCEPTED_BEYOND, Head, TableDigest
from kms.vault.rows import Mount
from kms.vault.store import Vault
from tests.simulation import current
from tests.simulation.database import Database, Engine, State
from tests.simulation.scheduler import Machine, Process, Scheduler
from tests.simulation.worker import KEYS, LEASE, NOW, THINGS, Shared, SharedHost, Worker, of_value, value_of

_LEASE = LEASE.total_seconds()
_CERTAINLY_OVER = _LEASE * 1.03


class Refused(NotFound):
    """A change that is refused on purpose."""


class World:
    """All machines on one database, and what was promised. `done` counts what happened."""

    def __init__(self, scheduler: Scheduler, *, is_postgresql: bool) -> None:
        self.scheduler, self.rng = scheduler, scheduler.rng
        self.database = Database(is_postgresql=is_postgresql, glances=is_postgresql and self.rng.random() < 0.7)
        self.machines: list[Shared] = []
        self.workers: dict[Process, Worker] = {}
        self.processes: list[Process] = []
        self.promised = dict.fromkeys(THINGS, 0)
        self.listed = dict.fromkeys(THINGS, 0)
        self.written = 0
        self.kept_from_committing: set[int] = set()
        self.lost: set[tuple[str, int]] = set()
        self.must_notice: dict[Machine, float] = {}
        self.went_back = False
        self.quiet = False
        self.done: Counter[str] = Counter()
        self.epoch = 0
        self.paces = -4.0, -1.7  # seconds between two uses, the decimal logarithm of least and most
        self.on_commit: Callable[[], None] = lambda: None
        self.on_lease: Callable[[Machine, bool], None] = lambda _machine, _is_overtaken: None
        self.on_nodes: Callable[[set[str], set[str]], None] = lambda _come, _gone: None
        digests = {str(table.name): TableDigest() for table in tables.digested_tables()}
        self.database.state["head"] = {(1,): (1, Head(1, 1, 0, digests).sealed(KEYS))}
        current.committed = self.committed
        current.announced = self.announced
        current.leased = lambda process, epoch: self.on_lease(process.machine, epoch < self.epoch)

    def add_machine(self, rate: float) -> Shared:
        """A host, with a clock of its own."""
        machine = Machine(f"host{len(self.machines)}", rate, 1000.0 * (len(self.machines) + 1))
        self.machines.append(Shared(machine, self.rng.randbytes(8).hex()))
        return self.machines[-1]

    def process(self, name: str, machine: Machine) -> Process:
        """A new process."""
        process = Process(f"{machine.name}/{name}", machine)
        self.processes.append(process)
        return process

    def vault(self, process: Process, shared: Shared) -> Vault:
        """The vault as a process without a memory opens it."""
        return Vault(Engine(self.database, process), KEYS, LEASE, SharedHost(shared))  # type: ignore[arg-type]

    def fill(self) -> None:
        """Make the things, as the first change."""
        shared = self.machines[0]
        with self.vault(self.scheduler.current.process, shared).change() as change:
            change.insert(*(Mount(thing, "", NOW) for thing in THINGS))
            change.insert(*(Alias(thing, b"k" * 16, NOW) for thing in THINGS))

    # What the workers do

    def keep_using(self, worker: Worker) -> None:
        """Use things, now and then and in bursts."""
        rng, scheduler = self.rng, self.scheduler
        while True:
            pace = 10 ** rng.uniform(*self.paces)
            for _ in range(20):
                scheduler.sleep(rng.expovariate(1 / pace))
                self.use(worker)

    def use(self, worker: Worker) -> None:
        """Use one thing, and check that the use was allowed to see what it saw."""
        some = self.rng.sample(THINGS, 2)
        kind = self.rng.random()
        promised, listed = [self.promised[thing] for thing in some], self.listed[some[0]]
        began = self.scheduler.now
        try:
            if kind < 0.6:
                got = [worker.use(some[0], looks_first=kind < 0.3)]
            elif kind < 0.9:
                got = list(worker.use_pair(*some))
            else:
                got, promised = [worker.listed(some[0])], [listed]
        except Refusal as refusal:
            self._refused("use", worker, refusal)
            return
        self.done["uses"] += 1
        worker.last_used[some[0]] = began
        what = "the list of" if kind >= 0.9 else ""
        holds = self.listed if kind >= 0.9 else self.promised  # less, where the database went back meanwhile
        if any(seen < min(must, holds[thing]) for seen, must, thing in zip(got, promised, some, strict=False)):
            self.scheduler.fail(
                f"{worker.process.name} used {what} {some} {got} in a use that began at {began:.6f}, "
                f"after {promised} had been answered"
            )
        if not self._may_use(worker, began):  # a use that waited goes on once the database is accepted
            self.scheduler.fail(f"{worker.process.name} used a key at {began:.6f} though the database went back")

    def _may_use(self, worker: Worker, began: float) -> bool:
        deadline = self.must_notice.get(worker.process.machine)
        distrusted_at = worker.shared.distrusted_at
        over = deadline is not None and began > deadline
        return not over and (distrusted_at is None or began <= distrusted_at + _CERTAINLY_OVER)

    def _refused(self, what: str, worker: Worker, refusal: Refusal) -> None:
        self.done[f"{what} refused"] += 1
        self.scheduler.say(f"{what} refused", refusal.detail)
        if isinstance(refusal, IntegrityFailure) and not self.went_back:
            self.scheduler.fail(f"{worker.process.name} refuses though nothing went back: {refusal.detail}")

    def keep_changing(self, worker: Worker) -> None:
        """Change things, often several at once, so that they share commits."""
        rng, scheduler = self.rng, self.scheduler
        while True:
            if rng.random() < 0.5:
                scheduler.sleep(0.1 - scheduler.now % 0.1 + rng.random() * 0.004)
            else:
                scheduler.sleep(rng.expovariate(4))
            if not self.quiet:
                self.change(worker)

    def change(self, worker: Worker) -> None:
        """One change: most outdate things, some only add, some are refused."""
        rng = self.rng
        kind, some = rng.random(), rng.sample(THINGS, rng.choice((1, 1, 2)))
        refused = rng.random() < 0.2
        made: dict[str, int] = {}
        seen: dict[str, int] = {}
        try:
            with worker.vault.change() as change:
                for thing in some:
                    before = change.find(Mount, thing)
                    assert before is not None
                    seen[thing] = value_of(before)
                    if seen[thing] in self.kept_from_committing:
                        self.scheduler.fail(f"a change saw {thing} {seen[thing]}, which was refused")
                    if kind < 0.15:  # outdates nothing
                        change.replace(before, Mount(thing, f"{self.scheduler.steps}", before.created_at))
                        continue
                    self.written += 1
                    made[thing] = self.written
                    change.replace(before, Mount(thing, "", of_value(self.written)))
                    if kind < 0.4:
                        listed = change.find(Alias, thing)
                        assert listed is not None
                        change.replace(listed, Alias(thing, listed.key_uid, of_value(self.written)))
                if refused:
                    self.kept_from_committing |= set(made.values())
                    raise Refused("on purpose")  # noqa: TRY301  # as an operation does
        except Refused:
            self._refused_after(seen)
        except Refusal as refusal:
            self._refused("change", worker, refusal)
        else:
            self._answered(worker, made, listed=kind < 0.4)

    def _answered(self, worker: Worker, made: dict[str, int], *, listed: bool) -> None:
        self.scheduler.say("ANSWERS a change", made)
        self.done["changes"] += 1
        worker.last_changed = self.scheduler.now
        for thing, value in made.items():
            if (thing, value) not in self.lost:
                self.promised[thing] = max(self.promised[thing], value)
                if listed:
                    self.listed[thing] = max(self.listed[thing], value)
                if self.value(self.database.state, thing) < value:
                    self.scheduler.fail(f"{thing} {value} was answered and is not in the database")

    def _refused_after(self, seen: dict[str, int]) -> None:
        """What a refusal was made of must be durable by the time that it is passed on."""
        self.done["changes refused on purpose"] += 1
        for thing, value in seen.items():
            if self.value(self.database.state, thing) < value and (thing, value) not in self.lost:
                self.scheduler.fail(f"a change was refused for {thing} {value}, which is not in the database")

    def keep_beating(self, worker: Worker) -> None:
        """As `kms.operations.system.schedule`."""
        nodes = worker.vault.nodes
        while True:
            self.scheduler.sleep(0.1)
            try:
                if self.scheduler.now >= worker.shared.beats_from and nodes.is_beat_due():
                    with worker.vault.change() as change:
                        nodes.beat(change)
            except Refusal as refusal:
                self._refused("beat", worker, refusal)

    # What is seen from outside

    def committed(self, before: State, after: State) -> None:
        """Check a commit against the one before."""
        old, new = head_of(before), head_of(after)
        self.done["commits"] += 1
        self.epoch = new.epoch
        is_accepted = new.counter >= old.counter + ACCEPTED_BEYOND
        if is_accepted:
            self.must_notice.clear()
        elif new.counter != old.counter + 1 or new.epoch not in (old.epoch, old.epoch + 1):
            self.scheduler.fail(
                f"a commit moved the head from {old.counter}, {old.epoch} to {new.counter}, {new.epoch}"
            )
        self.scheduler.say("the head is now at", f"change {new.counter}, epoch {new.epoch}")
        for shared in self.machines:
            if shared.machine in self.must_notice and shared.distrusted_at is None:
                self.done["overtaken"] += new.counter == shared.saw
        self.on_commit()
        if before["nodes"].keys() != after["nodes"].keys():
            come, gone = [
                {key[0] for key in a["nodes"].keys() - b["nodes"].keys()}
                for a, b in ((after, before), (before, after))
            ]
            self.on_nodes(come, gone)

    def announced(self, epoch: int) -> None:
        """An epoch that is announced is committed: a host that knows of one that never comes refuses for ever."""
        if epoch > head_of(self.database.state).epoch and not self.went_back:
            self.scheduler.fail(f"epoch {epoch} was announced and is not in the database")

    def go_back(self, commits: int) -> None:
        """The database fails over to a replica that has not got the last commits."""
        before = self.database.state
        self.database.go_back(commits)
        counter = head_of(self.database.state).counter
        if counter >= head_of(before).counter:
            return
        self.went_back = True
        self.done["failovers"] += 1
        for thing in THINGS:
            kept, gone = self.value(self.database.state, thing), self.value(before, thing)
            self.lost |= {(thing, value) for value in range(kept + 1, self.written + 1)}
            self.promised[thing] = min(self.promised[thing], kept)
            self.listed[thing] = min(self.listed[thing], self.value(self.database.state, thing, "aliases"))
            self.scheduler.say(f"the database went BACK to change {counter}; {thing}", f"{gone} -> {kept}")
        for shared in self.machines:
            if shared.saw > counter:
                self.must_notice.setdefault(shared.machine, self.scheduler.now + _CERTAINLY_OVER)

    @staticmethod
    def value(state: State, thing: str, table: str = "mounts") -> int:
        """The value of a thing in the database, or what the list says of it."""
        row = state[table][(thing,)]
        return int(row[2] - NOW.timestamp() * 1_000_000) // 1_000_000


def head_of(state: State) -> Head:
    """The head in a state of the database."""
    sealed: Any = state["head"][(1,)][1]
    return Head.unsealed(KEYS, sealed)
