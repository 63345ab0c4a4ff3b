"""How long work of killed workers waited for another one: launches by the logs, messages by the broker."""

from __future__ import annotations

import json
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import redis

from ecs_queue.redis_connection import connect
from ecs_queue.server_keys import namespace_prefix, queue_prefix
from tests.chaos.background_thread import BackgroundThread
from tests.chaos.killed_workers import WorkerKill

#: After one of these events, a launch waits for its worker; any later event of the request shows that it continues.
_IN_FLIGHT_EVENTS = frozenset({"launch.called", "launch.lease_expired"})
_POLL_SECONDS = 0.1


@dataclass(frozen=True)
class _LogEvent:
    at: float
    worker: str
    name: str


def measure_launch_recoveries(
    logs: Iterable[Path],
    kills: Iterable[WorkerKill],
    stopped: Iterable[str],
    server_restarts: Sequence[float],
    ended_at: Mapping[str, float],
) -> list[float]:
    """Return the seconds from each kill to the next event of a launch that the worker was making.

    Args:
        logs: The logs of the workers.
        kills: The killed workers.
        stopped: Ids of stopped requests, which may end excluded any worker. They are left out.
        server_restarts: When the killed server was up again. Time until end does not count.
        ended_at: When each request ended. It counts where no event follows: a second worker was killed before it
            logged the end.
    """
    killed_at = {kill.worker: kill.at for kill in kills}
    excluded = set(stopped)
    recoveries = []
    for request, events in _events_by_request(logs).items():
        for worker in {event.worker for event in events} & killed_at.keys():
            own = [event for event in events if event.worker == worker]
            if request not in excluded and own[-1].name in _IN_FLIGHT_EVENTS:
                later = (event.at for event in events if event.worker != worker and event.at >= own[-1].at)
                recovered_at = min(later, default=ended_at.get(request, float("inf")))
                recoveries.append(_recovery_seconds(killed_at[worker], recovered_at, server_restarts))
    return recoveries


def measure_message_recoveries(
    unacked_intervals: Iterable[tuple[float, float]], kills: Iterable[WorkerKill], server_restarts: Sequence[float]
) -> list[float]:
    """Return the seconds from the first kill after a message was taken until it could be taken again.

    This is an upper bound: the worker that had the message is unknown, and may live or have been killed later.
    See `measure_launch_recoveries` for `server_restarts`.
    """
    killed_at = sorted(kill.at for kill in kills)
    recoveries = []
    for start, end in unacked_intervals:
        since = next((at for at in killed_at if start <= at < end), None)
        if since is not None:
            recoveries.append(_recovery_seconds(since, end, server_restarts))
    return recoveries


def _recovery_seconds(killed_at: float, recovered_at: float, server_restarts: Sequence[float]) -> float:
    return max(0.0, recovered_at - max([killed_at, *(at for at in server_restarts if at < recovered_at)]))


def _events_by_request(logs: Iterable[Path]) -> dict[str, list[_LogEvent]]:
    events: defaultdict[str, list[_LogEvent]] = defaultdict(list)
    for path in logs:
        for request, event in _read_events(path):
            events[request].append(event)
    for each in events.values():
        each.sort(key=lambda event: event.at)
    return events


def _read_events(path: Path) -> Iterator[tuple[str, _LogEvent]]:
    for line in path.read_text(errors="replace").splitlines():
        try:
            entry = json.loads(line)
        except ValueError:
            continue  # the kill cut the line off
        if isinstance(entry, dict) and "id" in entry and entry["event"] != "request.received":
            at = datetime.fromisoformat(entry["at"]).timestamp()
            yield entry["id"], _LogEvent(at, path.stem, entry["event"])


class UnackedMessageWatcher(BackgroundThread):
    """A context that records in `unacked_intervals` from when to when each message was unacknowledged."""

    def __init__(self, redis_url: str, namespace: str) -> None:
        super().__init__("message-watch")
        slot_key = namespace_prefix(namespace)
        self._client: Any = connect(redis_url, socket_timeout=5, max_connections=1, slot_key=slot_key)
        self._key = f"{queue_prefix(namespace)}unacked_index"  # kombu's: delivery tag -> when it was taken
        self._taken_at: dict[bytes, float] = {}
        self.unacked_intervals: list[tuple[float, float]] = []

    def __exit__(self, *exc_info: object) -> None:
        super().__exit__(*exc_info)
        self._client.close()

    def pause_seconds(self) -> float:
        """See `BackgroundThread`."""
        return _POLL_SECONDS

    def run_once(self) -> None:
        """Look which messages are unacknowledged."""
        with suppress(redis.RedisError):  # the server is being killed
            self._compare(dict(self._client.zrange(self._key, 0, -1, withscores=True)))

    def _compare(self, unacked: dict[bytes, float]) -> None:
        now = time.time()
        for tag, at in self._taken_at.items():
            if unacked.get(tag) != at:
                self.unacked_intervals.append((at, unacked.get(tag, now)))
        self._taken_at = unacked
