"""A simulated process, and the step between two of its effects, where it may be delayed, frozen or killed."""

from __future__ import annotations

import random
from collections.abc import Callable

from ecs_queue.errors import RetryableError
from tests.simulation.faults import SimFaults
from tests.simulation.scheduler import SimScheduler, ThreadGroup

#: Each line of a history: seconds since the start, the process and its thread, what happened.
HistoryLine = tuple[float, str, str]


class SimulationContext:
    """What all processes share: the time, the luck, the present faults, and the history."""

    def __init__(self, seed: int, faults: SimFaults, lines: list[HistoryLine] | None) -> None:
        self.rng = random.Random(seed)
        self.faults = faults
        self.thread_errors: list[str] = []
        self.scheduler = SimScheduler(self.rng, self._record_thread_error)
        self._lines = lines

    @property
    def now(self) -> float:
        """Simulated time, seconds since the epoch."""
        return self.scheduler.now

    @property
    def is_traced(self) -> bool:
        """Whether a history is kept: telling costs time."""
        return self._lines is not None

    def trace(self, message: str) -> None:
        """A line of the history."""
        if self._lines is not None:
            job = self.scheduler.current
            who = f"{job.group.name}/{job.name}" if job else "world"
            self._lines.append((self.now, who, message))

    def happens(self, probability: float) -> bool:
        """Whether it happens this time."""
        return probability > 0 and self.rng.random() < probability

    def present_faults(self) -> SimFaults:
        """The mix of now."""
        return self.faults

    def _record_thread_error(self, who: str, error: BaseException) -> None:
        if not isinstance(error, RetryableError):
            self.thread_errors.append(f"{who} raised {type(error).__name__}: {error}")
        self.trace(f"CRASH {error!r}")


class SimProcess(ThreadGroup):
    """`died`: called when a fault has killed it. `cut_off`: what it cannot reach now: "ledger", "ecs", "broker"."""

    def __init__(self, context: SimulationContext, name: str, on_death: Callable[[SimProcess], None]) -> None:
        super().__init__(name)
        self.context = context
        self.cut_off: set[str] = set()
        self._on_death = on_death

    def step(self, what: str) -> None:
        """Others run before the effect `what`. Raises `Killed` when this process does not live to see it."""
        context = self.context
        rng, faults = context.rng, context.faults
        slow = rng.random() < 0.02
        context.scheduler.sleep(rng.uniform(0.2, 4.0) if slow else rng.random() * 0.03)
        luck = rng.random()
        if luck < faults.kill:
            self.kill(what)
        elif luck < faults.kill + faults.freeze:
            self.freeze(rng.choice((4.0, 40.0, 400.0)) * rng.uniform(0.5, 3.0), what)

    def kill(self, before: str) -> None:
        """The process is gone, without a word. Raises `Killed` in its own jobs."""
        self.context.trace(f"{self.name} KILLED before {before}")
        self.is_dead = True
        self._on_death(self)
        self.context.scheduler.kill(self)

    def freeze(self, seconds: float, before: str) -> None:
        """Its jobs do nothing for a while; time goes on."""
        self.context.trace(f"{self.name} FROZEN for {seconds:.0f} s before {before}")
        self.frozen_until = self.context.now + seconds
        job = self.context.scheduler.current
        if job is not None and job.group is self:
            self.context.scheduler.sleep(0.0)
