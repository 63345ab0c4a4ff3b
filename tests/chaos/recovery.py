"""How long what a killed worker had in hand waited for another one: launches by the logs, messages by the broker."""

from __future__ import annotations

import json
import threading
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import redis

from tests.chaos.killed_workers import WorkerKill

#: With these a launch is in a worker's hands; by whatever it, or another one, tells next of the request, it goes on.
_IN_FLIGHT_EVENTS = frozenset({"launch.called", "launch.lease_expired"})
_POLL_SECONDS = 0.1


@dataclass(frozen=True)
class _LogEvent:
    at: float
    worker: str
    name: str


def measure_launch_recoveries(
    logs: Iterable[Path], kills: Iterable[WorkerKill], stopped: Iterable[str], server_restarts: Sequence[float]
) -> list[float]:
    """Seconds from each kill to the next sign of a launch that the worker had in hand.

    `excepted`: requests that somebody has stopped, which may end without any worker. `back`: when the server, killed
    too, was there again: what waited meanwhile waited for the server.
    """
    killed_at = {kill.worker: kill.at for kill in kills}
    without = set(stopped)
    found = []
    for request, events in _events_by_request(logs).items():
        for worker in {event.worker for event in events} & killed_at.keys():
            own = [event for event in events if event.worker == worker]
            if request not in without and own[-1].name in _IN_FLIGHT_EVENTS:
                later = (event.at for event in events if event.worker != worker and event.at >= own[-1].at)
                found.append(_recovery_seconds(killed_at[worker], min(later, default=float("inf")), server_restarts))
    return found


def measure_message_recoveries(
    unacked_intervals: Iterable[tuple[float, float]], kills: Iterable[WorkerKill], server_restarts: Sequence[float]
) -> list[float]:
    """Seconds from the first kill after a message was taken until anybody could take it again; `back`: as above.

    Which worker held it is not known: it may live, or have been killed later. So no recovery took longer than this.
    """
    killed_at = sorted(kill.at for kill in kills)
    found = []
    for first, then in unacked_intervals:
        since = next((at for at in killed_at if first <= at < then), None)
        if since is not None:
            found.append(_recovery_seconds(since, then, server_restarts))
    return found


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
            told = json.loads(line)
        except ValueError:
            continue  # cut off by the kill
        if isinstance(told, dict) and "id" in told and told["event"] != "request.received":
            at = datetime.fromisoformat(told["at"]).timestamp()
            yield told["id"], _LogEvent(at, path.stem, told["event"])


class UnackedMessageWatcher:
    """Sees which messages are in workers' hands.

    A context; `stays`: when one was taken, and when it was acknowledged or back at the head of its queue.
    """

    def __init__(self, redis_url: str, namespace: str) -> None:
        self._client: Any = redis.Redis.from_url(redis_url, socket_timeout=5)
        self._key = f"{namespace}:q:unacked_index"  # kombu's: delivery tag -> when it was taken
        self._taken_at: dict[bytes, float] = {}
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="message-watch")
        self.unacked_intervals: list[tuple[float, float]] = []

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopping.set()
        self._thread.join()
        self._client.close()

    def _run(self) -> None:
        while not self._stopping.wait(_POLL_SECONDS):
            try:
                in_hand = self._client.zrange(self._key, 0, -1, withscores=True)
            except redis.RedisError:
                continue  # it is being killed
            self._compare(dict(in_hand))

    def _compare(self, in_hand: dict[bytes, float]) -> None:
        now = time.time()
        for tag, at in self._taken_at.items():
            if in_hand.get(tag) != at:
                self.unacked_intervals.append((at, in_hand.get(tag, now)))
        self._taken_at = in_hand
