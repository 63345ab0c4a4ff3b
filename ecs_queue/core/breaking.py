"""Requests that break their workers: how the ledger tells, with `Record.holds`, from holders that are never heard of.

Part of the launch protocol (`core/lifecycle.py`).
"""

from __future__ import annotations

from ecs_queue.core.protocol import Rules
from ecs_queue.core.record import Record


def held_at(record: Record, rules: Rules) -> float:
    """When the holder that has not said a word took the record."""
    return record.lease_until - rules.lease_seconds


def breaks_workers(record: Record, rules: Rules) -> bool:
    """Whether max_deliveries workers in a row took it in hand and died. Only a task that is found clears it of that."""
    return record.holds > rules.max_deliveries


def broken_reason(max_deliveries: int) -> str:
    """Why a request is given up that breaks its workers."""
    return (
        f"workers died {max_deliveries} times in a row with it in hand, so it is not tried again (max_deliveries): "
        "see their logs, mend the request and submit it under another id"
    )


def speak(record: Record, rules: Rules) -> None:
    """The holder lives, and the record stays LAUNCHING."""
    record.holds = rules.max_deliveries + 1 if breaks_workers(record, rules) else 0
