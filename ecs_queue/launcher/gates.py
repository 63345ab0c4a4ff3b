"""Whether a queue may start tasks now, as far as this worker knows: paused, full, or its circuit open.

A cache: `Ledger.claim` decides. It keeps a queue that may launch nothing from taking messages, tokens and slots.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Mapping, Sequence

from ecs_queue.config import Config
from ecs_queue.core.states import State
from ecs_queue.launcher.circuit import Circuits
from ecs_queue.ledger.base import Ledger

#: How often the ledger is asked. Seconds.
_EVERY = 0.5


class Gates:
    """Thread-safe. One thread calls `step`."""

    def __init__(self, ledger: Ledger, config: Config, circuits: Circuits, queues: Sequence[str]) -> None:
        self._ledger = ledger
        self._circuits = circuits
        self._limit = config.max_in_flight
        self._limits = {queue: config.profile(queue).max_in_flight for queue in queues}
        self._lock = threading.Lock()
        self._paused: frozenset[str] = frozenset()
        self._total_room = math.inf
        self._rooms: dict[str, float] = {}
        self._asked: Callable[[], None] = lambda: None

    def when_asked(self, call: Callable[[], None]) -> None:
        """Call it whenever the ledger was asked: a queue may have opened."""
        self._asked = call

    def step(self) -> float:
        """Ask the ledger; how many seconds to rest."""
        paused = frozenset(self._ledger.paused())
        in_flight = self._in_flight() if self._limit or any(self._limits.values()) else {}
        with self._lock:
            self._paused = paused
            if self._limit:
                self._total_room = self._limit - sum(in_flight.values())
            self._rooms = {queue: limit - in_flight.get(queue, 0) for queue, limit in self._limits.items() if limit}
        self._asked()
        return _EVERY

    def room(self, queue: str) -> float:
        """How many tasks the queue may start now; infinity: as many as it likes."""
        if self._circuits.is_open(queue):
            return 0
        with self._lock:
            return self._room(queue) if self._is_open(queue) else 0

    def may_launch(self, queue: str) -> bool:
        """Whether `room` is above 0."""
        return self.room(queue) > 0

    def started(self, queue: str) -> None:
        """A launch of this queue begins."""
        with self._lock:
            self._total_room -= 1
            if queue in self._rooms:
                self._rooms[queue] -= 1

    def refused(self, queue: str) -> None:
        """A claim has found the queue full or paused: nothing more until the ledger was asked again."""
        with self._lock:
            self._rooms[queue] = 0

    def _is_open(self, queue: str) -> bool:
        return queue not in self._paused and self._room(queue) > 0

    def _room(self, queue: str) -> float:
        return min(self._total_room, self._rooms.get(queue, math.inf))

    def _in_flight(self) -> Mapping[str, int]:
        return {
            queue: states.get(State.LAUNCHING, 0) + states.get(State.LAUNCHED, 0)
            for queue, states in self._ledger.counts().items()
        }
