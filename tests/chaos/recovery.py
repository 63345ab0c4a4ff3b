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

from tests.chaos.fleet import Kill

#: With these a launch is in a worker's hands; by whatever it, or another one, tells next of the request, it goes on.
_IN_HAND = frozenset({"launch.called", "launch.due"})
_LOOK = 0.1


@dataclass(frozen=True)
class _Event:
    at: float
    worker: str
    name: str


def launch_recoveries(
    logs: Iterable[Path], kills: Iterable[Kill], excepted: Iterable[str], back: Sequence[float]
) -> list[float]:
    """Seconds from each kill to the next sign of a launch that the worker had in hand.

    `excepted`: requests that somebody has stopped, which may end without any worker. `back`: when the server, killed
    too, was there again: what waited meanwhile waited for the server.
    """
    killed_at = {kill.worker: kill.at for kill in kills}
    without = set(excepted)
    found = []
    for request, events in _by_request(logs).items():
        for worker in {event.worker for event in events} & killed_at.keys():
            own = [event for event in events if event.worker == worker]
            if request not in without and own[-1].name in _IN_HAND:
                later = (event.at for event in events if event.worker != worker and event.at >= own[-1].at)
                found.append(_waited(killed_at[worker], min(later, default=float("inf")), back))
    return found


def message_recoveries(
    stays: Iterable[tuple[float, float]], kills: Iterable[Kill], back: Sequence[float]
) -> list[float]:
    """Seconds from the first kill after a message was taken until anybody could take it again; `back`: as above.

    Which worker held it is not known: it may live, or have been killed later. So no recovery took longer than this.
    """
    killed_at = sorted(kill.at for kill in kills)
    found = []
    for first, then in stays:
        since = next((at for at in killed_at if first <= at < then), None)
        if since is not None:
            found.append(_waited(since, then, back))
    return found


def _waited(since: float, until: float, back: Sequence[float]) -> float:
    return max(0.0, until - max([since, *(at for at in back if at < until)]))


def _by_request(logs: Iterable[Path]) -> dict[str, list[_Event]]:
    events: defaultdict[str, list[_Event]] = defaultdict(list)
    for path in logs:
        for request, event in _events(path):
            events[request].append(event)
    for each in events.values():
        each.sort(key=lambda event: event.at)
    return events


def _events(path: Path) -> Iterator[tuple[str, _Event]]:
    for line in path.read_text(errors="replace").splitlines():
        try:
            told = json.loads(line)
        except ValueError:
            continue  # cut off by the kill
        if isinstance(told, dict) and "id" in told and told["event"] != "request.received":
            at = datetime.fromisoformat(told["at"]).timestamp()
            yield told["id"], _Event(at, path.stem, told["event"])


class MessageWatch:
    """Sees which messages are in workers' hands.

    A context; `stays`: when one was taken, and when it was acknowledged or back at the head of its queue.
    """

    def __init__(self, redis_url: str, namespace: str) -> None:
        self._client: Any = redis.Redis.from_url(redis_url, socket_timeout=5)
        self._key = f"{namespace}:q:unacked_index"  # kombu's: delivery tag -> when it was taken
        self._taken_at: dict[bytes, float] = {}
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="message-watch")
        self.stays: list[tuple[float, float]] = []

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()
        self._client.close()

    def _run(self) -> None:
        while not self._over.wait(_LOOK):
            try:
                in_hand = self._client.zrange(self._key, 0, -1, withscores=True)
            except redis.RedisError:
                continue  # it is being killed
            self._compare(dict(in_hand))

    def _compare(self, in_hand: dict[bytes, float]) -> None:
        now = time.time()
        for tag, at in self._taken_at.items():
            if in_hand.get(tag) != at:
                self.stays.append((at, in_hand.get(tag, now)))
        self._taken_at = in_hand
