"""Reads what the pages show, from the client, the ledger and the journal."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
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
from ecs_queue.journal.last_hour import ElementSummary, HourCounter, HourCounts
from ecs_queue.journal.selection import EventFilter, read_newest
from ecs_queue.journal.timeline import Timeline, build_timeline
from ecs_queue.ledger.base import DeadLetter, DeadLetters, RequestReader
from ecs_queue.monitoring.namespace_state import NamespaceState, count_runners, read_namespace_state
from ecs_queue.monitoring.quota_use import QuotaUse, measure_quota_use
from ecs_queue.protocol.record import Record
from ecs_queue.protocol.runs import Run, RunnerActivity, find_activity, queue_of_pool
from ecs_queue.version import package_version

_T = TypeVar("_T")

#: Requests of one page of the list. With filters at most `_MAX_SCANNED` records are read for a page.
PAGE_SIZE = 50
_MAX_SCANNED = 1000
#: The charts read hundreds of elements of a journal at first: after this time with a pause after each. Seconds.
_EAGER_SECONDS, _PAUSE_SECONDS = 0.1, 0.002
#: Runners that are read. Of more of them these are shown.
MAX_RUNNERS = 1000
#: Events that the journal's page begins with.
NEWEST_EVENTS = 50
#: Before the first event.
_START = "0-0.0"
_SEQ = re.compile(r"[0-9]{1,20}-[0-9]{1,20}\.[0-9]{1,10}")
_NO_RIGHT = "This user of the server may not read the journal (conf/redis-users.acl: operator may)."


@dataclass(frozen=True)
class Overview:
    """The first page.

    `problems` come first; `state` has the queues and the workers; `dead_letters` is None where they may not be counted.
    """

    state: NamespaceState
    problems: Sequence[Finding]
    now: float
    quota: Sequence[QuotaUse]
    runners: Mapping[str, Mapping[RunnerActivity, int]]
    dead_letters: int | None

    @property
    def all_runners_counted(self) -> bool:
        """Whether `runners` are all that there are."""
        return sum(sum(each.values()) for each in self.runners.values()) < MAX_RUNNERS

    @property
    def waiting(self) -> int:
        """Requests that could be launched now."""
        return sum(queue.waiting for queue in self.state.queues.values())

    @property
    def in_flight(self) -> int:
        """Requests that are being launched or run."""
        return sum(queue.in_flight for queue in self.state.queues.values())

    def launch_rate(self, queue: str | None = None) -> float:
        """Return the launches a second over the last minute, of all queues by default."""
        return _add_rates((worker.launch_rates for worker in self.state.workers), queue)

    def end_rate(self, queue: str | None = None) -> float:
        """Return the ends a second over the last minute, of all queues by default."""
        return _add_rates((worker.end_rates for worker in self.state.workers), queue)


@dataclass(frozen=True)
class RunnerRow:
    """One runner of a warm pool, and what it does."""

    run: Run
    queue: str
    activity: RunnerActivity


@dataclass(frozen=True)
class RequestView:
    """One request.

    Attributes:
        record: None when its retention is over and only the journal has it.
        origin: The id of the request that this one repeats; "" for none, or when the journal does not tell.
        origin_is_known: Whether the ledger or the journal still has that request.
        retry: The id of the request that `ecs-queue retry` made of this one; "" for none.
    """

    record: Record | None
    timeline: Timeline
    events: Sequence[JournalEvent]
    now: float
    paused: dict[str, float] = field(default_factory=dict)
    note: str = ""
    origin: str = ""
    origin_is_known: bool = False
    retry: str = ""


def read_overview(client: EcsQueue, broker: Broker) -> Overview:
    """Return the queues, the workers and what `ecs-queue workers --check` finds."""
    config = client.config
    known = ["default", *sorted(config.named_profiles)]
    state = read_namespace_state(client.ledger, client.backlog, known)
    found = check_workers(config, broker, client.ledger, package_version())
    problems = [finding for finding in found if finding.severity.value in ("error", "warning")]
    ledger, now = client.ledger, client.ledger.now()
    try:
        dead_letters = ledger.total_dead_letters()
    except MissingRight:  # the server has the rights of an earlier version
        dead_letters = None
    return Overview(
        state,
        sorted(problems, key=lambda finding: finding.severity.value),
        now,
        quota=measure_quota_use(state.workers),
        runners=count_runners(ledger.list_runs(MAX_RUNNERS), now, config.runner_ttl),
        dead_letters=dead_letters,
    )


def list_runners(client: EcsQueue, queue: str, after: str) -> tuple[list[RunnerRow], str]:
    """Return runners behind the one with the name `after`, by name, of a queue or "" for all; and the next cursor."""
    ledger, now = client.ledger, client.ledger.now()
    found = []
    for run in ledger.list_runs(MAX_RUNNERS):
        activity, of = find_activity(run, now, client.config.runner_ttl), queue_of_pool(run.pool)
        if activity is not None and run.name > after and queue in ("", of):
            found.append(RunnerRow(run, of, activity))
    return found[:PAGE_SIZE], found[PAGE_SIZE - 1].run.name if len(found) > PAGE_SIZE else ""


def read_last_hour(client: EcsQueue, counter: HourCounter) -> HourCounts | str:
    """Return what was submitted, launched and ended in the last hour, or why that is not known."""
    return _with_journal(
        client, lambda journal: counter.update(_with_pauses(journal.summaries_newest_first()), journal.now())
    )


def _with_pauses(elements: Iterator[ElementSummary]) -> Iterator[ElementSummary]:
    """Let the threads of pages have the interpreter between two elements, once the journal has shown to be long."""
    began = time.monotonic()
    for element in elements:
        yield element
        if time.monotonic() - began > _EAGER_SECONDS:
            time.sleep(_PAUSE_SECONDS)


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


def read_request(client: EcsQueue, record_id: str, build_retry_id: Callable[[Record], str]) -> RequestView | None:
    """Return a request with its timeline; None when neither ledger nor journal knows it.

    `build_retry_id` returns the id that a retry of a request has.
    """
    record = client.ledger.get([record_id])[0]
    found = _with_journal(client, lambda journal: list(journal.request_events(record_id)))
    events, note = ((), found) if isinstance(found, str) else (found, "")
    timeline = build_timeline(record, events, record_id)
    if timeline is None:
        return None
    origin, retry = find_origin(events), build_retry_id(record) if record else ""
    others = [name for name in (origin, retry) if name]
    known = {name for name, other in zip(others, client.ledger.get(others) if others else (), strict=True) if other}
    return RequestView(
        record,
        timeline,
        events,
        client.ledger.now(),
        client.ledger.list_paused_queues(),
        note,
        origin=origin,
        origin_is_known=origin in known or (bool(origin) and _is_in_journal(client, origin)),
        retry=retry if retry in known else "",
    )


def find_origin(events: Iterable[JournalEvent]) -> str:
    """Return the id of the request that this one repeats, as its envelope in the journal names it; "" for none."""
    origin = (_envelope_members(events) or {}).get("origin")
    return origin if isinstance(origin, str) else ""


def _is_in_journal(client: EcsQueue, record_id: str) -> bool:
    return _with_journal(client, lambda journal: any(True for _ in journal.request_events(record_id))) is True


def newest_events(client: EcsQueue) -> tuple[list[JournalEvent], str] | str:
    """Return the newest events and the `seq` after which the next ones come, or why there are none."""

    def read(journal: RedisJournal) -> tuple[list[JournalEvent], str]:
        last = journal.last_seq()
        return (read_newest(journal, EventFilter(), NEWEST_EVENTS, last), last) if last else ([], _START)

    return _with_journal(client, read)


def is_seq(text: str) -> bool:
    """Return whether this is the `seq` of an event, as far as its form says."""
    return _SEQ.fullmatch(text) is not None


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
    members = _envelope_members(events)
    if members is None:
        return ""
    hidden = {name: _hide(members[name]) for name in ("command", "executor_config") if members.get(name) is not None}
    return json.dumps(hidden, indent=2)


def revealed_arguments_text(events: Iterable[JournalEvent]) -> str:
    """Return the request's command and configuration as the journal has them: without what journal_redaction hides."""
    members = _envelope_members(events)
    if members is None:
        return ""
    return json.dumps({name: members.get(name) for name in ("command", "executor_config")}, indent=2)


def _envelope_members(events: Iterable[JournalEvent]) -> dict[str, Any] | None:
    """Return the newest envelope; None without one. Who can write to the server can make an event with any JSON."""
    envelope = newest_envelope(events)
    members = None if envelope is None else json.loads(envelope)
    return members if isinstance(members, dict) else None


def _add_rates(rates: Iterable[Mapping[str, float]], queue: str | None) -> float:
    return sum(sum(each.values()) if queue is None else each.get(queue, 0.0) for each in rates)


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
