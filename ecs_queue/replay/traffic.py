"""Replays recorded traffic: submits the same requests with the same timing, as new ones, to another stack."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import msgspec

from ecs_queue.errors import UndecodableMessage
from ecs_queue.journal.base import JournalEvent
from ecs_queue.journal.redact import redacted_paths
from ecs_queue.messages.envelope import decode_request
from ecs_queue.messages.keyring import NO_KEYS, Keyring
from ecs_queue.messages.request import TaskRequest
from ecs_queue.runtask.resubmit import repeated_fields

#: A namespace is for tests if one of these is a part of its name.
_TEST_NAMESPACE_PARTS = frozenset(
    ("test", "tests", "testing", "dev", "local", "demo", "bench", "ci", "stage", "staging", "sandbox", "load")
)
#: Maximum number of requests in one submission.
_MAX_BATCH = 500


class RecordedRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One recorded request.

    Attributes:
        id: its id.
        offset_seconds: time after the first request.
        task: its task line, without an id.
        redacted_paths: where the journal redacted secrets in it.
    """

    id: str
    offset_seconds: float
    task: dict[str, Any]
    redacted_paths: list[str]

    def __repr__(self) -> str:
        """Leave out the payload."""
        return f"RecordedRequest(id={self.id!r}, offset_seconds={self.offset_seconds!r})"


class Traffic(msgspec.Struct, frozen=True, kw_only=True):
    """Requests in the order of their submission.

    `unreadable_count` is the number of requests that are encrypted or of another version, `unverified_count` of those
    that no signing key verifies; neither are among the requests.
    """

    requests: list[RecordedRequest]
    unreadable_count: int
    unverified_count: int = 0

    @property
    def duration_seconds(self) -> float:
        """Time from the first request to the last."""
        return self.requests[-1].offset_seconds if self.requests else 0.0

    @property
    def queue_counts(self) -> dict[str, int]:
        """Number of requests by queue."""
        return dict(Counter(request.task["queue"] for request in self.requests))

    @property
    def redacted_count(self) -> int:
        """Number of requests that differ from the original because the journal does not keep secrets."""
        return sum(bool(request.redacted_paths) for request in self.requests)


class TrafficReplay(msgspec.Struct, frozen=True, kw_only=True):
    """What was submitted.

    Attributes:
        submitted_count: number of requests.
        duration_seconds: time from the first submission to the last.
        max_lag_seconds: the longest delay behind the recorded timing.
    """

    submitted_count: int
    duration_seconds: float
    max_lag_seconds: float


def read_traffic(
    events: Iterable[JournalEvent], keyring: Keyring = NO_KEYS, *, trust_unsigned: bool = False
) -> Traffic:
    """Return the requests that were submitted, each once, as far as they are verified and can be read.

    Args:
        events: Those of an exported file.
        keyring: Decrypts the requests, for the namespace in which they were submitted.
        trust_unsigned: Take requests that no signing key verifies, too.
    """
    unsigned = keyring.without_signatures()
    found: list[tuple[float, TaskRequest, list[str]]] = []
    submissions: set[tuple[str, str]] = set()
    unreadable = unverified = 0
    for event in events:
        submission = (event.id, str(event.data.get("nonce")))
        if event.name != "request.submitted" or submission in submissions:
            continue
        if event.verified is False and not trust_unsigned:
            unverified += 1
            continue
        submissions.add(submission)  # a copy of a signed batch is signed as well
        envelope, namespace = event.data.get("envelope"), str(event.data.get("namespace") or keyring.namespace)
        try:
            request = decode_request(msgspec.json.encode(envelope), unsigned.for_namespace(namespace))
        except UndecodableMessage:
            unreadable += 1
        else:
            found.append((event.at, request, redacted_paths(envelope)))
    found.sort(key=lambda submission: submission[0])
    requests = [
        RecordedRequest(
            id=request.id,
            offset_seconds=at - found[0][0],
            task={
                "queue": request.queue,
                "command": request.command,
                "executor_config": request.executor_config,
                **repeated_fields(request),
            },
            redacted_paths=paths,
        )
        for at, request, paths in found
    ]
    return Traffic(requests=requests, unreadable_count=unreadable, unverified_count=unverified)


def is_test_namespace(namespace: str) -> bool:
    """Return whether a namespace's name says that it is for tests: `test`, `etl-staging`, `dev_2`."""
    return not _TEST_NAMESPACE_PARTS.isdisjoint(re.split(r"[-_0-9]+", namespace.lower()))


def submit_traffic(
    requests: Sequence[RecordedRequest],
    speed: float,
    submit: Callable[[Sequence[RecordedRequest]], object],
    clock: Callable[[], float],
    sleep: Callable[[float], object],
) -> TrafficReplay:
    """Submit the requests with their recorded timing. Requests that are due at the same time go in one submission.

    Args:
        requests: in the order of their offsets.
        speed: 2 submits twice as fast as recorded.
        submit: submits one batch; an exception ends the replay.
        clock: monotonic seconds.
        sleep: waits a number of seconds.
    """
    start = clock()
    max_lag = 0.0
    for batch in _due_batches(requests, lambda: (clock() - start) * speed):
        due = start + batch[0].offset_seconds / speed
        wait = due - clock()
        if wait > 0:
            sleep(wait)
        max_lag = max(max_lag, clock() - due)
        submit(batch)
    return TrafficReplay(submitted_count=len(requests), duration_seconds=clock() - start, max_lag_seconds=max_lag)


def _due_batches(
    requests: Sequence[RecordedRequest], position: Callable[[], float]
) -> Iterator[Sequence[RecordedRequest]]:
    """Yield all requests that are due together, otherwise the next one alone."""
    start = 0
    while start < len(requests):
        now, end = position(), start + 1
        while end < len(requests) and requests[end].offset_seconds <= now and end - start < _MAX_BATCH:
            end += 1
        yield requests[start:end]
        start = end
