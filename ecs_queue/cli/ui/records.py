"""Finds requests and queues in the ledger, as several commands need them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from difflib import get_close_matches
from typing import TYPE_CHECKING

from ecs_queue.cli.ui.output import print_stderr
from ecs_queue.errors import BrokerUnavailable, LedgerUnavailable

if TYPE_CHECKING:
    from ecs_queue.client.client import EcsQueue
    from ecs_queue.ledger.base import RequestReader, WorkerInfo
    from ecs_queue.protocol.record import Record

#: The values of `ecs_queue.protocol.states.State`, without its import; a test compares them.
STATE_NAMES = ("QUEUED", "LAUNCHING", "LAUNCHED", "SUCCESS", "FAILED", "REMOVED", "REVOKED", "EXPIRED", "UNKNOWN")
_PAGE_SIZE = 500
#: The ledger indexes the ARNs of live tasks only; the ARN of an ended one is searched among this many newest requests.
_MAX_ARN_SEARCH = 20_000


def find_record(ledger: RequestReader, name: str) -> Record | None:
    """Return the record of a request's id or of its task's ARN."""
    if ":" not in name:
        return ledger.get([name])[0]
    record_id = ledger.find_id_by_arn(name)
    if record_id is not None:
        return ledger.get([record_id])[0]
    newest = itertools.islice(iter_records(ledger, lambda _: True, _PAGE_SIZE), _MAX_ARN_SEARCH)
    return next((record for record in newest if record.arn == name), None)


def iter_records(ledger: RequestReader, matches: Callable[[Record], bool], page: int) -> Iterator[Record]:
    """Yield the matching records, newest first, each once although it may move while the pages are read."""
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


def list_queues(client: EcsQueue, workers: Sequence[WorkerInfo], *others: Iterable[str]) -> list[str]:
    """Return the names of all known queues, sorted: the configured ones, those of workers, and `others`."""
    names = {"default", *(profile.queue for profile in client.config.profiles()), *itertools.chain(*others)}
    names.update(name for worker in workers for name in worker.queues)
    return sorted(names - {""})  # "": the ledger's entry for stops of requests that never came


def warn_unserved_queues(client: EcsQueue, names: Iterable[str]) -> None:
    """Say which of the queues no live worker serves: its name may be misspelt. An outage of the ledger says nothing."""
    try:
        served = {name for worker in client.ledger.list_workers() for name in worker.queues}
    except LedgerUnavailable:
        return  # the requests are submitted, and waiting outlasts an outage
    for name in sorted(set(names) - served):
        near = get_close_matches(name, served, n=1)
        advice = f"did you mean {near[0]}? Or start one" if near else "start one"
        print_stderr(f"ecs-queue: no live worker serves queue {name}; {advice}: ecs-queue worker --queues {name}")


def read_backlog(client: EcsQueue, queue: str) -> int | None:
    """Return how many messages wait in the queue; None, and a sentence on stderr, when the broker cannot be reached."""
    try:
        return client.backlog(queue)
    except BrokerUnavailable as error:
        print_stderr(f"ecs-queue: {error}")
        return None
