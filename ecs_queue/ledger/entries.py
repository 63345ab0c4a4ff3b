"""What the ledger keeps beside the requests: dead letters and heartbeats of workers; and the cursors of its list."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping

import msgspec

from ecs_queue.errors import UsageError
from ecs_queue.payload_repr import PayloadRepr

_CURSOR = re.compile(r"(live|finished):([0-9]{1,12})")


class DeadLetter(PayloadRepr, msgspec.Struct, frozen=True, kw_only=True):
    """A message that could not be used: its raw bytes and the reason.

    `key` is chosen by the caller, unique and random: adding it again stores nothing (see `dead_letter_key`). `added_at`
    is in seconds since the epoch by the ledger's clock and differs between any two: of two added at the same time, the
    second counts as one microsecond later.
    """

    key: str
    queue: str
    reason: str
    body: bytes
    added_at: float = 0.0


def parse_cursor(cursor: str) -> tuple[str, int]:
    """Return the part of the list, `live` or `finished`, and the offset of a cursor of `list_records`; "" is the start.

    Raises:
        UsageError: No list has returned it.
    """
    found = _CURSOR.fullmatch(cursor or "live:0")
    if found is None:
        raise UsageError("the place in the list of requests is not one that a list has named: begin at the newest")
    return found[1], int(found[2])


def dead_letter_key(queue: str, unique: str) -> str:
    """Return the key of a dead letter. It names the queue, so that counting by queue reads no letter."""
    return f"{queue}.{unique}"


def count_keys_by_queue(keys: Iterable[str]) -> dict[str, int]:
    """Return the number of dead letters by queue; "" for keys of an earlier version, which do not name it."""
    return dict(Counter(key.rpartition(".")[0] for key in keys))


class WorkerInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker reports with each heartbeat.

    `launches_waiting` counts the requests that it has taken and that wait for a rate limit, a limit of their queue or a
    thread.

    Rates are per second over the last minute: launches, `start_calls` (RunTask, StopTask), `spot_calls` (RunTask on
    Fargate Spot, whose quota is another; None if there were none and no queue launches there) and `read_calls`
    (DescribeTasks, ListTasks). `launch_rates` and `end_rates` are of each queue that has some, with those of warm
    pools; an end counts at the worker that found it. Limits are the configured ones, shared by all workers; 0 means no
    limit. Ages are seconds at the heartbeat since the worker last polled the broker, and ECS; None means never.
    """

    name: str
    host: str
    pid: int
    version: str
    queues: list[str]
    concurrency: int
    launches_in_progress: int
    launched_total: int
    ended_total: int
    health: str  # "ok", or the reason why a circuit is open or tasks cannot be followed
    started_at: float
    last_seen_at: float = 0.0
    launch_rate: float = 0.0
    launch_rates: Mapping[str, float] = {}
    end_rates: Mapping[str, float] = {}
    start_call_rate: float = 0.0
    start_call_limit: float = 0.0
    spot_call_rate: float | None = None
    read_call_rate: float = 0.0
    read_call_limit: float = 0.0
    broker_poll_age: float | None = None
    describe_age: float | None = None
    launches_waiting: int = 0
    payload_keys: bool = True  # it finds payloads in keys of their own: lua/10_record.lua asks for it
