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


class ProcessKilled(BaseException):
    """The process of this job was killed; not an Exception, so that no handler takes it for an error."""


class ThreadGroup:
    """A simulated process: its jobs die and freeze together."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.is_dead = False
        self.frozen_until = 0.0
        self.threads: list[SimThread] = []

    def __repr__(self) -> str:
        return self.name


class SimThread:
    """One thread of an actor. `ticket` tells its valid wake-up from those that were overtaken."""

    __slots__ = ("greenlet", "group", "name", "wake_at", "wake_ticket")

    def __init__(self, group: ThreadGroup, name: str, glet: greenlet) -> None:
        self.group = group
        self.name = name
        self.greenlet = glet
        self.wake_ticket = 0
        self.wake_at = 0.0


class SimScheduler:
    """`failed(text)` is told of a job that raised. Times are seconds since the epoch."""

    def __init__(self, rng: random.Random, on_error: Callable[[str, BaseException], None]) -> None:
        self.now = START
        self.steps = 0
        self._rng = rng
        self._on_error = on_error
        self._heap: list[tuple[float, int, SimThread | None, int, Callable[[], None] | None]] = []
        self._order = 0
        self._hub = getcurrent()
        self._threads: dict[greenlet, SimThread] = {}
        self._parked: dict[SimThread, float] = {}

    @property
    def current(self) -> SimThread | None:
        """The job that runs; None in the hub."""
        return self._threads.get(getcurrent())

    def clock(self) -> float:
        """Now, as a callable."""
        return self.now

    def spawn(self, group: ThreadGroup, name: str, run: Callable[[], object], delay: float = 0.0) -> SimThread:
        """Start a job of the actor after `delay` seconds."""
        glet = greenlet(run, self._hub)
        job = SimThread(group, name, glet)
        self._threads[glet] = job
        group.threads.append(job)
        self._wake(job, self.now + delay)
        return job

    def call_at(self, when: float, call: Callable[[], None]) -> None:
        """Call it in the hub, where nothing may sleep."""
        self._push(when, None, 0, call)

    def call_after(self, seconds: float, call: Callable[[], None]) -> None:
        """`at`, from now."""
        self.call_at(self.now + seconds, call)

    def sleep(self, seconds: float) -> None:
        """Let others run for so long. Raises `Killed` when the job's process died meanwhile."""
        job = self._threads[getcurrent()]
        if job.group.is_dead:
            raise ProcessKilled
        self._wake(job, self.now + seconds)
        self._hub.switch()
        if job.group.is_dead:
            raise ProcessKilled

    def park(self, timeout: float, when_woken: float) -> None:
        """Sleep for `longest` seconds, or until `rouse`, then up to `when_woken` seconds more."""
        job = self._threads[getcurrent()]
        self._parked[job] = when_woken
        try:
            self.sleep(timeout)
        finally:
            self._parked.pop(job, None)

    def notify_parked(self, at: float = 0.0) -> None:
        """Something has changed that is due at `at`: whoever is parked for longer looks soon after that."""
        at = max(at, self.now)
        for job, within in self._parked.items():
            if job.wake_at > at + within:
                self._wake(job, at + self._rng.uniform(0.0, within))

    def wake(self, thread: SimThread) -> None:
        """End the job's sleep now."""
        if thread.wake_at > self.now:
            self._wake(thread, self.now)

    def kill(self, group: ThreadGroup) -> None:
        """The actor's process is gone at once. Called by one of its own jobs, raises `Killed`."""
        group.is_dead = True
        self.call_after(0.0, lambda: self.reap(group))
        job = self.current
        if job is not None and job.group is group:
            raise ProcessKilled

    def reap(self, group: ThreadGroup) -> None:
        """Unwind the jobs of a dead actor. In the hub."""
        group.is_dead = True
        for job in list(group.threads):
            if job.greenlet:
                self._switch(job, ProcessKilled())
            else:
                self._forget(job)

    def run(self, until: Callable[[], bool], max_steps: int) -> None:
        """Until it is so, nothing is left to do, or so many steps were made."""
        limit = self.steps + max_steps
        while self._heap and self.steps < limit and not until():
            when, _, job, ticket, call = heapq.heappop(self._heap)
            if job is not None and (job.wake_ticket != ticket or job.group.is_dead):
                continue
            self.now = max(self.now, when)
            if job is None:
                if call is not None:
                    call()
            elif job.group.frozen_until > self.now:
                self._wake(job, job.group.frozen_until + self._rng.random() * 0.01)
            else:
                self.steps += 1
                self._switch(job)

    def close(self) -> None:
        """Unwind every job."""
        for job in list(self._threads.values()):
            self.reap(job.group)
        self._heap.clear()

    def _switch(self, thread: SimThread, error: BaseException | None = None) -> None:
        try:
            if error is None:
                thread.greenlet.switch()
            else:
                thread.greenlet.throw(error)
        except ProcessKilled:
            pass  # as it should end
        except BaseException as crash:  # noqa: BLE001 - whatever a job raises is a finding
            self._on_error(f"{thread.group.name}/{thread.name}", crash)
        if thread.greenlet.dead:
            self._forget(thread)

    def _forget(self, thread: SimThread) -> None:
        self._threads.pop(thread.greenlet, None)
        if thread in thread.group.threads:
            thread.group.threads.remove(thread)

    def _wake(self, thread: SimThread, at: float) -> None:
        thread.wake_ticket += 1
        thread.wake_at = at
        self._push(at, thread, thread.wake_ticket, None)

    def _push(self, when: float, thread: SimThread | None, ticket: int, call: Callable[[], None] | None) -> None:
        self._order += 1
        heapq.heappush(self._heap, (when, self._order, thread, ticket, call))


class SimEvent(threading.Event):
    """An event on which jobs wait in simulated time.

    `idle(seconds)` sleeps for a service that has nothing to do: at least so long, more when nothing is due.
    """

    def __init__(self, scheduler: SimScheduler, idle: Callable[[float], None] | None = None) -> None:
        super().__init__()
        self._scheduler = scheduler
        self._idle = idle or scheduler.sleep
        self._sleepers: list[SimThread] = []

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

    def __init__(self, scheduler: SimScheduler) -> None:
        self._scheduler = scheduler

    def __getattr__(self, name: str) -> Any:
        if name in ("monotonic", "time"):
            return self._scheduler.clock
        raise AttributeError(f"no job of the simulation may use time.{name}")
