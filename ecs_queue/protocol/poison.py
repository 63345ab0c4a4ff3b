"""Requests that break their workers: how the ledger tells, with `Record.holds`, from holders that are never heard of.

Part of the launch protocol (`protocol/state_machine.py`).
"""

from __future__ import annotations

from ecs_queue.protocol.record import Record
from ecs_queue.protocol.settings import ProtocolSettings


def claimed_at(record: Record, settings: ProtocolSettings) -> float:
    """When the holder that has not said a word took the record."""
    return record.lease_until - settings.lease_seconds


def is_poison(record: Record, settings: ProtocolSettings) -> bool:
    """Whether max_deliveries workers in a row took it in hand and died. Only a task that is found clears it of that."""
    return record.abandoned_claims > settings.max_deliveries


def reset_abandoned_claims(record: Record, settings: ProtocolSettings) -> None:
    """The holder lives, and the record stays LAUNCHING."""
    record.abandoned_claims = settings.max_deliveries + 1 if is_poison(record, settings) else 0
