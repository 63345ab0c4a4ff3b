"""The slots of a worker: how many calls it makes at the same time, and what waits for one.

A job gets its slot when its token is here: no slot is held by what has to wait for AWS's quota.
"""

from __future__ import annotations

import math
import threading

from ecs_queue.launcher.lanes import Job, JobKind, Lanes
from ecs_queue.launcher.quota import Permit, Tokens
from ecs_queue.telemetry import Telemetry

#: After a ledger that could not be asked for tokens. Seconds.
_AFTER_ERROR = 1.0


class Slots:
    """`number` threads, started when they are needed. Thread-safe."""

    def __init__(self, number: int, telemetry: Telemetry, tokens: Tokens, lanes: Lanes) -> None:
        self._number = number
        self._telemetry = telemetry
        self._tokens = tokens
        self._lanes = lanes
        lock = threading.RLock()
        self._changed = threading.Condition(lock)
        self._idle = threading.Condition(lock)
        self._running = 0
        self._threads = 0
        self._resting = 0
        self._fetching: set[Permit] = set()
        self._keeps_time = False
        self._closed = False

    @property
    def in_hand(self) -> int:
        """Jobs that are running or waiting for a slot."""
        return self._running + len(self._lanes)

    @property
    def free(self) -> int:
        """Slots that nothing waits for."""
        return max(0, self._number - self.in_hand)

    def room(self, queue: str, kind: JobKind) -> int:
        """How many more of these may wait: so many that slots never idle, and no lane grows without bound."""
        most = 2 * self._number if kind is JobKind.STOP else self._number
        with self._changed:
            return max(0, most - self._lanes.waiting(queue, kind))

    def waiting(self, queue: str, kind: JobKind) -> int:
        """How many of these wait for a slot."""
        with self._changed:
            return self._lanes.waiting(queue, kind)

    def submit(self, job: Job) -> None:
        """Run it when its turn has come, there is a slot and, if it needs one, a token. What it raises is told."""
        with self._changed:
            if self._closed:  # it stays with the broker or the ledger, another worker takes it
                return
            self._lanes.add(job)
        self.kick()

    def kick(self) -> None:
        """Something may run that could not before."""
        with self._changed:
            if self._lanes:
                self._wake_one()

    def drop(self, queue: str, kind: JobKind) -> None:
        """Let go of what waits of these, the next one last: given back to the head of a queue it is first again."""
        with self._changed:
            jobs = self._lanes.remove(queue, kind)
        for job in reversed(jobs):
            job.drop()

    def drop_all(self) -> None:
        """Let go of everything that waits."""
        with self._changed:
            jobs = self._lanes.clear()
            self._idle.notify_all()
        for job in reversed(jobs):
            job.drop()

    def wait_until_idle(self, timeout: float) -> bool:
        """Whether nothing was in hand within `timeout` seconds."""
        with self._changed:
            return self._idle.wait_for(lambda: self.in_hand == 0, timeout)

    def close(self) -> None:
        """Take no more; what waits for a slot is dropped."""
        with self._changed:
            self._closed = True
            self._lanes.clear()
            self._changed.notify_all()

    def _wake_one(self) -> None:
        """Let one more thread look for work, if there is one."""
        if self._resting:
            self._changed.notify()
        elif self._threads < self._number:
            self._threads += 1
            threading.Thread(target=self._work, name=f"slot-{self._threads}", daemon=True).start()

    def _work(self) -> None:
        while True:
            with self._changed:
                step = self._pick()
                while isinstance(step, float):
                    if self._closed:
                        return
                    self._rest(step)
                    step = self._pick()
            self._carry_out(step)

    def _rest(self, seconds: float) -> None:
        """One thread keeps time for all; the others wait to be woken."""
        is_timer = not self._keeps_time and seconds < math.inf
        self._keeps_time = self._keeps_time or is_timer
        self._resting += 1
        try:
            self._changed.wait(seconds if is_timer else None)
        finally:
            self._resting -= 1
            if is_timer:
                self._keeps_time = False

    def _pick(self) -> Job | Permit | float:
        """A job to run, a permit to fetch tokens for, or seconds until there may be one. Under the lock."""
        job = self._lanes.pop(self._tokens.spend)
        if job is not None:
            self._running += 1
            if self._lanes:
                self._wake_one()
            return job
        soonest = math.inf
        for permit in self._lanes.lacking():
            if permit in self._fetching:
                continue
            wait = self._tokens.wait(permit)
            if wait <= 0:
                self._fetching.add(permit)
                self._wake_one()  # to keep time for the others
                return permit
            soonest = min(soonest, wait)
        return soonest

    def _carry_out(self, step: Job | Permit) -> None:
        if isinstance(step, Job):
            self._run(step)
        else:
            self._fetch(step)

    def _fetch(self, permit: Permit) -> None:
        with self._changed:
            want = min(self._lanes.lacking().get(permit, 1), self._number - self._running)
        try:
            self._tokens.fetch(permit, want)
        except Exception as error:  # noqa: BLE001 - what waits is tried again
            self._tokens.postpone(permit, _AFTER_ERROR)
            self._telemetry.emit("service.failed", service="quota", reason=f"{type(error).__name__}: {error}")
        finally:
            with self._changed:
                self._fetching.discard(permit)

    def _run(self, job: Job) -> None:
        try:
            job.run()
        except Exception as error:  # noqa: BLE001 - one request must not take a slot with it
            self._telemetry.emit("service.failed", service="slot", reason=f"{type(error).__name__}: {error}")
        finally:
            with self._changed:
                self._running -= 1
                self._idle.notify_all()
