"""How often a launched task is polled with DescribeTasks, with and without trusted events. Durations are seconds."""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping
from typing import Any

from ecs_queue.protocol.event_health import EventHealth
from ecs_queue.protocol.observation import Observation
from ecs_queue.protocol.record import Record
from ecs_queue.protocol.record_moves import start_deadline

#: Without trusted events: (age below which a task is polled at this interval, interval); older tasks, the longest one.
_POLL_INTERVALS = ((30.0, 1.0), (120.0, 2.0), (600.0, 5.0))
_LONGEST_POLL_INTERVAL = 10.0
#: DescribeTasks takes 100 ARNs. Half of the quota is left to lists, checks and other users of the account.
_DESCRIBE_BATCH = 100
_DESCRIBE_SHARE = 0.5
#: The interval between polls of a task whose events are trusted, and the one after SILENT_AFTER without any event.
TRUSTED_POLL_INTERVAL, SILENT_POLL_INTERVAL = 300.0, 60.0
SILENT_AFTER = 900.0
#: The delay of a new task's first poll without trusted events, and with them (then at most twice this delay).
FIRST_POLL_DELAY, TRUSTED_FIRST_POLL_DELAY = 1.0, 15.0
#: A worker polls a task from memory this many times at most, and for this time; then its record is due in the ledger.
_POLLS_FROM_MEMORY, _LONGEST_HOLD = 5, 10.0
#: The number of tasks that are polled at the same time (ten calls); more tasks are spread over the interval.
_TASKS_PER_POLL = 1000


def poll_interval(age: float, in_flight: int, rate: float) -> float:
    """Return the seconds until the next poll of a task without trusted events.

    Args:
        age: Seconds since the task was launched: young tasks are polled every second, old ones every ten.
        in_flight: The number of tasks that are polled; together they use at most half of `rate`.
        rate: DescribeTasks calls a second, of 100 tasks each; 0: no limit.
    """
    interval = next((seconds for below, seconds in _POLL_INTERVALS if age < below), _LONGEST_POLL_INTERVAL)
    return max(interval, in_flight / (_DESCRIBE_SHARE * rate * _DESCRIBE_BATCH)) if rate > 0 else interval


def hold_seconds(wait: float, lease_seconds: float) -> float:
    """Return for how many seconds a worker polls a task from memory every `wait` seconds; `wait`: not from memory.

    When the worker dies, another one polls the task after this time.
    """
    return max(wait, min(_POLLS_FROM_MEMORY * wait, _LONGEST_HOLD, lease_seconds))


def sparse_poll_wait(record_id: str, event_health: EventHealth, in_flight: int, now: float) -> float:
    """Return the seconds until the next poll of a task whose events are trusted.

    Many tasks are due at the same time, so that each call describes as many of them as it can.
    """
    interval = TRUSTED_POLL_INTERVAL if now - event_health.timely_at < SILENT_AFTER else SILENT_POLL_INTERVAL
    groups = max(1, math.ceil(in_flight / _TASKS_PER_POLL))
    group = zlib.crc32(record_id.encode()) % groups
    return _seconds_until_next(interval, interval * group / groups, now)


def trusted_poll_wait(
    record: Record, observation: Observation, event_health: EventHealth, in_flight: int, now: float
) -> float:
    """Return the seconds until the next poll of a task whose events are trusted, or until its deadline if sooner."""
    wait = sparse_poll_wait(record.id, event_health, in_flight, now)
    deadline = poll_deadline(record, observation)
    return wait if deadline is None or deadline <= now else min(wait, deadline - now)


def first_poll_wait(now: float) -> float:
    """Return the seconds until the first poll of a new task whose events are trusted."""
    return TRUSTED_FIRST_POLL_DELAY + _seconds_until_next(TRUSTED_FIRST_POLL_DELAY, 0.0, now)


def poll_deadline(record: Record, observation: Observation) -> float | None:
    """Return when the task must be polled because it may have to be stopped then; None if never."""
    started = observation.started_at or record.started_at
    if started:
        return started + record.time_limit if record.time_limit else None
    deadlines = [at for at in (record.expires_at, start_deadline(record)) if at]
    return min(deadlines) if deadlines else None


def repeats_record(record: Record, task: Mapping[str, Any]) -> bool:
    """Return whether DescribeTasks shows a running task as its record has it, and no stop can be due.

    Most polls of young tasks are such ones. `protocol.decisions:decide_poll` finds neither an update nor a stop then.
    """
    return (
        record.last_status == "RUNNING" == task.get("lastStatus")
        and 0 < record.version == task.get("version")
        and record.started_at > 0
        and not (record.stop_requested_by or record.time_limit)
    )


def _seconds_until_next(interval: float, phase: float, now: float) -> float:
    return interval - (now - phase) % interval
