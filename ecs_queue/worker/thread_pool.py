"""The threads on which a worker makes its calls, and the jobs that wait for one.

A job gets a thread only after it has its token, so no thread waits for AWS's rate limit.
"""

from __future__ import annotations

import math
import threading
from collections import Counter
from dataclasses import replace

from ecs_queue.worker.fair_queue import NO_QUEUE, FairQueue, Job, JobKind
from ecs_queue.worker.outages import Outages
from ecs_queue.worker.rate_limiter import RateLimit, TokenCache

#: Time until tokens are fetched again after the ledger could not be reached. Seconds.
_ERROR_DELAY = 1.0


class LaunchThreadPool:
    """`size` threads, started when they are needed. Thread-safe."""

    def __init__(self, size: int, outages: Outages, token_cache: TokenCache, fair_queue: FairQueue) -> None:
        self._size = size
        self._outages = outages
        self._token_cache = token_cache
        self._fair_queue = fair_queue
        lock = threading.RLock()
        self._changed = threading.Condition(lock)
        self._idle = threading.Condition(lock)
        self._running = 0
        self._running_stops = 0
        self._threads = 0
        self._waiting_threads = 0
        self._fetching: set[RateLimit] = set()
        self._has_timer = False
        self._closed = False

    @property
    def running(self) -> int:
        """Jobs that have a thread."""
        return self._running

    @property
    def launching(self) -> int:
        """Jobs that have a thread, but for stops."""
        return self._running - self._running_stops

    @property
    def waiting_launches(self) -> int:
        """Jobs that wait for a token, a limit of their queue or a thread, but for stops."""
        return len(self._fair_queue) - self._fair_queue.waiting(NO_QUEUE, JobKind.STOP)

    @property
    def outstanding(self) -> int:
        """Jobs that are running or waiting for a thread."""
        return self._running + len(self._fair_queue)

    @property
    def free_threads(self) -> int:
        """Threads for which no job waits."""
        return max(0, self._size - self.outstanding)

    def remaining_capacity(self, queue: str, kind: JobKind) -> int:
        """Return how many more such jobs may wait: enough to keep every thread busy, without growing unbounded."""
        capacity = 2 * self._size if kind is JobKind.STOP else self._size
        return max(0, capacity - self.waiting(queue, kind))

    def waiting(self, queue: str, kind: JobKind) -> int:
        """Return how many such jobs wait for a thread."""
        with self._changed:
            return self._fair_queue.waiting(queue, kind)

    def submit(self, job: Job) -> None:
        """Run the job in its turn, when a thread and the token it needs are there. Its exceptions are reported."""
        with self._changed:
            if self._closed:  # its request stays with the broker or the ledger, and another worker takes it
                return
            self._fair_queue.add(job)
        self.wake()

    def try_waiting(self, queue: str) -> None:
        """Let the queue's next job that waits for a token try without: a runner has become idle."""
        with self._changed:
            job = None if self._closed else self._fair_queue.remove_waiting(queue)
            if job is not None and job.run_without_token is not None:
                self._fair_queue.add(replace(job, run=job.run_without_token, rate_limit=None, run_without_token=None))
        self.wake()

    def wake(self) -> None:
        """Check again what may run."""
        with self._changed:
            if self._fair_queue:
                self._wake_one()

    def drop(self, queue: str, kind: JobKind) -> None:
        """Drop the waiting jobs of this queue and kind, last one first, so that requeued messages keep their order."""
        with self._changed:
            jobs = self._fair_queue.remove(queue, kind)
        for job in reversed(jobs):
            job.on_drop()

    def drop_all(self) -> None:
        """Drop every job that waits."""
        with self._changed:
            jobs = self._fair_queue.clear()
            self._idle.notify_all()
        for job in reversed(jobs):
            job.on_drop()

    def wait_until_idle(self, timeout: float) -> bool:
        """Wait until no job runs or waits; return False if `timeout` seconds were not enough."""
        with self._changed:
            return self._idle.wait_for(lambda: self.outstanding == 0, timeout)

    def close(self) -> None:
        """Accept no more jobs, and forget those that wait."""
        with self._changed:
            self._closed = True
            self._fair_queue.clear()
            self._changed.notify_all()

    def _wake_one(self) -> None:
        """Let one more thread take a job, if a thread is free."""
        if self._waiting_threads:
            self._changed.notify()
        elif self._threads < self._size:
            self._threads += 1
            threading.Thread(target=self._run_thread, name=f"launch-{self._threads}", daemon=True).start()

    def _run_thread(self) -> None:
        while True:
            with self._changed:
                while isinstance(work := self._next_work(), float):
                    if self._closed:
                        return
                    self._wait(work)
            self._perform(work)

    def _wait(self, seconds: float) -> None:
        """Wait to be woken; one thread also keeps time for all."""
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
        """Return a job to run, a rate limit to fetch tokens of, or the seconds until there may be either."""
        job = self._fair_queue.pop(self._token_cache.spend)
        if job is not None:
            self._running += 1
            self._running_stops += job.kind is JobKind.STOP
            if self._fair_queue:
                self._wake_one()
            return job
        soonest = math.inf
        for rate_limit in self._wanted_tokens():
            if rate_limit in self._fetching:
                continue
            delay = self._token_cache.fetch_delay(rate_limit)
            if delay <= 0:
                self._fetching.add(rate_limit)
                self._wake_one()  # to keep time for the others
                return rate_limit
            soonest = min(soonest, delay)
        return soonest

    def _wanted_tokens(self) -> Counter[RateLimit]:
        """How many tokens of each limit would let waiting jobs run."""
        wanted: Counter[RateLimit] = Counter()
        for rate_limit, number in self._fair_queue.waiting_rate_limits().items():
            missing, useful = self._token_cache.missing(rate_limit, number)
            wanted[missing] += useful
        return wanted

    def _perform(self, work: Job | RateLimit) -> None:
        if isinstance(work, Job):
            self._run_job(work)
        else:
            self._fetch_tokens(work)

    def _fetch_tokens(self, rate_limit: RateLimit) -> None:
        with self._changed:
            count = min(self._wanted_tokens().get(rate_limit, 1), self._size - self._running)
        try:
            self._token_cache.fetch(rate_limit, count)
        except Exception as error:  # noqa: BLE001 - the jobs wait for the next try
            self._token_cache.delay_fetch(rate_limit, _ERROR_DELAY)
            self._outages.report_failure("rate-limiter", error)
        else:
            self._outages.report_success("rate-limiter")
        finally:
            with self._changed:
                self._fetching.discard(rate_limit)

    def _run_job(self, job: Job) -> None:
        try:
            job.run()
        except Exception as error:  # noqa: BLE001 - one request must not end a thread
            self._outages.report_failure("launcher", error)
        else:
            self._outages.report_success("launcher")
        finally:
            with self._changed:
                self._running -= 1
                self._running_stops -= job.kind is JobKind.STOP
                self._idle.notify_all()
