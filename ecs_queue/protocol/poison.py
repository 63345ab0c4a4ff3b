"""Poison requests, which kill the workers that claim them.

`Record.abandoned_claims` distinguishes them from workers that died for another cause: it counts the consecutive claims
whose holder never reported back (docs/protocol.md).
"""

from __future__ import annotations

from ecs_queue.protocol.record import Record
from ecs_queue.protocol.settings import ProtocolSettings


def claimed_at(record: Record, settings: ProtocolSettings) -> float:
    """Return when the holder that has not reported back claimed the record."""
    return record.lease_until - settings.lease_seconds


def is_poison(record: Record, settings: ProtocolSettings) -> bool:
    """Return whether more than max_deliveries consecutive claims were abandoned. Only finding a task clears it."""
    return record.abandoned_claims > settings.max_deliveries


def reset_abandoned_claims(record: Record, settings: ProtocolSettings) -> None:
    """Note that the holder is alive while the record stays LAUNCHING; a poison request stays one."""
    record.abandoned_claims = settings.max_deliveries + 1 if is_poison(record, settings) else 0
