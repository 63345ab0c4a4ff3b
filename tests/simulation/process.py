"""A simulated process, and the step between two of its effects, where it may be delayed, frozen or killed."""

from __future__ import annotations

import random
from collections.abc import Callable

from ecs_queue.errors import RetryableError
from tests.simulation.faults import Faults
from tests.simulation.scheduler import Actor, Scheduler

#: Each line of a history: seconds since the start, the process and its thread, what happened.
Line = tuple[float, str, str]


class Stage:
    """What all processes share: the time, the luck, the present faults, and the history."""

    def __init__(self, seed: int, faults: Faults, lines: list[Line] | None) -> None:
        self.rng = random.Random(seed)
        self.faults = faults
        self.crashes: list[str] = []
        self.scheduler = Scheduler(self.rng, self._crashed)
        self._lines = lines

    @property
    def now(self) -> float:
        """Simulated time, seconds since the epoch."""
        return self.scheduler.now

    @property
    def traced(self) -> bool:
        """Whether a history is kept: telling costs time."""
        return self._lines is not None

    def tell(self, what: str) -> None:
        """A line of the history."""
        if self._lines is not None:
            job = self.scheduler.current
            who = f"{job.actor.name}/{job.name}" if job else "world"
            self._lines.append((self.now, who, what))

    def chance(self, probability: float) -> bool:
        """Whether it happens this time."""
        return probability > 0 and self.rng.random() < probability

    def present_faults(self) -> Faults:
        """The mix of now."""
        return self.faults

    def _crashed(self, who: str, error: BaseException) -> None:
        if not isinstance(error, RetryableError):
            self.crashes.append(f"{who} raised {type(error).__name__}: {error}")
        self.tell(f"CRASH {error!r}")


class Process(Actor):
    """`died`: called when a fault has killed it. `cut_off`: what it cannot reach now: "ledger", "ecs", "broker"."""

    def __init__(self, stage: Stage, name: str, died: Callable[[Process], None]) -> None:
        super().__init__(name)
        self.stage = stage
        self.cut_off: set[str] = set()
        self._died = died

    def step(self, what: str) -> None:
        """Others run before the effect `what`. Raises `Killed` when this process does not live to see it."""
        stage = self.stage
        rng, faults = stage.rng, stage.faults
        slow = rng.random() < 0.02
        stage.scheduler.sleep(rng.uniform(0.2, 4.0) if slow else rng.random() * 0.03)
        luck = rng.random()
        if luck < faults.kill:
            self.kill(what)
        elif luck < faults.kill + faults.freeze:
            self.freeze(rng.choice((4.0, 40.0, 400.0)) * rng.uniform(0.5, 3.0), what)

    def kill(self, before: str) -> None:
        """The process is gone, without a word. Raises `Killed` in its own jobs."""
        self.stage.tell(f"{self.name} KILLED before {before}")
        self.dead = True
        self._died(self)
        self.stage.scheduler.kill(self)

    def freeze(self, seconds: float, before: str) -> None:
        """Its jobs do nothing for a while; time goes on."""
        self.stage.tell(f"{self.name} FROZEN for {seconds:.0f} s before {before}")
        self.frozen_until = self.stage.now + seconds
        job = self.stage.scheduler.current
        if job is not None and job.actor is self:
            self.stage.scheduler.sleep(0.0)
