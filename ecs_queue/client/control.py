"""What the Python client and the command line do with requests and queues that exist already."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from ecs_queue import durations
from ecs_queue.client.acting_user import acting_user, check_acting_user
from ecs_queue.client.handle import Handle
from ecs_queue.client.records import RecordFilter, find_record, iter_newest, iter_records
from ecs_queue.client.results import ResultReader
from ecs_queue.client.sender import BATCH_SIZE, RequestSender
from ecs_queue.crash_points import crash_point
from ecs_queue.errors import LedgerUnavailable, MissingRight, UnknownTask, UsageError
from ecs_queue.journal import check_has_journal, open_journal
from ecs_queue.journal.base import JournalEvent, seq_sort_key
from ecs_queue.journal.client_journal import ClientJournal
from ecs_queue.journal.selection import EventFilter, follow_events, select_events
from ecs_queue.ledger.base import Ledger
from ecs_queue.messages.fields import plain_text
from ecs_queue.messages.queue_names import parse_queue_name
from ecs_queue.protocol.operations import ONLY_QUEUED, ResultCode
from ecs_queue.protocol.record import Record
from ecs_queue.protocol.record_defects import build_broken_record
from ecs_queue.protocol.states import LIVE_STATES, State

if TYPE_CHECKING:
    from ecs_queue.config import Config

#: How long ago (seconds, a text such as "2h", or a timedelta), or when (a datetime with its zone).
Since = float | str | timedelta | datetime


class RequestControl:
    """Looks at requests, stops them, pauses queues and reads the journal. A base of `EcsQueue`, which opens it."""

    config: Config
    ledger: Ledger
    results: ResultReader
    _journal: ClientJournal
    _sender: RequestSender
    _is_closed: bool

    def _check_open(self) -> None:
        """Raise `UsageError` after `close`; a connection that is opened anew would never be closed."""
        if self._is_closed:
            raise UsageError("the client is closed: nothing was done; open a new one, or keep this one open longer")
        self.results.check_process()

    def tasks(
        self,
        *,
        states: Iterable[str] = (),
        queue: str | None = None,
        since: Since | None = None,
        owner: str | None = None,
        reason: str | None = None,
        labels: Mapping[str, str] | None = None,
        key: str | None = None,
        limit: int | None = None,
    ) -> Iterator[Record]:
        """Yield the records of requests: first those that have not ended, newest first, then the ended ones.

        With a `limit` those that ended last come first. Without one they come as the ledger lists them: results that
        their owners have not confirmed stand before the others.

        Args:
            states: Only requests in one of these states; all of them.
            queue: Only requests of this queue.
            since: Only requests that were submitted since then, by the ledger's clock.
            owner: Only requests whose results go to this owner.
            reason: Only requests whose reason contains this text, in upper or lower case.
            labels: Only requests with all of these labels.
            key: Only requests with this concurrency key.
            limit: The maximum number.

        Raises:
            UsageError: No state has such a name, no queue can have it, or `since` is no time.
        """
        self._check_open()
        selection = RecordFilter(
            states=frozenset(map(_parse_state, states)),
            queue=None if queue is None else parse_queue_name(queue),
            since=None if since is None else self._resolve(since),
            owner=owner,
            reason=reason,
            labels=labels or {},
            key=key,
        )
        if limit is None:
            return iter_records(self.ledger, selection.matches)
        return iter_newest(self.ledger, selection.matches, limit)

    def find_records(self, ids: Sequence[str]) -> list[Record | None]:
        """Return the records of these ids in order, None for an unknown one."""
        self._check_open()
        ids = list(map(plain_text, ids))
        return [
            record
            for start in range(0, len(ids), BATCH_SIZE)
            for record in self.ledger.get(ids[start : start + BATCH_SIZE])
        ]

    def status(self, name: str) -> Record:
        """Return the present record of an id, or of the ARN of its task; raise `UnknownTask` when there is none."""
        self._check_open()
        name = plain_text(name)
        record = find_record(self.ledger, name)
        if record is None:
            raise UnknownTask(f"no request {name} is known: it was never submitted, or its retention time is over")
        return record

    def stop(self, record_id: str, by: str | None = None) -> State:
        """Request a stop, and return the state after that. A request that is not launched yet ends at once (REVOKED).

        `by` names who asks, and becomes part of the reason; without it that is `acting_user` of the configuration.

        An unknown id is remembered for `accept_seconds` (a day by default): the request is revoked when it arrives.
        """
        return self.stop_many([record_id], by)[0].state

    def stop_many(self, ids: Sequence[str], by: str | None = None) -> list[Record]:
        """Request stops, and return the records after that, in order. One that is broken says so as its reason."""
        return [record for _, record in self._request_stops(ids, by)]

    def purge(self, queue: str, by: str | None = None) -> list[Record]:
        """End all requests of a queue that wait for a launch as REVOKED, and return their records.

        What is launched meanwhile goes on: nothing that runs, or may run, is stopped. A request that waits for its time
        or for another attempt is one that waits.
        """
        ids = [record.id for record in self.tasks(states=[State.QUEUED], queue=queue) if record.queue]
        return [
            record
            for start in range(0, len(ids), BATCH_SIZE)
            for record in self.purge_requests(ids[start : start + BATCH_SIZE], by)
        ]

    def purge_requests(self, ids: Sequence[str], by: str | None = None) -> list[Record]:
        """End those of the requests that still wait for a launch, as `purge` does, and return their records."""
        found = self._request_stops(ids, by, ONLY_QUEUED)
        return [record for code, record in found if code is ResultCode.ENDED]

    def _request_stops(self, ids: Sequence[str], by: str | None, launch: int = 0) -> list[tuple[ResultCode, Record]]:
        """Request stops; return what became of each, and its record after that. Unknown ones are left out."""
        self._check_open()
        records: list[tuple[ResultCode, Record]] = []
        ids = list(map(plain_text, ids))
        by = acting_user(self.config) if by is None else check_acting_user(by)
        results = self.ledger.stop(ids, by, launch)
        crash_point("client.stop_marked")
        for record_id, result in zip(ids, results, strict=True):
            self._journal.record_stop_request(record_id, by, result.code)
            if result.code is ResultCode.BROKEN:
                records.append((result.code, build_broken_record(record_id, "nothing was stopped")))
                continue
            if launch and result.code is ResultCode.NOT_FOUND:
                continue
            if result.record is None:
                raise UnknownTask(f"the ledger returned no record of {record_id} for the stop: {result.code}")
            if result.code is ResultCode.ENDED and result.record.owner:
                self._sender.publish_result(result.record)
            records.append((result.code, result.record))
        return records

    def stop_all(self, *, states: Iterable[str] = (), queue: str | None = None, by: str | None = None) -> list[Record]:
        """Request stops of all requests of a queue and of some states that have not ended; return the records.

        Raises:
            UsageError: Neither is given, or a state is none of a request that has not ended.
        """
        wanted = frozenset(map(_parse_state, states))
        if not wanted and queue is None:
            raise UsageError("stop_all: expected a queue or states, found neither; nothing was stopped")
        if not wanted <= LIVE_STATES:
            expected = ", ".join(sorted(LIVE_STATES))
            raise UsageError(f"stop_all: expected states of {expected}, found {min(wanted - LIVE_STATES)}")
        ids = [record.id for record in self.tasks(states=wanted or LIVE_STATES, queue=queue) if record.queue]
        return [
            record
            for start in range(0, len(ids), BATCH_SIZE)
            for record in self.stop_many(ids[start : start + BATCH_SIZE], by)
        ]

    def cancel_many(self, handles: Sequence[Handle]) -> int:
        """Request stops, end the handles of what they ended, and return how many were revoked at once."""
        revoked = 0
        going_on = [handle for handle in handles if not handle.done()]
        for start in range(0, len(going_on), BATCH_SIZE):
            batch = going_on[start : start + BATCH_SIZE]
            for handle, record in zip(batch, self.stop_many([handle.id for handle in batch]), strict=True):
                revoked += handle.note_stop(record)
        return revoked

    def pause(self, *queues: str) -> list[str]:
        """Launch no more requests of these queues until they are resumed; tasks in flight go on.

        Returns:
            The queues that no live worker serves: their names may be misspelt. Empty when the workers cannot be listed.

        Raises:
            UsageError: No queue can have one of these names; then none is paused.
        """
        self._check_open()
        names = [parse_queue_name(queue) for queue in queues]
        self.ledger.pause_queues(names)
        try:
            served = {name for worker in self.ledger.list_workers() for name in worker.queues}
        except (LedgerUnavailable, MissingRight):  # the queues are paused, and a caller may rely on it
            return []
        return [name for name in names if name not in served]

    def resume(self, *queues: str) -> list[str]:
        """Launch requests of these queues again, and return those that were paused. Workers follow within a second.

        Raises:
            UsageError: No queue can have one of these names; then none is resumed.
        """
        self._check_open()
        names = [parse_queue_name(queue) for queue in queues]
        paused = self.ledger.list_paused_queues()
        self.ledger.resume_queues(names)
        return [name for name in names if name in paused]

    def paused_queues(self) -> dict[str, float]:
        """Return the paused queues and since when (seconds since the epoch by the ledger's clock)."""
        self._check_open()
        return self.ledger.list_paused_queues()

    def events(
        self,
        *ids: str,
        names: Iterable[str] = (),
        worker: str | None = None,
        since: Since | None = None,
        follow: bool = False,
    ) -> Iterator[JournalEvent]:
        """Yield the events of the journal in their order; those of chosen requests one request after the other.

        Args:
            ids: Only events of these requests; the cost depends on their events alone.
            names: Only events of these names; * is any text, as in "launch.*".
            worker: Only events that this worker wrote.
            since: Only events since then, by the ledger's clock.
            follow: Also yield what is written later, until the client is closed.

        Raises:
            UsageError: The ledger is in memory, which has no journal.
            JournalUnavailable: The journal cannot be read now.
        """
        self._check_open()
        selection = EventFilter(tuple(map(plain_text, ids)), tuple(names), worker)
        start = None if since is None else self._resolve(since)
        check_has_journal(self.config)
        return self._read_events(selection, start, follow)

    def _read_events(self, selection: EventFilter, since: float | None, follow: bool) -> Iterator[JournalEvent]:
        with closing(open_journal(self.config)) as reader:  # an iterator that is never used would not close it
            newest = reader.last_seq()
            for event in select_events(reader, selection, since):
                yield event
                newest = max(newest, event.seq, key=seq_sort_key)
            if follow:
                yield from follow_events(reader, selection, newest, lambda: self._is_closed)

    def _resolve(self, since: Since) -> float:
        """Return seconds since the epoch by the ledger's clock."""
        if isinstance(since, datetime):
            if since.tzinfo is None:  # it would be a time of this machine's zone, and `utcnow()` of another one
                raise UsageError(f"since: expected a datetime with its time zone, found {since.isoformat()}")
            return since.timestamp()
        seconds = durations.parse_duration(since)
        if seconds is None:
            raise UsageError(f"since: expected an age such as {durations.EXAMPLES}, or a datetime, found {since!r:.80}")
        return self.ledger.now() - seconds


def _parse_state(name: str) -> State:
    try:
        return State(name.upper())
    except ValueError:
        raise UsageError(f"states: expected one of {', '.join(State)}, found {name!r:.80}") from None
