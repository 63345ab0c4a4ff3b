"""Replays recorded traffic: the same requests in the same rhythm, as new ones, against another stack."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import msgspec

from ecs_queue.core.envelope import TaskRequest, decode_request
from ecs_queue.core.keyring import NO_KEYS, Keyring
from ecs_queue.errors import UndecodableMessage
from ecs_queue.journal.base import JournalEvent
from ecs_queue.journal.redact import redacted_places

#: What makes the name of a namespace that of a test stack, as one of its parts.
_TEST_WORDS = frozenset(
    ("test", "tests", "testing", "dev", "local", "demo", "bench", "ci", "stage", "staging", "sandbox", "load")
)
#: The members of a request that are the caller's own words, but for its id.
_MEMBERS = ("queue", "command", "executor_config", "priority", "expires_in", "time_limit", "relaunch")
#: What is submitted at the same moment at most.
_AT_ONCE = 500


class Arrival(msgspec.Struct, frozen=True, kw_only=True):
    """One recorded request. `after`: seconds after the first one; `line`: its task line, without an id; `hidden`:
    where the journal has hidden secrets in it."""

    id: str
    after: float
    line: dict[str, Any]
    hidden: list[str]

    def __repr__(self) -> str:
        """Without the payload."""
        return f"Arrival(id={self.id!r}, after={self.after!r})"


class Traffic(msgspec.Struct, frozen=True, kw_only=True):
    """Requests in the order of their arrival. `unreadable`: how many are sealed, or of another version."""

    arrivals: list[Arrival]
    unreadable: int

    @property
    def seconds(self) -> float:
        """From the first to the last."""
        return self.arrivals[-1].after if self.arrivals else 0.0

    @property
    def queues(self) -> dict[str, int]:
        """How many requests each queue got."""
        return dict(Counter(arrival.line["queue"] for arrival in self.arrivals))

    @property
    def hidden(self) -> int:
        """How many requests are not what they were, for the journal does not keep secrets."""
        return sum(bool(arrival.hidden) for arrival in self.arrivals)


class Played(msgspec.Struct, frozen=True, kw_only=True):
    """What was submitted. `seconds`: from the first to the last; `late`: the longest delay behind the plan."""

    submitted: int
    seconds: float
    late: float


def traffic_of(events: Iterable[JournalEvent], keyring: Keyring = NO_KEYS) -> Traffic:
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
            found.append((event.at, request, redacted_places(envelope)))
    found.sort(key=lambda one: one[0])
    first = found[0][0] if found else 0.0
    arrivals = [
        Arrival(id=request.id, after=at - first, line=_line_of(request), hidden=hidden) for at, request, hidden in found
    ]
    return Traffic(arrivals=arrivals, unreadable=unreadable)


def is_test_namespace(namespace: str) -> bool:
    """Whether its name says that it is for tests: `test`, `etl-staging`, `dev_2`. Any other may be production."""
    return not _TEST_WORDS.isdisjoint(re.split(r"[-_0-9]+", namespace.lower()))


def play(
    arrivals: Sequence[Arrival],
    speed: float,
    submit: Callable[[Sequence[Arrival]], object],
    clock: Callable[[], float],
    sleep: Callable[[float], object],
) -> Played:
    """Submit each arrival at its time, `speed` times as fast; what is due at the same moment together.

    `clock`: a monotonic one, seconds. What `submit` raises ends it.
    """
    start = clock()
    late = 0.0
    for batch in _batches(arrivals, lambda: (clock() - start) * speed):
        wait = batch[0].after / speed - (clock() - start)
        if wait > 0:
            sleep(wait)
        late = max(late, clock() - start - batch[0].after / speed)
        submit(batch)
    return Played(submitted=len(arrivals), seconds=clock() - start, late=late)


def _batches(arrivals: Sequence[Arrival], reached: Callable[[], float]) -> Iterator[Sequence[Arrival]]:
    """What is due by now together, else the next one alone."""
    place = 0
    while place < len(arrivals):
        now, end = reached(), place + 1
        while end < len(arrivals) and arrivals[end].after <= now and end - place < _AT_ONCE:
            end += 1
        yield arrivals[place:end]
        place = end


def _line_of(request: TaskRequest) -> dict[str, Any]:
    return {name: getattr(request, name) for name in _MEMBERS}
