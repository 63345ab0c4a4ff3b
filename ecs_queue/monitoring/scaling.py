"""How many workers a queue needs: the signal for autoscalers. Pure (docs/scaling.md explains the formula)."""

from __future__ import annotations

import math

import msgspec

#: In how many seconds the waiting requests of a queue should be launched.
DRAIN_SECONDS = 60.0
#: How long one RunTask call with its ledger operations occupies one of a worker's threads: 0.3 to 1 s on AWS. Seconds.
LAUNCH_SECONDS = 1.0


class ScaleSignal(msgspec.Struct, frozen=True, kw_only=True):
    """The load of one queue and the workers for it.

    Attributes:
        backlog: Requests that wait for their launch: messages in the broker, or QUEUED records if there are more,
            without those that were submitted for later, or wait for a concurrency key that is full.
        oldest_age_seconds: The age of a request that waits longest; 0 without one.
        in_flight: Tasks that are launched or run.
        live_workers: Workers that serve the queue.
        paused: 1 if an operator has paused the queue, else 0.
    """

    queue: str
    backlog: int
    oldest_age_seconds: float
    in_flight: int
    live_workers: int
    workers_wanted: int
    paused: int

    def to_dict(self) -> dict[str, str | int | float]:
        """Return the values by plain names, as /scale and `scale --json` show them."""
        return msgspec.structs.asdict(self)


def count_workers_wanted(
    backlog: int,
    in_flight: int,
    concurrency: int,
    rate: float,
    *,
    room: float = math.inf,
    drain_seconds: float = DRAIN_SECONDS,
) -> int:
    """Return how many workers launch the backlog in `drain_seconds`, never more than the quota can feed.

    Args:
        backlog: Requests that wait.
        in_flight: Tasks that run: while there is one, a worker has to follow it.
        concurrency: RunTask calls that one worker makes at the same time.
        rate: The RunTask quota of all workers, or a lower `launch_rate` of the queue, in calls a second; 0: no limit.
        room: How many more tasks may be launched before `max_in_flight` is reached; 0 for a paused queue.
        drain_seconds: The time to launch the backlog in.
    """
    launches_per_second = concurrency / LAUNCH_SECONDS  # of one worker
    needed = math.ceil(min(backlog, max(0.0, room)) / (launches_per_second * drain_seconds))
    fed = max(1, math.ceil(rate / launches_per_second)) if rate > 0 else needed
    return max(min(needed, fed), 1 if backlog or in_flight else 0)
