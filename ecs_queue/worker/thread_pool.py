"""The slots of a worker: how many calls it makes at the same time, and what waits for one.

A job gets its slot when its token is here: no slot is held by what has to wait for AWS's quota.
"""

from __future__ import annotations

import math
import threading

from ecs_queue.telemetry import Telemetry
from ecs_queue.worker.fair_queue import FairQueue, Job, JobKind
from ecs_queue.worker.rate_limiter import RateLimit, TokenCache

#: After a ledger that could not be asked for tokens. Seconds.
_ERROR_DELAY = 1.0


class LaunchThreadPool:
    """`number` threads, started when they are needed. Thread-safe."""

    def __init__(self, size: int, telemetry: Telemetry, token_cache: TokenCache, fair_queue: FairQueue) -> None:
        self._size = size
        self._telemetry = telemetry
        self._token_cache = token_cache
        self._fair_queue = fair_queue
        lock = threading.RLock()
        self._changed = threading.Condition(lock)
        self._idle = threading.Condition(lock)
        self._running = 0
        self._threads = 0
        self._waiting_threads = 0
        self._fetching: set[RateLimit] = set()
        self._has_timer = False
        self._closed = False

    @property
    def outstanding(self) -> int:
        """Jobs that are running or waiting for a slot."""
        return self._running + len(self._fair_queue)

    @property
    def free_threads(self) -> int:
        """Slots that nothing waits for."""
        return max(0, self._size - self.outstanding)

    def remaining_capacity(self, queue: str, kind: JobKind) -> int:
        """How many more of these may wait: so many that slots never idle, and no lane grows without bound."""
        most = 2 * self._size if kind is JobKind.STOP else self._size
        with self._changed:
            return max(0, most - self._fair_queue.waiting(queue, kind))

    def waiting(self, queue: str, kind: JobKind) -> int:
        """How many of these wait for a slot."""
        with self._changed:
            return self._fair_queue.waiting(queue, kind)

    def submit(self, job: Job) -> None:
        """Run it when its turn has come, there is a slot and, if it needs one, a token. What it raises is told."""
        with self._changed:
            if self._closed:  # it stays with the broker or the ledger, another worker takes it
                return
            self._fair_queue.add(job)
        self.wake()

    def wake(self) -> None:
        """Something may run that could not before."""
        with self._changed:
            if self._fair_queue:
                self._wake_one()

    def drop(self, queue: str, kind: JobKind) -> None:
        """Let go of what waits of these, the next one last: given back to the head of a queue it is first again."""
        with self._changed:
            jobs = self._fair_queue.remove(queue, kind)
        for job in reversed(jobs):
            job.on_drop()

    def drop_all(self) -> None:
        """Let go of everything that waits."""
        with self._changed:
            jobs = self._fair_queue.clear()
            self._idle.notify_all()
        for job in reversed(jobs):
            job.on_drop()

    def wait_until_idle(self, timeout: float) -> bool:
        """Whether nothing was in hand within `timeout` seconds."""
        with self._changed:
            return self._idle.wait_for(lambda: self.outstanding == 0, timeout)

    def close(self) -> None:
        """Take no more; what waits for a slot is dropped."""
        with self._changed:
            self._closed = True
            self._fair_queue.clear()
            self._changed.notify_all()

    def _wake_one(self) -> None:
        """Let one more thread look for work, if there is one."""
        if self._waiting_threads:
            self._changed.notify()
        elif self._threads < self._size:
            self._threads += 1
            threading.Thread(target=self._run_thread, name=f"launch-{self._threads}", daemon=True).start()

    def _run_thread(self) -> None:
        while True:
            with self._changed:
                step = self._next_work()
                while isinstance(step, float):
                    if self._closed:
                        return
                    self._wait(step)
                    step = self._next_work()
            self._perform(step)

    def _wait(self, seconds: float) -> None:
        """One thread keeps time for all; the others wait to be woken."""
        is_timer = not self._has_timer and seconds < math.inf
        self._has_timer = self._has_timer or is_timer
        self._waiting_threads += 1
        try:
            self._changed.wait(seconds if is_timer else None)
        finally:
            self._waiting_threads -= 1
            if is_timer:
                self._has_timer = False

    def _next_work(self) -> Job | RateLimit | float:
        """A job to run, a permit to fetch tokens for, or seconds until there may be one. Under the lock."""
        job = self._fair_queue.pop(self._token_cache.spend)
        if job is not None:
            self._running += 1
            if self._fair_queue:
                self._wake_one()
            return job
        soonest = math.inf
        for permit in self._fair_queue.waiting_rate_limits():
            if permit in self._fetching:
                continue
            wait = self._token_cache.fetch_delay(permit)
            if wait <= 0:
                self._fetching.add(permit)
                self._wake_one()  # to keep time for the others
                return permit
            soonest = min(soonest, wait)
        return soonest

    def _perform(self, work: Job | RateLimit) -> None:
        if isinstance(work, Job):
            self._run_job(work)
        else:
            self._fetch_tokens(work)

    def _fetch_tokens(self, rate_limit: RateLimit) -> None:
        with self._changed:
            want = min(self._fair_queue.waiting_rate_limits().get(rate_limit, 1), self._size - self._running)
        try:
            self._token_cache.fetch(rate_limit, want)
        except Exception as error:  # noqa: BLE001 - what waits is tried again
            self._token_cache.delay_fetch(rate_limit, _ERROR_DELAY)
            self._telemetry.emit("service.failed", service="rate_limiter", reason=f"{type(error).__name__}: {error}")
        finally:
            with self._changed:
                self._fetching.discard(rate_limit)

    def _run_job(self, job: Job) -> None:
        try:
            job.run()
        except Exception as error:  # noqa: BLE001 - one request must not take a slot with it
            self._telemetry.emit("service.failed", service="thread_pool", reason=f"{type(error).__name__}: {error}")
        finally:
            with self._changed:
                self._running -= 1
                self._idle.notify_all()
