"""Simulated processes. Between two effects of a process there is a step, where it may be delayed, frozen or killed."""

from __future__ import annotations

import random
from collections.abc import Callable

from ecs_queue.errors import RetryableError
from tests.simulation.faults import SimFaults
from tests.simulation.scheduler import SimScheduler, ThreadGroup

#: A line of a history: the time, process and thread, the event.
HistoryLine = tuple[float, str, str]


class SimulationContext:
    """What all processes share: time, randomness, current faults and history."""

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
        """Whether a history is kept; formatting it costs time."""
        return self._lines is not None

    def trace(self, message: str) -> None:
        """Add a line to the history."""
        if self._lines is not None:
            thread = self.scheduler.current
            source = f"{thread.group.name}/{thread.name}" if thread else "simulation"
            self._lines.append((self.now, source, message))

    def happens(self, probability: float) -> bool:
        """Draw whether an event of this probability happens."""
        return probability > 0 and self.rng.random() < probability

    def present_faults(self) -> SimFaults:
        """Return the current fault probabilities."""
        return self.faults

    def _record_thread_error(self, source: str, error: BaseException) -> None:
        if not isinstance(error, RetryableError):
            self.thread_errors.append(f"{source} raised {type(error).__name__}: {error}")
        self.trace(f"CRASH {error!r}")


class SimProcess(ThreadGroup):
    """A process. `on_death` is called when a fault kills it; `unreachable` has what it cannot reach now."""

    def __init__(self, context: SimulationContext, name: str, on_death: Callable[[SimProcess], None]) -> None:
        super().__init__(name)
        self.context = context
        self.unreachable: set[str] = set()
        self._on_death = on_death

    def step(self, what: str) -> None:
        """Let other processes run before the effect `what`. Raises `ProcessKilled` if a fault kills this process."""
        context = self.context
        rng, faults = context.rng, context.faults
        slow = rng.random() < 0.02
        context.scheduler.sleep(rng.uniform(0.2, 4.0) if slow else rng.random() * 0.03)
        draw = rng.random()
        if draw < faults.kill:
            self.kill(what)
        elif draw < faults.kill + faults.freeze:
            self.freeze(rng.choice((4.0, 40.0, 400.0)) * rng.uniform(0.5, 3.0), what)

    def kill(self, before: str) -> None:
        """Kill the process at once. Raises `ProcessKilled` in its own threads."""
        self.context.trace(f"{self.name} KILLED before {before}")
        self.is_dead = True
        self._on_death(self)
        self.context.scheduler.kill(self)

    def freeze(self, seconds: float, before: str) -> None:
        """Stop its threads for a while."""
        self.context.trace(f"{self.name} FROZEN for {seconds:.0f} s before {before}")
        self.frozen_until = self.context.now + seconds
        thread = self.context.scheduler.current
        if thread is not None and thread.group is self:
            self.context.scheduler.sleep(0.0)
