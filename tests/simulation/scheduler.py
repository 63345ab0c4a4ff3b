"""Simulated time and threads: a simulated thread is a greenlet that gives control back at every effect.

Only one runs at a time and none waits for real time, so one seed is one history.
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
    """The thread's process was killed. Not an Exception, so that no handler takes it for an error."""


class ThreadGroup:
    """Threads that die and freeze together: a simulated process."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.is_dead = False
        self.frozen_until = 0.0
        self.threads: list[SimThread] = []

    def __repr__(self) -> str:
        return self.name


class SimThread:
    """A simulated thread. `wake_ticket` identifies its valid wake-up; older ones are ignored."""

    __slots__ = ("greenlet", "group", "name", "wake_at", "wake_ticket")

    def __init__(self, group: ThreadGroup, name: str, thread_greenlet: greenlet) -> None:
        self.group = group
        self.name = name
        self.greenlet = thread_greenlet
        self.wake_ticket = 0
        self.wake_at = 0.0


class SimScheduler:
    """Runs simulated threads. `on_error` is called with the name of a thread and what it raised."""

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
        """The running thread, or None in the hub."""
        return self._threads.get(getcurrent())

    def clock(self) -> float:
        """Return the simulated time in seconds since the epoch."""
        return self.now

    def spawn(self, group: ThreadGroup, name: str, run: Callable[[], object], delay: float = 0.0) -> SimThread:
        """Start a thread of the group after `delay` seconds."""
        thread_greenlet = greenlet(run, self._hub)
        thread = SimThread(group, name, thread_greenlet)
        self._threads[thread_greenlet] = thread
        group.threads.append(thread)
        self._wake(thread, self.now + delay)
        return thread

    def call_at(self, when: float, call: Callable[[], None]) -> None:
        """Schedule a call in the hub, where nothing may sleep."""
        self._push(when, None, 0, call)

    def call_after(self, seconds: float, call: Callable[[], None]) -> None:
        """Schedule a call in `seconds`. See `call_at`."""
        self.call_at(self.now + seconds, call)

    def sleep(self, seconds: float) -> None:
        """Let other threads run for `seconds`. Raises `ProcessKilled` if the thread's process died meanwhile."""
        thread = self._threads[getcurrent()]
        if thread.group.is_dead:
            raise ProcessKilled
        self._wake(thread, self.now + seconds)
        self._hub.switch()
        if thread.group.is_dead:
            raise ProcessKilled

    def park(self, timeout: float, when_woken: float) -> None:
        """Sleep for `timeout` seconds, or until `notify_parked` and then up to `when_woken` seconds more."""
        thread = self._threads[getcurrent()]
        self._parked[thread] = when_woken
        try:
            self.sleep(timeout)
        finally:
            self._parked.pop(thread, None)

    def notify_parked(self, at: float = 0.0) -> None:
        """Wake the parked threads soon after `at`: something has changed that is due then."""
        at = max(at, self.now)
        for thread, within in self._parked.items():
            if thread.wake_at > at + within:
                self._wake(thread, at + self._rng.uniform(0.0, within))

    def wake(self, thread: SimThread) -> None:
        """End the thread's sleep now."""
        if thread.wake_at > self.now:
            self._wake(thread, self.now)

    def kill(self, group: ThreadGroup) -> None:
        """Kill the group's process at once. Raises `ProcessKilled` in one of its own threads."""
        group.is_dead = True
        self.call_after(0.0, lambda: self.reap(group))
        thread = self.current
        if thread is not None and thread.group is group:
            raise ProcessKilled

    def reap(self, group: ThreadGroup) -> None:
        """Unwind the threads of a dead group. Called in the hub."""
        group.is_dead = True
        for thread in list(group.threads):
            if thread.greenlet:
                self._switch(thread, ProcessKilled())
            else:
                self._forget(thread)

    def run(self, until: Callable[[], bool], max_steps: int) -> None:
        """Run until `until()` holds, nothing is left to do, or `max_steps` were made."""
        limit = self.steps + max_steps
        while self._heap and self.steps < limit and not until():
            when, _, thread, ticket, call = heapq.heappop(self._heap)
            if thread is not None and (thread.wake_ticket != ticket or thread.group.is_dead):
                continue
            self.now = max(self.now, when)
            if thread is None:
                if call is not None:
                    call()
            elif thread.group.frozen_until > self.now:
                self._wake(thread, thread.group.frozen_until + self._rng.random() * 0.01)
            else:
                self.steps += 1
                self._switch(thread)

    def close(self) -> None:
        """Unwind every thread."""
        for thread in list(self._threads.values()):
            self.reap(thread.group)
        self._heap.clear()

    def _switch(self, thread: SimThread, error: BaseException | None = None) -> None:
        try:
            if error is None:
                thread.greenlet.switch()
            else:
                thread.greenlet.throw(error)
        except ProcessKilled:
            pass  # the expected end of a killed thread
        except BaseException as crash:  # noqa: BLE001 - any error of a thread is a violation
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
    """An event on which threads wait in simulated time.

    `idle(seconds)` sleeps in place of a service without work: for at least `seconds`, longer when nothing is due.
    """

    def __init__(self, scheduler: SimScheduler, idle: Callable[[float], None] | None = None) -> None:
        super().__init__()
        self._scheduler = scheduler
        self._idle = idle or scheduler.sleep
        self._sleepers: list[SimThread] = []

    def set(self) -> None:
        """See `threading.Event.set`."""
        super().set()
        for thread in self._sleepers:
            self._scheduler.wake(thread)

    def wait(self, timeout: float | None = None) -> bool:
        """See `threading.Event.wait`; a timeout of None waits for a year."""
        seconds = 365 * 86400.0 if timeout is None else timeout
        thread = self._scheduler.current
        if not self.is_set() and seconds > 0 and thread is not None:
            self._sleepers.append(thread)
            try:
                self._idle(seconds)
            finally:
                self._sleepers.remove(thread)
        return self.is_set()


class SimTime:
    """Replaces the module `time` where modules read it directly."""

    def __init__(self, scheduler: SimScheduler) -> None:
        self._scheduler = scheduler

    def __getattr__(self, name: str) -> Any:
        if name in ("monotonic", "time"):
            return self._scheduler.clock
        raise AttributeError(f"no thread of the simulation may use time.{name}")
