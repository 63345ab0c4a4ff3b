"""Reads what the pages show, from the client, the ledger and the journal."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any, TypeVar

from ecs_queue.broker.base import Broker
from ecs_queue.client.client import EcsQueue
from ecs_queue.client.records import RecordFilter
from ecs_queue.doctor.workers import check_workers
from ecs_queue.errors import JournalUnavailable, MissingRight, UsageError
from ecs_queue.findings import Finding
from ecs_queue.journal import JournalEvent, RedisJournal, open_journal
from ecs_queue.journal.base import newest_envelope
from ecs_queue.journal.selection import EventFilter, read_newest
from ecs_queue.journal.timeline import Timeline, build_timeline
from ecs_queue.ledger.base import DeadLetter, DeadLetters, RequestReader
from ecs_queue.monitoring.namespace_state import NamespaceState, read_namespace_state
from ecs_queue.protocol.record import Record
from ecs_queue.version import package_version

_T = TypeVar("_T")

#: Requests of one page of the list. With filters at most `_MAX_SCANNED` records are read for a page.
PAGE_SIZE = 50
_MAX_SCANNED = 1000
#: Events that the journal's page begins with.
NEWEST_EVENTS = 50
_NO_RIGHT = "This user of the server may not read the journal (conf/redis-users.acl: operator may)."


@dataclass(frozen=True)
class Overview:
    """The first page. `problems` come first; `state` has the queues and the workers."""

    state: NamespaceState
    problems: Sequence[Finding]
    now: float


@dataclass(frozen=True)
class RequestView:
    """One request. `record` is None when its retention is over and only the journal has it."""

    record: Record | None
    timeline: Timeline
    events: Sequence[JournalEvent]
    now: float
    paused: dict[str, float] = field(default_factory=dict)
    note: str = ""


def read_overview(client: EcsQueue, broker: Broker) -> Overview:
    """Return the queues, the workers and what `ecs-queue workers --check` finds."""
    config = client.config
    known = ["default", *sorted(config.named_profiles)]
    state = read_namespace_state(client.ledger, client.backlog, known)
    found = check_workers(config, broker, client.ledger, package_version())
    problems = [finding for finding in found if finding.severity.value in ("error", "warning")]
    return Overview(state, sorted(problems, key=lambda finding: finding.severity.value), client.ledger.now())


def list_page(ledger: RequestReader, selection: RecordFilter, after: str) -> tuple[list[Record], str]:
    """Return some selected requests, and the cursor of the next page; "" when there are no more.

    The list may be short, or empty, with a cursor: then the bound of one page was reached.
    """
    is_filtered = selection != RecordFilter()
    size, found, scanned, cursor = 2 * PAGE_SIZE if is_filtered else PAGE_SIZE, list[Record](), 0, after
    while True:
        records, cursor = ledger.list_records(cursor, size)
        found += filter(selection.matches, records)
        scanned += len(records)
        if not cursor or len(found) >= PAGE_SIZE or scanned >= _MAX_SCANNED:
            return found, cursor


def read_request(client: EcsQueue, record_id: str) -> RequestView | None:
    """Return a request with its timeline; None when neither ledger nor journal knows it."""
    record = client.ledger.get([record_id])[0]
    found = _with_journal(client, lambda journal: list(journal.request_events(record_id)))
    events, note = ((), found) if isinstance(found, str) else (found, "")
    timeline = build_timeline(record, events, record_id)
    if timeline is None:
        return None
    return RequestView(record, timeline, events, client.ledger.now(), client.ledger.list_paused_queues(), note)


def newest_events(client: EcsQueue) -> tuple[list[JournalEvent], str] | str:
    """Return the newest events and the `seq` after which the next ones come, or why there are none."""

    def read(journal: RedisJournal) -> tuple[list[JournalEvent], str]:
        last = journal.last_seq()
        return read_newest(journal, EventFilter(), NEWEST_EVENTS, last) if last else [], last

    return _with_journal(client, read)


def read_next_events(client: EcsQueue, after: str, seconds: float) -> list[JournalEvent] | str:
    """Return the events after `after`, waiting up to `seconds` for the first, or why they cannot be read."""
    return _with_journal(client, lambda journal: list(journal.tail(after, seconds)))


def read_dead_letters(ledger: DeadLetters, after: str) -> tuple[list[DeadLetter], str]:
    """Return dead letters, newest first, behind the one with the key `after`; and the key to go on with, "" at the end.

    Raises:
        MissingRight: This user of the server may not read them.
    """
    last = ledger.get_dead_letters([after])[0] if after else None
    page = ledger.list_dead_letters(PAGE_SIZE, last) if last else ledger.list_dead_letters(PAGE_SIZE)
    return page, page[-1].key if len(page) == PAGE_SIZE else ""


def arguments_text(events: Iterable[JournalEvent]) -> str:
    """Return the request as JSON with the names in its command and configuration, and "hidden" for each value.

    Returns "" when the journal does not have it.
    """
    envelope = newest_envelope(events)
    if envelope is None:
        return ""
    members = json.loads(envelope)
    hidden = {name: _hide(members[name]) for name in ("command", "executor_config") if members.get(name) is not None}
    return json.dumps(hidden, indent=2)


def revealed_arguments_text(events: Iterable[JournalEvent]) -> str:
    """Return the request's command and configuration as the journal has them: without what journal_redaction hides."""
    envelope = newest_envelope(events)
    if envelope is None:
        return ""
    members = json.loads(envelope)
    return json.dumps({name: members.get(name) for name in ("command", "executor_config")}, indent=2)


def _hide(value: Any) -> Any:
    """A `name` of an environment variable stays; it says what the value would be."""
    if isinstance(value, dict):
        return {name: item if name == "name" else _hide(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_hide(item) for item in value]
    return "hidden"


def _with_journal(client: EcsQueue, read: Callable[[RedisJournal], _T]) -> _T | str:
    try:
        with closing(open_journal(client.config)) as journal:
            return read(journal) if journal.is_readable() else _NO_RIGHT
    except (JournalUnavailable, MissingRight, UsageError) as error:
        return str(error)
