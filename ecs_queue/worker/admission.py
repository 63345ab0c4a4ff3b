"""Whether a queue may start tasks now, as far as this worker knows: not paused, not full, circuit breaker closed.

This is a cache; `Ledger.claim` decides. It keeps a queue that may launch nothing from taking messages, tokens and
threads.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Sequence

from ecs_queue.config import Config
from ecs_queue.ledger.base import Ledger
from ecs_queue.protocol.states import State
from ecs_queue.worker.circuit_breaker import CircuitBreakers

#: How often the cache is read from the ledger. Seconds.
_REFRESH_INTERVAL = 0.5


class Admission:
    """Thread-safe. One thread calls `step`."""

    def __init__(
        self, ledger: Ledger, config: Config, circuit_breakers: CircuitBreakers, queues: Sequence[str]
    ) -> None:
        self._ledger = ledger
        self._circuit_breakers = circuit_breakers
        self._limit = config.max_in_flight
        profiles = {queue: config.profile(queue) for queue in queues}
        self._limits = {queue: profile.max_in_flight for queue, profile in profiles.items()}
        # An idle runner of a warm pool may take a request though no task may start: there only the claim decides.
        self._start_limits = {
            queue: profile.max_starting
            for queue, profile in profiles.items()
            if profile.max_starting and not profile.warm_seconds
        }
        self._lock = threading.Lock()
        self._paused: frozenset[str] = frozenset()
        self._available_in_total = math.inf
        self._available_by_queue: dict[str, float] = {}
        self._on_refresh: Callable[[], None] = lambda: None

    def on_refresh(self, call: Callable[[], None]) -> None:
        """Call it after every refresh, when a queue may have become admissible."""
        self._on_refresh = call

    def step(self) -> float:
        """Refresh the cache; return the seconds until the next refresh."""
        paused = frozenset(self._ledger.list_paused_queues())
        in_flight = self._count_in_flight() if self._limit or any(self._limits.values()) else {}
        starting = self._ledger.count_starting(list(self._start_limits)) if self._start_limits else {}
        with self._lock:
            self._paused = paused
            if self._limit:
                self._available_in_total = self._limit - sum(in_flight.values())
            self._available_by_queue = {
                queue: limit - in_flight.get(queue, 0) for queue, limit in self._limits.items() if limit
            }
            for queue, number in starting.items():
                room = self._start_limits[queue] - number
                self._available_by_queue[queue] = min(room, self._available_by_queue.get(queue, math.inf))
        self._on_refresh()
        return _REFRESH_INTERVAL

    def available(self, queue: str) -> float:
        """Return how many tasks the queue may start now; infinity when nothing limits it."""
        if self._circuit_breakers.is_open(queue):
            return 0
        with self._lock:
            if queue in self._paused:
                return 0
            return max(0, min(self._available_in_total, self._available_by_queue.get(queue, math.inf)))

    def may_launch(self, queue: str) -> bool:
        """Return whether the queue may start a task now."""
        return self.available(queue) > 0

    def launch_started(self, queue: str) -> None:
        """Count a launch of this queue that begins."""
        with self._lock:
            self._available_in_total -= 1
            if queue in self._available_by_queue:
                self._available_by_queue[queue] -= 1

    def launch_over(self, queue: str) -> None:
        """Take back one `launch_started`: no runner is idle, its key is full, or its request has ended.

        Otherwise requests that only asked for a runner or a slot would count as started tasks of the queue.
        """
        with self._lock:
            self._available_in_total += 1
            if queue in self._available_by_queue:
                self._available_by_queue[queue] += 1

    def claim_refused(self, queue: str) -> None:
        """Admit nothing of this queue until the next refresh: a claim has found it full or paused."""
        with self._lock:
            self._available_by_queue[queue] = 0

    def _count_in_flight(self) -> dict[str, int]:
        return {
            queue: states.get(State.LAUNCHING, 0) + states.get(State.LAUNCHED, 0)
            for queue, states in self._ledger.count_by_state().items()
        }
