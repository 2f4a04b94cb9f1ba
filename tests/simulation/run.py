"""Runs of the simulation: episodes one after the other, each a world of its own with a seed of its own."""

from __future__ import annotations

import gc
from collections import Counter
from dataclasses import dataclass, field
from unittest import mock

from kms.vault import history, sealing
from tests.simulation import current
from tests.simulation.nature import Nature
from tests.simulation.scheduler import Scheduler
from tests.simulation.worker import real_code_on_simulated_ground
from tests.simulation.world import World

EPISODE_STEPS = 20_000
_GETTING_WELL_STEPS = 400_000


@dataclass
class Outcome:
    """How many steps were done, in how many episodes, and what happened in them."""

    steps: int = 0
    episodes: int = 0
    seconds: float = 0.0
    done: Counter[str] = field(default_factory=Counter)


def simulate(seed: int, steps: int) -> Outcome:
    """Episodes from `seed` on, of `EPISODE_STEPS` and more each, until `steps` were done. Raises Violation."""
    outcome = Outcome()
    collects = gc.isenabled()
    gc.disable()  # when garbage is found must not depend on what ran before
    gc.collect()
    gc.freeze()
    try:
        with real_code_on_simulated_ground():
            while outcome.steps < steps:
                _episode(seed + outcome.episodes, min(EPISODE_STEPS, steps), outcome)
                gc.collect()
    finally:
        gc.unfreeze()
        if collects:
            gc.enable()
    return outcome


def _episode(seed: int, steps: int, outcome: Outcome) -> None:
    scheduler = current.scheduler = Scheduler(seed)
    is_postgresql = scheduler.rng.random() < 0.7
    with (
        mock.patch.object(sealing.os, "urandom", scheduler.rng.randbytes),
        mock.patch.object(history.secrets, "randbelow", scheduler.rng.randrange),
    ):
        world = World(scheduler, is_postgresql=is_postgresql)
        nature = Nature(world, steps)
        nature.begin()
        try:
            scheduler.run(steps + _GETTING_WELL_STEPS)
        finally:
            outcome.episodes += 1
            outcome.steps += scheduler.steps
            outcome.seconds += scheduler.now
            outcome.done.update(world.done)
            for process in [*world.processes, scheduler.nature]:
                scheduler.kill(process)
