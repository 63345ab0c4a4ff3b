"""Checks the ledger's broken items again when they are due, and reports new ones: they wait for an operator."""

from __future__ import annotations

from ecs_queue.ledger.base import Ledger
from ecs_queue.telemetry import Telemetry

#: Time between checks; ledger/lua/70_broken_items.lua says which items are due. Seconds.
_INTERVAL = 5.0
#: Items that one check looks at: some milliseconds.
_CHECK_BATCH = 100
#: Items that are reported at once; the rest follow with the next checks.
_MAX_REPORTS = 20


class BrokenItemMonitor:
    """One thread calls `step`. Each worker reports each item once."""

    def __init__(self, ledger: Ledger, telemetry: Telemetry) -> None:
        self._ledger = ledger
        self._telemetry = telemetry
        self._reported: set[str] = set()

    def step(self) -> float:
        """Check and report; return the seconds until the next check."""
        self._ledger.check_broken(_CHECK_BATCH)
        items = {item.key: item for item in self._ledger.list_broken()}
        self._reported &= items.keys()
        for key in [key for key in items if key not in self._reported][:_MAX_REPORTS]:
            self._telemetry.emit("ledger.item_broken", item=key, reason=items[key].reason)
            self._reported.add(key)
        return _INTERVAL
