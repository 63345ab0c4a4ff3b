"""The roles of the ledger that concern no request: dead letters, the worker registry, what could not be used."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from ecs_queue.ledger.broken_items import BrokenItem, DropResult
from ecs_queue.ledger.entries import DeadLetter, WorkerInfo
from ecs_queue.protocol.capacity_fallback import CapacityReport, CapacityState


class DeadLetters(Protocol):
    """Messages that could not be used, bounded (protocol/settings.py): the oldest are dropped first."""

    def add_dead_letter(self, dead_letter: DeadLetter) -> None:
        """Store a dead letter. An existing key stays as it is."""
        ...

    def list_dead_letters(self, limit: int, before: DeadLetter | None = None) -> list[DeadLetter]:
        """Return up to `limit` dead letters, newest first: those older than `before`, which may be gone by now."""
        ...

    def get_dead_letters(self, keys: Sequence[str]) -> list[DeadLetter | None]:
        """Return the dead letters of these keys, None for an unknown key, in order."""
        ...

    def delete_dead_letters(self, keys: Sequence[str]) -> list[bool]:
        """Delete dead letters for good; return for each key whether it existed."""
        ...

    def count_dead_letters(self) -> dict[str, int]:
        """Return how many dead letters there are by queue; "" for those whose key does not name it.

        It reads every key, for no index counts by queue: 10,000 of them, the most that are kept, took 2.5 ms, of which
        0.8 ms were the server's. `total_dead_letters` reads none.
        """
        ...

    def total_dead_letters(self) -> int:
        """Return how many dead letters there are."""
        ...


class CapacityStates(Protocol):
    """On which variant of its capacity each queue launches; ecs_queue/protocol/capacity_fallback.py has the rules."""

    def report_capacity(self, queue: str, report: CapacityReport) -> CapacityState:
        """Count what a launch says about the variant that it was made on, if anything; return the state then."""
        ...


class WorkerRegistry(Protocol):
    """The workers that are alive."""

    def heartbeat(self, info: WorkerInfo, ttl: float) -> None:
        """Register a worker for the next `ttl` seconds; with 0 it is registered no more."""
        ...

    def list_workers(self) -> list[WorkerInfo]:
        """Return the registered workers by name."""
        ...


class BrokenItems(Protocol):
    """What could not be used: it has left its index, so that it stops nothing else. It is listed until it is dropped.

    An operation on a record that cannot be used is answered BROKEN, and what leases or lists items leaves it out; `get`
    shows it as not ended, with the reason.
    """

    def list_broken(self) -> list[BrokenItem]:
        """Return the broken items, the oldest first."""
        ...

    def check_broken(self, limit: int) -> int:
        """Check up to `limit` items again that are due for it, and return how many have left the list.

        What can be used again returns to its index. An item is checked a minute after it was found, and then after as
        long as it has been broken, at least every hour. Entries that only a check finds are listed.
        """
        ...

    def drop_broken(self, items: Sequence[BrokenItem]) -> list[DropResult]:
        """Delete these items for good, in order; what can be used again is returned to its index instead."""
        ...
