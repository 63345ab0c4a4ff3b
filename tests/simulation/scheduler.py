"""Simulated time, and who runs when: jobs are greenlets that give control back at every effect.

Nothing runs at the same time as anything else and nothing waits for real time, so one seed is one history.
"""

from __future__ import annotations

import heapq
import random
import threading
from collections.abc import Callable
from typing import Any

from greenlet import getcurrent, greenlet

#: The epoch at which every simulation begins.
START = 1_800_000_000.0


class Killed(BaseException):
    """The process of this job was killed; not an Exception, so that no handler takes it for an error."""


class Actor:
    """A simulated process: its jobs die and freeze together."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.dead = False
        self.frozen_until = 0.0
        self.jobs: list[Job] = []

    def __repr__(self) -> str:
        return self.name


class Job:
    """One thread of an actor. `ticket` tells its valid wake-up from those that were overtaken."""

    __slots__ = ("actor", "glet", "name", "ticket", "wake_at")

    def __init__(self, actor: Actor, name: str, glet: greenlet) -> None:
        self.actor = actor
        self.name = name
        self.glet = glet
        self.ticket = 0
        self.wake_at = 0.0


class Scheduler:
    """`failed(text)` is told of a job that raised. Times are seconds since the epoch."""

    def __init__(self, rng: random.Random, failed: Callable[[str, BaseException], None]) -> None:
        self.now = START
        self.steps = 0
        self._rng = rng
        self._failed = failed
        self._heap: list[tuple[float, int, Job | None, int, Callable[[], None] | None]] = []
        self._order = 0
        self._hub = getcurrent()
        self._jobs: dict[greenlet, Job] = {}
        self._parked: dict[Job, float] = {}

    @property
    def current(self) -> Job | None:
        """The job that runs; None in the hub."""
        return self._jobs.get(getcurrent())

    def clock(self) -> float:
        """Now, as a callable."""
        return self.now

    def spawn(self, actor: Actor, name: str, run: Callable[[], object], delay: float = 0.0) -> Job:
        """Start a job of the actor after `delay` seconds."""
        glet = greenlet(run, self._hub)
        job = Job(actor, name, glet)
        self._jobs[glet] = job
        actor.jobs.append(job)
        self._wake(job, self.now + delay)
        return job

    def at(self, when: float, call: Callable[[], None]) -> None:
        """Call it in the hub, where nothing may sleep."""
        self._push(when, None, 0, call)

    def after(self, seconds: float, call: Callable[[], None]) -> None:
        """`at`, from now."""
        self.at(self.now + seconds, call)

    def sleep(self, seconds: float) -> None:
        """Let others run for so long. Raises `Killed` when the job's process died meanwhile."""
        job = self._jobs[getcurrent()]
        if job.actor.dead:
            raise Killed
        self._wake(job, self.now + seconds)
        self._hub.switch()
        if job.actor.dead:
            raise Killed

    def park(self, longest: float, when_woken: float) -> None:
        """Sleep for `longest` seconds, or until `rouse`, then up to `when_woken` seconds more."""
        job = self._jobs[getcurrent()]
        self._parked[job] = when_woken
        try:
            self.sleep(longest)
        finally:
            self._parked.pop(job, None)

    def rouse(self, at: float = 0.0) -> None:
        """Something has changed that is due at `at`: whoever is parked for longer looks soon after that."""
        at = max(at, self.now)
        for job, within in self._parked.items():
            if job.wake_at > at + within:
                self._wake(job, at + self._rng.uniform(0.0, within))

    def wake(self, job: Job) -> None:
        """End the job's sleep now."""
        if job.wake_at > self.now:
            self._wake(job, self.now)

    def kill(self, actor: Actor) -> None:
        """The actor's process is gone at once. Called by one of its own jobs, raises `Killed`."""
        actor.dead = True
        self.after(0.0, lambda: self.reap(actor))
        job = self.current
        if job is not None and job.actor is actor:
            raise Killed

    def reap(self, actor: Actor) -> None:
        """Unwind the jobs of a dead actor. In the hub."""
        actor.dead = True
        for job in list(actor.jobs):
            if job.glet:
                self._switch(job, Killed())
            else:
                self._forget(job)

    def run(self, until: Callable[[], bool], most_steps: int) -> None:
        """Until it is so, nothing is left to do, or so many steps were made."""
        limit = self.steps + most_steps
        while self._heap and self.steps < limit and not until():
            when, _, job, ticket, call = heapq.heappop(self._heap)
            if job is not None and (job.ticket != ticket or job.actor.dead):
                continue
            self.now = max(self.now, when)
            if job is None:
                if call is not None:
                    call()
            elif job.actor.frozen_until > self.now:
                self._wake(job, job.actor.frozen_until + self._rng.random() * 0.01)
            else:
                self.steps += 1
                self._switch(job)

    def close(self) -> None:
        """Unwind every job."""
        for job in list(self._jobs.values()):
            self.reap(job.actor)
        self._heap.clear()

    def _switch(self, job: Job, error: BaseException | None = None) -> None:
        try:
            if error is None:
                job.glet.switch()
            else:
                job.glet.throw(error)
        except Killed:
            pass  # as it should end
        except BaseException as crash:  # noqa: BLE001 - whatever a job raises is a finding
            self._failed(f"{job.actor.name}/{job.name}", crash)
        if job.glet.dead:
            self._forget(job)

    def _forget(self, job: Job) -> None:
        self._jobs.pop(job.glet, None)
        if job in job.actor.jobs:
            job.actor.jobs.remove(job)

    def _wake(self, job: Job, at: float) -> None:
        job.ticket += 1
        job.wake_at = at
        self._push(at, job, job.ticket, None)

    def _push(self, when: float, job: Job | None, ticket: int, call: Callable[[], None] | None) -> None:
        self._order += 1
        heapq.heappush(self._heap, (when, self._order, job, ticket, call))


class SimEvent(threading.Event):
    """An event on which jobs wait in simulated time.

    `idle(seconds)` sleeps for a service that has nothing to do: at least so long, more when nothing is due.
    """

    def __init__(self, scheduler: Scheduler, idle: Callable[[float], None] | None = None) -> None:
        super().__init__()
        self._scheduler = scheduler
        self._idle = idle or scheduler.sleep
        self._sleepers: list[Job] = []

    def set(self) -> None:
        """See `threading.Event.set`."""
        super().set()
        for job in self._sleepers:
            self._scheduler.wake(job)

    def wait(self, timeout: float | None = None) -> bool:
        """See `threading.Event.wait`; a time-out of None waits for a year."""
        seconds = 365 * 86400.0 if timeout is None else timeout
        job = self._scheduler.current
        if not self.is_set() and seconds > 0 and job is not None:
            self._sleepers.append(job)
            try:
                self._idle(seconds)
            finally:
                self._sleepers.remove(job)
        return self.is_set()


class SimTime:
    """Stands in for the module `time` where that is read directly."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler

    def __getattr__(self, name: str) -> Any:
        if name in ("monotonic", "time"):
            return self._scheduler.clock
        raise AttributeError(f"no job of the simulation may use time.{name}")
