"""Replays recorded traffic: the same requests in the same rhythm, as new ones, against another stack."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import msgspec

from ecs_queue.errors import UndecodableMessage
from ecs_queue.journal.base import JournalEvent
from ecs_queue.journal.redact import redacted_paths
from ecs_queue.messages.envelope import TaskRequest, decode_request
from ecs_queue.messages.keyring import NO_KEYS, Keyring

#: What makes the name of a namespace that of a test stack, as one of its parts.
_TEST_NAMESPACE_PARTS = frozenset(
    ("test", "tests", "testing", "dev", "local", "demo", "bench", "ci", "stage", "staging", "sandbox", "load")
)
#: The members of a request that are the caller's own words, but for its id.
_REPLAYED_FIELDS = ("queue", "command", "executor_config", "priority", "expires_in", "time_limit", "relaunch")
#: What is submitted at the same moment at most.
_MAX_BATCH = 500


class RecordedRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One recorded request. `after`: seconds after the first one; `line`: its task line, without an id; `hidden`:
    where the journal has hidden secrets in it."""

    id: str
    offset_seconds: float
    task: dict[str, Any]
    redacted_paths: list[str]

    def __repr__(self) -> str:
        """Without the payload."""
        return f"Arrival(id={self.id!r}, after={self.offset_seconds!r})"


class Traffic(msgspec.Struct, frozen=True, kw_only=True):
    """Requests in the order of their arrival. `unreadable`: how many are sealed, or of another version."""

    requests: list[RecordedRequest]
    unreadable_count: int

    @property
    def duration_seconds(self) -> float:
        """From the first to the last."""
        return self.requests[-1].offset_seconds if self.requests else 0.0

    @property
    def queue_counts(self) -> dict[str, int]:
        """How many requests each queue got."""
        return dict(Counter(arrival.task["queue"] for arrival in self.requests))

    @property
    def redacted_count(self) -> int:
        """How many requests are not what they were, for the journal does not keep secrets."""
        return sum(bool(arrival.redacted_paths) for arrival in self.requests)


class TrafficReplay(msgspec.Struct, frozen=True, kw_only=True):
    """What was submitted. `seconds`: from the first to the last; `late`: the longest delay behind the plan."""

    submitted_count: int
    duration_seconds: float
    max_lag_seconds: float


def read_traffic(events: Iterable[JournalEvent], keyring: Keyring = NO_KEYS) -> Traffic:
    """The requests that were submitted, as far as they can be read; `keyring` opens what is sealed."""
    reading = keyring.without_signatures()
    found: list[tuple[float, TaskRequest, list[str]]] = []
    unreadable = 0
    for event in events:
        if event.name != "request.submitted":
            continue
        envelope = event.data.get("envelope")
        try:
            request = decode_request(msgspec.json.encode(envelope), reading)
        except UndecodableMessage:
            unreadable += 1
        else:
            found.append((event.at, request, redacted_paths(envelope)))
    found.sort(key=lambda one: one[0])
    first = found[0][0] if found else 0.0
    arrivals = [
        RecordedRequest(id=request.id, offset_seconds=at - first, task=_task_fields(request), redacted_paths=hidden)
        for at, request, hidden in found
    ]
    return Traffic(requests=arrivals, unreadable_count=unreadable)


def is_test_namespace(namespace: str) -> bool:
    """Whether its name says that it is for tests: `test`, `etl-staging`, `dev_2`. Any other may be production."""
    return not _TEST_NAMESPACE_PARTS.isdisjoint(re.split(r"[-_0-9]+", namespace.lower()))


def submit_traffic(
    requests: Sequence[RecordedRequest],
    speed: float,
    submit: Callable[[Sequence[RecordedRequest]], object],
    clock: Callable[[], float],
    sleep: Callable[[float], object],
) -> TrafficReplay:
    """Submit each arrival at its time, `speed` times as fast; what is due at the same moment together.

    `clock`: a monotonic one, seconds. What `submit` raises ends it.
    """
    start = clock()
    late = 0.0
    for batch in _due_batches(requests, lambda: (clock() - start) * speed):
        wait = batch[0].offset_seconds / speed - (clock() - start)
        if wait > 0:
            sleep(wait)
        late = max(late, clock() - start - batch[0].offset_seconds / speed)
        submit(batch)
    return TrafficReplay(submitted_count=len(requests), duration_seconds=clock() - start, max_lag_seconds=late)


def _due_batches(
    requests: Sequence[RecordedRequest], position: Callable[[], float]
) -> Iterator[Sequence[RecordedRequest]]:
    """What is due by now together, else the next one alone."""
    place = 0
    while place < len(requests):
        now, end = position(), place + 1
        while end < len(requests) and requests[end].offset_seconds <= now and end - place < _MAX_BATCH:
            end += 1
        yield requests[place:end]
        place = end


def _task_fields(request: TaskRequest) -> dict[str, Any]:
    return {name: getattr(request, name) for name in _REPLAYED_FIELDS}
