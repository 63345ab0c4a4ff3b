"""Concurrency keys: at most `max_per_key` requests of one key of a queue are in flight (docs/policies.md). Pure.

There is no counter: the records show which requests hold a slot of their key, and which wait for one. A request that
finds its key full waits in the order of the key. The operation that frees a slot wakes the first one.
"""

from __future__ import annotations

import math

import msgspec

from ecs_queue.protocol import reasons
from ecs_queue.protocol.record import Record
from ecs_queue.protocol.settings import HIGHEST_PRIORITY, KEY_RETRY_SECONDS, KEY_TURN_SECONDS, MAX_KEY_RETRY_SECONDS
from ecs_queue.protocol.states import State


class KeyRoom(msgspec.Struct, frozen=True):
    """What a claim finds of the record's key.

    Attributes:
        free: Slots that no request holds; infinite without a limit.
        ahead: Requests that wait for a slot and come before this one.
    """

    free: float = math.inf
    ahead: int = 0

    @property
    def is_full(self) -> bool:
        """Whether the request must wait: every free slot is for a request that comes before it."""
        return self.ahead >= self.free


NO_LIMIT = KeyRoom()


class KeyCounts(msgspec.Struct, frozen=True, kw_only=True):
    """How many requests of one key are in flight, and how many wait because it is full."""

    in_flight: int = 0
    waiting: int = 0


def holds_key_slot(record: Record) -> bool:
    """Return whether the record is one of those in flight of its key."""
    return bool(record.concurrency_key) and record.state in (State.LAUNCHING, State.LAUNCHED)


def waits_for_slot(record: Record) -> bool:
    """Return whether the record waits because a claim has found its key full."""
    return record.waits_for_key and record.state is State.QUEUED


def waiting_order(record: Record) -> tuple[int, float, str]:
    """Return what orders the requests of a key: priority, then age, then id. The same in lua/11_keys.lua."""
    return -min(record.priority, HIGHEST_PRIORITY), max(record.created_at, record.delayed_until), record.id


def has_turn(record: Record, now: float) -> bool:
    """Return whether a record that waits for its key may be claimed now: it was woken, or is to try again."""
    return waits_for_slot(record) and record.not_before <= now


def has_missed_turn(record: Record, now: float) -> bool:
    """Return whether the record has had its turn for longer than it may hold up those behind it."""
    return waits_for_slot(record) and record.not_before + KEY_TURN_SECONDS <= now


def wait_for_slot(record: Record, room: KeyRoom, now: float) -> None:
    """Let the record wait until it is woken.

    It also tries again by itself, because an operator may have raised the limit: later, if more requests are before it.
    """
    record.waits_for_key = True
    record.not_before = now + min(max(KEY_RETRY_SECONDS, room.ahead), MAX_KEY_RETRY_SECONDS)
    record.reason = reasons.KEY_FULL % record.concurrency_key
