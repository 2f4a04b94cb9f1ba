"""What happens to machines, processes and the database, and how it all gets well again at the end."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace

from kms.errors import Refusal
from kms.vault.accepting import accept
from tests.simulation.scheduler import Machine, Process, Temper
from tests.simulation.worker import THINGS, Shared, Worker, restarted
from tests.simulation.world import World

_PROGRESS_SECONDS = 40.0
_FASTEST, _SLOWEST = 1.0095, 0.9905  # less than two per cent apart
_WORDS_WRITTEN_BACK_PROBABILITY = 0.3
_MOST_LOST = 4


class Nature:
    """Misfortunes, as the seed says, until `until` steps were done; then everything must get well."""

    def __init__(self, world: World, until: int) -> None:
        self.world, self.scheduler, self.rng = world, world.scheduler, world.rng
        self._until = until
        self._joined: dict[str, int] = {}
        rng = self.rng
        theme = rng.choice(("anything", "anything", "alone", "leases", "leases", "comings", "silence", "silence"))
        self._hosts, self._workers = rng.choice((1, 2, 2, 3)), rng.choice((1, 2, 2, 3))
        self._pace = rng.choice((0.05, 0.2, 1.0))
        self._cuts_at_commits = rng.choice((0.0, 0.2))
        self._cuts_at_leases = self._holds_commits = self._cuts_at_nodes = self._loses_joins = 0.0
        self._prunes_at_commits = rng.choice((0.0, 0.0, 0.1))
        self._rates = [rng.choice((1.0, _FASTEST, _SLOWEST)) for _ in range(3)]
        self._deeds = [self.pause, self.pause, self.stop_machine, self.cut_off, self.kill, self.prune]
        for deed in (
            self.take_database_away,
            self.lose_power,
            self.leave,
            self.fail_over,
            self.fail_over_during_a_restart,
            self.pause_long,
            self.forget_to_beat,
        ):
            if rng.random() < 0.4:
                self._deeds.append(deed)
        self.scheduler.temper = Temper(
            quick=10 ** rng.uniform(-5.5, -3.5),
            stall_probability=rng.choice((0.0, 0.005, 0.03)),
            longest_stall=10 ** rng.uniform(-2, -0.3),
        )
        if theme == "alone":  # one process, which always knows the head before its own
            self._hosts, self._workers, self._pace = 1, 1, 1.0
            self.scheduler.temper = replace(self.scheduler.temper, stall_probability=0.03)
        if theme == "leases":  # who holds one when a change commits gets no other, and uses it to its end
            self._hosts, self._workers, self._pace, self._cuts_at_commits = 2, 1, 1.0, rng.choice((0.0, 0.7))
            self.scheduler.temper = replace(self.scheduler.temper, quick=10 ** rng.uniform(-4.5, -2.5))
            if self._cuts_at_commits == 0.0:  # a commit has just overtaken it
                self._cuts_at_leases = self._holds_commits = 0.8
                self._rates = rng.choice(([_FASTEST, _SLOWEST], [_SLOWEST, _FASTEST]))
                self.scheduler.temper = Temper(10 ** rng.uniform(-5.5, -3.5), rng.choice((0.0, 0.002)), 0.1)
        if theme == "comings":  # slow messages, so that much happens while a machine joins or leaves
            self._hosts, self._workers, self._pace, self._cuts_at_commits = 2, 1, 0.3, 0.0
            self._deeds = [self.leave, *rng.choice(([], [self.lose_power, self.pause_long]))]
            self.scheduler.temper = Temper(10 ** rng.uniform(-3.5, -2.5), stall_probability=0.03, longest_stall=0.3)
            self._loses_joins = rng.choice((0.0, 0.7)) if world.database.is_postgresql else 0.0
        if theme == "silence":  # the others forget who goes on with its lease, and a failover forgets its return
            self._hosts, self._workers, self._pace, self._cuts_at_commits = 2, 1, 0.5, 0.0
            self._deeds = [self.forget_to_beat]
            self.scheduler.temper = Temper(10 ** rng.uniform(-5, -3.5), stall_probability=0.002, longest_stall=0.1)
            self._cuts_at_nodes = 0.7
            world.paces = -2.5, -1.5  # so that much time goes by
            self._loses_joins = rng.choice((0.0, 0.7)) if world.database.is_postgresql else 0.0

        if world.database.is_postgresql and rng.random() < 0.2:  # lost changes are made up for by others
            self._hosts, self._pace = 2, 0.5
            self._deeds = [self.fail_over_unseen, self.fail_over_unseen, self.kill]

    def begin(self) -> None:
        """The first machine makes the things; then all that there are begin."""
        world = self.world
        for rate in self._rates[: self._hosts]:
            world.add_machine(rate)
        maker = world.process("maker", world.machines[0].machine)
        self.scheduler.spawn("maker", maker, self._make)

    def _make(self) -> None:
        self.world.fill()
        self.world.database.history.clear()
        self.world.processes.clear()
        for shared in self.world.machines:
            self.start(shared)
        self.world.on_commit = self._at_commit
        self.world.on_lease = self._at_lease
        self.world.on_nodes = self._at_nodes
        self.world.database.holds_commits = lambda: self._happens(self._holds_commits)
        self.world.database.late = lambda: self.rng.uniform(0.01, 0.1) if self._happens(0.3) else 0.0
        self.scheduler.spawn("misfortune", self.scheduler.nature, self._go_wrong)

    def start(self, shared: Shared) -> None:
        """Start what a machine should run and does not."""
        running = {process.name for process in self.world.processes if process.alive}
        for number in range(self._workers):
            if f"{shared.machine.name}/worker{number}" not in running:
                process = self.world.process(f"worker{number}", shared.machine)
                self.scheduler.spawn("main", process, lambda process=process: self._work(process, shared))  # type: ignore[misc]

    def _work(self, process: Process, shared: Shared) -> None:
        worker = None
        while worker is None:
            worker = restarted(process, self.world.database, shared)
            if worker is None:
                self.scheduler.sleep(0.05)
        self.world.workers[process] = worker
        for name in ("use1", "use2"):
            self.scheduler.spawn(name, process, lambda: self.world.keep_using(worker))
        for name in ("change1", "change2", "change3"):
            self.scheduler.spawn(name, process, lambda: self.world.keep_changing(worker))
        self.scheduler.spawn("beat", process, lambda: self.world.keep_beating(worker))

    def _happens(self, probability: float) -> bool:
        """Whether a misfortune comes that waits for an occasion."""
        return probability > 0 and self.rng.random() < probability and self.scheduler.steps < self._until

    def _at_lease(self, machine: Machine, is_overtaken: bool) -> None:
        """Who has just got a lease by an old head does not reach the database any more, or loses its new row."""
        if is_overtaken and self._happens(self._cuts_at_leases):
            self._cut(self._shared(machine), 0.3)
        if machine.node_id in self._joined:
            commits = self._joined.pop(machine.node_id)
            if self._happens(self._loses_joins):
                self._later(10 ** self.rng.uniform(-4, -1.5), lambda: self._lose_join(machine, commits))

    def _lose_join(self, machine: Machine, commits: int) -> None:
        """A failover loses the commit by which a machine joined after so many others, if those since are few."""
        since = self.world.done["commits"] - commits
        if since <= _MOST_LOST and self._happens(1.0):
            self.world.go_back(since)
            self._pass_over(self._shared(machine))

    def _at_nodes(self, come: set[str], gone: set[str]) -> None:
        """Who is not among the nodes any more cannot see that."""
        self._joined |= dict.fromkeys(come, self.world.done["commits"] - 1)
        for shared in self.world.machines:
            if shared.machine.node_id in gone and self._happens(self._cuts_at_nodes):
                self._pass_over(shared)

    def _pass_over(self, shared: Shared) -> None:
        """A machine does not reach the database, and the others change something at once."""
        self._cut(shared, 0.3)
        for worker in list(self.world.workers.values()):
            if worker.shared is not shared:
                self.scheduler.spawn("hurry", worker.process, lambda worker=worker: self.world.change(worker))  # type: ignore[misc]

    def _shared(self, machine: Machine) -> Shared:
        return next(each for each in self.world.machines if each.machine is machine)

    def _at_commit(self) -> None:
        """The others cannot read what was committed, at once or soon, or not what it outdates."""
        if self._happens(self._prunes_at_commits):
            self.prune()
        if self._happens(self._cuts_at_commits):
            committing = self.scheduler.current.process.machine
            others = [each for each in self.world.machines if each.machine is not committing]
            if others:
                cut = self.rng.choice(others)
                self._later(self.rng.choice((0.0, self.rng.random() * 0.1)), lambda: self._cut(cut, 0.3))

    def _go_wrong(self) -> None:
        while self.scheduler.steps < self._until:
            self.scheduler.sleep(self.rng.expovariate(1 / self._pace))
            self._look_after()
            self.rng.choice(self._deeds)()
        self._get_well()

    def _some_machine(self) -> Shared:
        return self.rng.choice(self.world.machines)

    def _living(self, shared: Shared | None = None) -> list[Process]:
        machine = None if shared is None else shared.machine
        return [each for each in self.world.processes if each.alive and (machine is None or each.machine is machine)]

    def _later(self, seconds: float, act: object) -> None:
        def wait() -> None:
            self.scheduler.sleep(seconds)
            act()  # type: ignore[operator]

        self.scheduler.spawn("later", self.scheduler.nature, wait)

    def _stop(self, processes: list[Process], seconds: float) -> None:
        for process in processes:
            process.paused = True
            self.scheduler.say(f"stops {process.name} for", f"{seconds:.3f} s")
        self._later(seconds, lambda: [self.scheduler.resume(each) for each in processes if each.alive])

    def pause(self) -> None:
        """As by SIGSTOP, one process."""
        if living := self._living():
            self._stop([self.rng.choice(living)], 10 ** self.rng.uniform(-3, 0.3))

    def stop_machine(self) -> None:
        """A machine sleeps; its clock goes on."""
        self._stop(self._living(self._some_machine()), 10 ** self.rng.uniform(-2, 0.5))

    def pause_long(self) -> None:
        """So long that the others forget the machine."""
        self._stop(self._living(self._some_machine()), self.rng.uniform(2, 6))

    def cut_off(self) -> None:
        """A machine does not reach the database for a while."""
        self._cut(self._some_machine(), self.rng.choice((0.2, 0.3, 1.0)))

    def _cut(self, shared: Shared, seconds: float) -> None:
        machine = shared.machine
        self.scheduler.say("cuts off", machine.name)
        self.world.database.cut_off.add(machine)
        self._later(seconds, lambda: self.world.database.cut_off.discard(machine))

    def take_database_away(self) -> None:
        """Nobody reaches it for a while."""
        self.scheduler.say("takes the database away")
        self.world.database.away = True
        self._later(10 ** self.rng.uniform(-2, 0.3), lambda: setattr(self.world.database, "away", False))

    def forget_to_beat(self) -> None:
        """What beats has other things to do, for so long that the others forget the machine; its leases go on."""
        if any(each.beats_from > self.scheduler.now for each in self.world.machines):
            return  # somebody must be there to notice
        shared = self._some_machine()
        shared.beats_from = self.scheduler.now + self.rng.uniform(2, 6)
        self.scheduler.say("does not beat any more", shared.machine.name)

    def prune(self) -> None:
        """Rows of changes are gone."""
        state = self.world.database.state
        rows = {} if self.rng.random() < 0.5 else dict(list(state["changes"].items())[-1:])
        self.scheduler.say("prunes the rows of changes")
        self.world.database.state = {**state, "changes": rows}

    def fail_over(self) -> None:
        """Another server takes over, without the last commits; a file of SQLite is put back where one host has it."""
        if not self.world.database.is_postgresql and len(self.world.machines) > 1:
            return
        self.world.go_back(self.rng.choice((1, 1, 2, 4)))

    def fail_over_during_a_restart(self) -> None:
        """No process of a machine is there to see it: the next ones know by its file only what was."""
        shared = self._some_machine()
        for process in self._living(shared):
            self._end(process, with_power=True)
        self.fail_over()
        self._later(10 ** self.rng.uniform(-2, 0), lambda: self.start(shared))

    def fail_over_unseen(self) -> None:
        """One machine changes alone for a while, and what it did is lost while it sleeps and the others go on."""
        alone = self._some_machine()
        for other in self.world.machines:
            if other is not alone:
                self._cut(other, 0.4)
        lost = self.rng.choice((1, 2, 4))

        def fail_over() -> None:
            self._stop(self._living(alone), self.rng.uniform(0.3, 2))
            self.world.go_back(lost)

        self._later(0.39, fail_over)

    def kill(self) -> None:
        """A process dies, and another takes its place."""
        if living := self._living():
            process = self.rng.choice(living)
            self._end(process, with_power=True)
            self._start_again(process)

    def lose_power(self) -> None:
        """A machine is off at once, and its file may be as it was some time ago; then it boots."""
        shared = self._some_machine()
        for process in self._living(shared):
            self._end(process, with_power=False)
        if self.rng.random() < 0.5:
            self.scheduler.say("loses what was not yet written back of", shared.machine.name)
            shared.words.lose(shared.written_back)
            shared.saw = shared.saw_written_back
        self.world.must_notice.pop(shared.machine, None)
        shared.machine.node_id = self.rng.randbytes(8).hex()
        self._later(10 ** self.rng.uniform(-1, 0.5), lambda: self.start(shared))

    def leave(self) -> None:
        """A machine stops as it should: nothing answers any more, then it leaves the nodes."""
        shared = self._some_machine()
        for process in self._living(shared):
            self._end(process, with_power=True)
        last = self.world.process("leaving", shared.machine)

        def leaving() -> None:
            vault = self.world.vault(last, shared)
            with suppress(Refusal), vault.change() as change:
                vault.nodes.leave(change)
            last.alive = False
            self.start(shared)

        self.scheduler.spawn("leave", last, leaving)

    def _end(self, process: Process, *, with_power: bool) -> None:
        self.scheduler.say("kills", process.name)
        shared = self._shared(process.machine)
        self.scheduler.kill(process)
        self.world.workers.pop(process, None)
        self.world.database.forget(process, at_once=with_power)
        shared.turn.forget(process)
        shared.waiting_room.forget(process)
        self.world.processes.remove(process)

    def _start_again(self, process: Process) -> None:
        shared = self._shared(process.machine)
        self._later(10 ** self.rng.uniform(-3, 0), lambda: self.start(shared))

    def _look_after(self) -> None:
        """The kernel writes back files, and an operator sees to machines that do not trust the database."""
        for shared in self.world.machines:
            if self.rng.random() < _WORDS_WRITTEN_BACK_PROBABILITY:
                shared.written_back[:] = shared.words.values
                shared.saw_written_back = shared.saw
            at = shared.distrusted_at
            if at is not None and self.scheduler.now > at + 0.5 + self.rng.random() * 2:
                self._accept(shared)

    def _accept(self, shared: Shared) -> None:
        operator = self.world.process("operator", shared.machine)

        def accepting() -> None:
            with suppress(Refusal):
                accept(self.world.vault(operator, shared), "accepted")
                self.world.done["accepted"] += 1
            self.world.processes.remove(operator)
            operator.alive = False

        self.scheduler.spawn("accept", operator, accepting)

    def _get_well(self) -> None:
        """Nothing goes wrong any more: first nothing changes and everybody must answer; then all change something."""
        world, scheduler = self.world, self.scheduler
        self._end_one_that_changes()
        world.quiet = True
        self._heal()
        since = scheduler.now + 0.5
        self._until_all(lambda worker: all(worker.last_used.get(thing, 0) > since for thing in THINGS), "use")
        world.quiet = False
        since = scheduler.now
        self._until_all(lambda worker: worker.last_changed > since, "change")
        scheduler.finished = True
        scheduler.sleep(0)

    def _end_one_that_changes(self) -> None:
        """As the last misfortune: after it no change hides what was left half done."""
        until = self.scheduler.now + 0.3
        while self.scheduler.now < until:
            self.scheduler.sleep(self.rng.expovariate(500))
            for shared in self.world.machines:
                holder = shared.turn.holder
                if holder is not None and holder in self.world.processes and self.rng.random() < 0.3:
                    self._end(holder, with_power=True)
                    return

    def _heal(self) -> None:
        database = self.world.database
        database.away = False
        database.cut_off.clear()
        for shared in self.world.machines:
            shared.beats_from = 0.0
        self.scheduler.say("everything gets well")
        for process in self._living():
            self.scheduler.resume(process)
        for shared in self.world.machines:
            self.start(shared)

    def _until_all(self, can: object, what: str) -> None:
        began = self.scheduler.now
        while not self._all(can):
            self.scheduler.sleep(0.05)
            self._heal_again()
            if self.scheduler.now > began + _PROGRESS_SECONDS:
                refusing = [each.process.name for each in self.world.workers.values() if not can(each)]  # type: ignore[operator]
                self.scheduler.fail(f"all is well again, but {refusing} cannot {what}")

    def _heal_again(self) -> None:
        """What was under way when everything got well ends too."""
        self.world.database.away = False
        self.world.database.cut_off.clear()
        for process in self._living():
            if process.paused:
                self.scheduler.resume(process)
        self._look_after()

    def _all(self, can: object) -> bool:
        wanted = self._hosts * self._workers
        workers: list[Worker] = list(self.world.workers.values())
        return len(workers) == wanted and all(can(each) for each in workers)  # type: ignore[operator]
