"""Finds requests in the ledger, for the Python client and the command line."""

from __future__ import annotations

import heapq
import itertools
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ecs_queue.ledger.base import RequestReader
    from ecs_queue.protocol.record import Record

PAGE_SIZE = 500
#: The ledger lists ended requests by the time at which it forgets them, and keeps results that no owner confirms for
#: longer. So the last ends are looked for among this many.
_MAX_RECENT_ENDS = 1000
#: The ledger indexes the ARNs of live tasks only; the ARN of an ended one is searched among this many newest requests.
_MAX_ARN_SEARCH = 20_000


@dataclass(frozen=True)
class RecordFilter:
    """Selects requests. A member that is None or empty selects all.

    Attributes:
        states: Their states.
        queue: The canonical name of their queue.
        since: When they were submitted at the earliest, seconds since the epoch by the ledger's clock.
        owner: Whom their results go to.
        reason: What their reason contains, in upper or lower case.
        labels: Labels that they have.
        key: Their concurrency key.
    """

    states: frozenset[str] = frozenset()
    queue: str | None = None
    since: float | None = None
    owner: str | None = None
    reason: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    key: str | None = None

    def matches(self, record: Record) -> bool:
        """Return whether the record is selected."""
        return (
            (not self.states or record.state.value in self.states)
            and self.queue in (None, record.queue)
            and (self.since is None or record.created_at >= self.since)
            and self.owner in (None, record.owner)
            and (self.reason is None or self.reason.lower() in record.reason.lower())
            and self.key in (None, record.concurrency_key)
            and (not self.labels or self.labels.items() <= decode_labels(record).items())
        )


def decode_labels(record: Record) -> dict[str, str]:
    """Return the labels of a request; none when another program has written something else in their place."""
    try:
        labels = json.loads(record.labels) if record.labels else {}
    except (ValueError, RecursionError):
        return {}
    is_sound = isinstance(labels, dict) and all(isinstance(value, str) for value in labels.values())
    return labels if is_sound else {}


def find_record(ledger: RequestReader, name: str) -> Record | None:
    """Return the record of a request's id or of its task's ARN."""
    if ":" not in name:
        return ledger.get([name])[0]
    record_id = ledger.find_id_by_arn(name)
    if record_id is not None:
        return ledger.get([record_id])[0]
    newest = itertools.islice(iter_records(ledger, lambda _: True), _MAX_ARN_SEARCH)
    return next((record for record in newest if record.arn == name), None)


def iter_records(ledger: RequestReader, matches: Callable[[Record], bool], page: int = PAGE_SIZE) -> Iterator[Record]:
    """Yield the matching records: first the live ones, newest first, then the ended ones as the ledger lists them.

    It lists first what it keeps longest. A record may move while the pages are read; it is yielded once.
    """
    yielded: set[tuple[str, str]] = set()
    cursor = ""
    while True:
        records, cursor = ledger.list_records(cursor, page)
        for record in records:
            if matches(record) and (record.id, record.nonce) not in yielded:
                yielded.add((record.id, record.nonce))
                yield record
        if not cursor:
            return


def iter_newest(ledger: RequestReader, matches: Callable[[Record], bool], limit: int) -> Iterator[Record]:
    """Yield up to `limit` matching records: first the live ones, newest first, then those that ended last.

    The last ends are right where they are among the first 1,000 that the ledger lists. It lists first the results that
    their owners have not confirmed.
    """
    if limit < 1:
        return
    ended: list[Record] = []
    looked_at = 0
    for record in iter_records(ledger, lambda _: True):
        if record.is_terminal:
            looked_at += 1
            if matches(record):
                ended.append(record)
            if len(ended) >= limit and looked_at >= _MAX_RECENT_ENDS:
                break
        elif matches(record):
            yield record
            limit -= 1
            if not limit:
                return
    yield from heapq.nlargest(limit, ended, key=lambda record: record.finished_at)
