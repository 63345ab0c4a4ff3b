"""The Python client: submit commands, wait for their results, stop them.

    with EcsQueue.from_config() as queue:
        handle = queue.submit(["python", "etl.py"], executor_config={"cpu": 512})
        print(handle.result(timeout=600).exit_code)

`submit` is safe to repeat: the same id with the same request is the same request.
"""

from __future__ import annotations

import logging
import secrets
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

from ecs_queue.broker import open_broker
from ecs_queue.broker.base import Broker
from ecs_queue.client.producer import PreparedRequest, find_conflicts, is_accepted, prepare_request
from ecs_queue.client.results import ResultWaiter
from ecs_queue.config import Config, load_config
from ecs_queue.config.keyring import open_keyring
from ecs_queue.crash_points import crash_point
from ecs_queue.errors import (
    BrokerUnavailable,
    IdConflict,
    InvalidRequest,
    LedgerUnavailable,
    RequestTooLate,
    UnknownTask,
)
from ecs_queue.journal import JournalStore, open_journal_store
from ecs_queue.journal.client_journal import ClientJournal
from ecs_queue.ledger import open_ledger
from ecs_queue.ledger.base import Ledger
from ecs_queue.messages import envelope
from ecs_queue.messages.envelope import TaskRequest, TaskResult
from ecs_queue.protocol.operations import OperationResult, ResultCode
from ecs_queue.protocol.record import Record
from ecs_queue.protocol.states import State
from ecs_queue.runtask.arguments import validate_request
from ecs_queue.runtask.launch_spec import LaunchSpec, build_queued_task, try_decode_launch_spec

logger = logging.getLogger("ecs_queue")

#: The members of a task line (a line of `submit --file`, an element of `submit_many`).
TASK_FIELDS = frozenset(
    {"id", "command", "queue", "executor_config", "priority", "expires_in", "relaunch", "time_limit"}
)
_PUT_BATCH_SIZE = 500
#: How long a comparison with the ledger's clock is good. Seconds.
_CLOCK_SYNC_INTERVAL_SECONDS = 60.0


class Handle:
    """One submitted request."""

    __slots__ = ("_queue", "id", "nonce", "prepared_request")

    def __init__(
        self, queue: EcsQueue, record_id: str, nonce: str, prepared_request: PreparedRequest | None = None
    ) -> None:
        """`draft`: what this process submitted, kept to be put again should the ledger lose it."""
        self._queue = queue
        self.id = record_id
        self.nonce = nonce
        self.prepared_request = prepared_request

    def result(self, timeout: float | None = None) -> TaskResult:
        """How it ended. Waits for at most `timeout` seconds (None: for ever), then raises `ResultTimeout`.

        A lost result message does not matter: the ledger is asked too, every second or so. `UnknownTask`: nobody knows
        the request any more, for its retention time is over.
        """
        return next(self._queue.as_completed([self], timeout))

    def state(self) -> State:
        """Where it stands now; `UnknownTask` when it is not known (any more)."""
        return self._queue.status(self.id).state

    def stop(self, by: str = "client") -> State:
        """See `EcsQueue.stop`."""
        return self._queue.stop(self.id, by=by)

    def __repr__(self) -> str:
        return f"Handle(id={self.id!r})"


class EcsQueue:
    """Thread-safe. `owner` names this client's queue of results; None: one of its own; "": it never waits."""

    def __init__(
        self,
        config: Config,
        broker: Broker,
        ledger: Ledger,
        *,
        owner: str | None = None,
        clock: Callable[[], float] = time.time,
        new_id: Callable[[], str] = lambda: str(uuid.uuid4()),
        journal: JournalStore | None = None,
    ) -> None:
        """`journal`: where it is told what was submitted and stopped; this client closes it."""
        self.config = config
        self._journal = ClientJournal(journal, config.namespace)
        self._broker = broker
        self.ledger = ledger
        self._owns_result_queue = owner is None
        self.owner = f"client-{secrets.token_hex(6)}" if owner is None else owner
        self._clock = clock
        self._new_id = new_id
        self._clock_offset = 0.0  # of the ledger's, seconds
        self._clock_synced_at = float("-inf")
        self._keyring = open_keyring(config)
        self._result_waiter: ResultWaiter[PreparedRequest] = ResultWaiter(
            broker, ledger, self.owner, self._put_again, self._keyring
        )

    @classmethod
    def from_config(
        cls,
        path: str | None = None,
        *,
        environ: Mapping[str, str] | None = None,
        overrides: Mapping[str, str] | None = None,
        owner: str | None = None,
    ) -> Self:
        """A client by the configuration (docs/configuration.md). Connects when first used."""
        config = load_config(path, environ, overrides)
        return cls(config, open_broker(config), open_ledger(config), owner=owner, journal=open_journal_store(config))

    def submit(self, command: Sequence[str], **fields: Any) -> Handle:
        """Submit one command; `fields` as in a task line: id, queue, executor_config, priority, expires_in ...

        Raises `InvalidRequest` or `ConfigError` before anything is queued, `IdConflict` when another request has
        the id, `LedgerUnavailable` when it is not known whether it was accepted: submit it again with the same id.
        """
        return self.submit_many([{"command": command, **fields}])[0]

    def submit_many(self, tasks: Iterable[Mapping[str, Any]]) -> list[Handle]:
        """Submit many: all are validated before the first is queued; one pipelined write and publish a batch.

        `IdConflict` for ids that other requests have already: none is submitted. (Only where another process submits
        one of the ids at this very moment are the other ones of its batch submitted, too; submitting all of them again
        under other ids for the named ones is safe.)
        """
        lines = list(tasks)
        drafts = [self.prepare(task) for task in lines]
        _check_duplicate_ids(drafts)
        taken = self.find_conflicts([p for p, line in zip(drafts, lines, strict=True) if line.get("id") is not None])
        if taken:
            ids = ", ".join(conflict.request.id for conflict in taken[:5])
            raise IdConflict(
                f"no request was submitted: {len(taken)} of the ids belong to other requests ({ids}); choose other "
                "ids for these, or leave them out"
            )
        handles: list[Handle] = []
        for start in range(0, len(drafts), _PUT_BATCH_SIZE):
            handles += self.send(drafts[start : start + _PUT_BATCH_SIZE])
        return handles

    def prepare(self, task: Mapping[str, Any], *, origin: str = "") -> PreparedRequest:
        """Validate one task line and make its envelope; nothing is queued. `origin`: the id of what it repeats."""
        unknown = sorted(set(task) - TASK_FIELDS)
        if unknown:
            raise InvalidRequest(f"unknown member {unknown[0]!r}; known are {', '.join(sorted(TASK_FIELDS))}")
        fields = {name: value for name, value in task.items() if value is not None}
        command = fields.pop("command", None)
        given_id = fields.pop("id", None)
        if isinstance(command, str) or not isinstance(command, Sequence):
            raise InvalidRequest('command: expected a list of strings, for example ["echo", "hello"]')
        request = envelope.new_request(
            id=self._new_id() if given_id is None else given_id,
            command=list(command),
            now=self._now(fields.get("expires_in") is not None),
            accept_seconds=self.config.accept_seconds,
            owner=self.owner,
            origin=origin,
            **fields,
        )
        validate_request(self.config.profile(request.queue), build_queued_task(request, 1, request.submitted_at))
        return prepare_request(request, self.config, self._keyring)

    def find_conflicts(self, prepared_requests: Sequence[PreparedRequest]) -> list[PreparedRequest]:
        """Return those whose id another request has already; `submit_many` and the CLI ask before they queue anything.

        Only ids that the caller chose need the lookup.
        """
        conflicts: list[PreparedRequest] = []
        for start in range(0, len(prepared_requests), _PUT_BATCH_SIZE):
            batch = prepared_requests[start : start + _PUT_BATCH_SIZE]
            conflicts += find_conflicts(batch, self.ledger.get([prepared.request.id for prepared in batch]))
        return conflicts

    def send(self, prepared_requests: Sequence[PreparedRequest]) -> list[Handle]:
        """Queue what `prepare` made: the ledger first, then the messages. `IdConflict`: all but that one are queued."""
        answers = self.ledger.put([draft.submission for draft in prepared_requests])
        answered = list(zip(prepared_requests, answers, strict=True))
        crash_point("client.requests_put")
        self._journal.record_submissions(
            draft.submission for draft, answer in answered if answer.code is ResultCode.CREATED
        )
        self._publish_requests([draft for draft, answer in answered if answer.code is ResultCode.CREATED])
        for draft, answer in answered:
            _raise_if_rejected(draft, answer)
        return [self._make_handle(draft, answer) for draft, answer in answered]

    def handle(self, record_id: str) -> Handle:
        """A handle on a request that was submitted earlier, by anybody."""
        return Handle(self, record_id, self.status(record_id).nonce)

    def as_completed(self, handles: Sequence[Handle], timeout: float | None = None) -> Iterator[TaskResult]:
        """Results in the order in which the requests end; `ResultTimeout` when `timeout` seconds are over."""
        return self._result_waiter.as_completed(
            {(handle.id, handle.nonce): handle.prepared_request for handle in handles}, timeout
        )

    def status(self, record_id: str) -> Record:
        """The record as it stands; `UnknownTask` when there is none."""
        record = self.ledger.get([record_id])[0]
        if record is None:
            raise UnknownTask(f"no request {record_id} is known: it was never submitted, or its retention time is over")
        return record

    def decode_request(self, body: bytes) -> TaskRequest:
        """The request in an envelope, verified and opened with this configuration's keys; `UndecodableMessage`."""
        return envelope.decode_request(body, self._keyring)

    def decode_journaled_request(self, body: bytes) -> TaskRequest:
        """The request in an envelope that the journal kept: opened, not verified, for the journal writes it anew."""
        return envelope.decode_request(body, self._keyring.without_signatures())

    def launch_spec(self, record: Record) -> LaunchSpec | None:
        """What a record's present launch is made of; None before it is claimed, after its end and without its key."""
        return try_decode_launch_spec(record, self._keyring)

    def stop(self, record_id: str, by: str = "client") -> State:
        """Ask for a stop; the state there is then. Before the launch it ends at once (REVOKED).

        An id that is not known yet is revoked when it arrives, within a day.
        """
        return self.stop_many([record_id], by)[0].state

    def stop_many(self, ids: Sequence[str], by: str = "client") -> list[Record]:
        """Ask for stops; the records as they are then, in order."""
        records = []
        answers = self.ledger.stop(ids, by)
        crash_point("client.stop_marked")
        for record_id, answer in zip(ids, answers, strict=True):
            self._journal.record_stop_request(record_id, by, answer.code)
            if answer.record is None:
                raise UnknownTask(f"the ledger did not answer the stop: {answer.code}")
            if answer.code is ResultCode.ENDED and answer.record.owner:
                self._publish_result(answer.record)
            records.append(answer.record)
        return records

    def check(self) -> None:
        """Raises `BrokerUnavailable` or `LedgerUnavailable` when one of them cannot be reached."""
        self._broker.check()
        self.ledger.now()

    def backlog(self, queue: str) -> int:
        """How many request messages wait in the queue."""
        return self._broker.backlog(queue)

    def close(self) -> None:
        """Give the connections back. Requests go on; their results stay in the ledger."""
        self._result_waiter.close()
        self._journal.close()
        if self._owns_result_queue and self._result_waiter.has_inbox:
            try:
                self._broker.delete_result_queue(self.owner)
            except BrokerUnavailable as error:
                logger.debug("the queue of results expires by itself: %s", error)
        self._broker.close()
        self.ledger.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _now(self, for_deadline: bool) -> float:
        """Seconds since the epoch. A deadline is kept by the ledger's clock, so one of a request is made with it: this
        machine's may be minutes off."""
        now = self._clock()
        if for_deadline and self._clock_synced_at + _CLOCK_SYNC_INTERVAL_SECONDS <= time.monotonic():
            try:
                self._clock_offset = now - self.ledger.now()
                self._clock_synced_at = time.monotonic()
            except LedgerUnavailable as error:
                logger.debug("the deadline is by this machine's clock: %s", error)
        return now - self._clock_offset

    def _make_handle(self, prepared_request: PreparedRequest, result: OperationResult) -> Handle:
        """The nonce is the record's: submitted again, it is the first submission that counts."""
        if result.record is None or result.record.nonce == prepared_request.submission.nonce:
            return Handle(self, prepared_request.request.id, prepared_request.submission.nonce, prepared_request)
        return Handle(self, prepared_request.request.id, result.record.nonce)

    def _publish_requests(self, prepared_requests: Sequence[PreparedRequest]) -> None:
        if not prepared_requests:
            return
        try:
            self._broker.publish_requests([prepared.to_message() for prepared in prepared_requests])
            crash_point("client.requests_published")
        except BrokerUnavailable as error:
            # Accepted all the same: the records are in the ledger, whose sweep finds what no message speaks of.
            logger.warning(
                "%d requests were accepted but not announced, launch is delayed: %s", len(prepared_requests), error
            )

    def _put_again(self, prepared_request: PreparedRequest) -> bool:
        """The ledger lost a put at a fail-over: the very same envelope, so that it is the very same request."""
        if not is_accepted(self.ledger.put([prepared_request.submission])[0]):
            return False
        crash_point("client.request_put_again")
        self._publish_requests([prepared_request])
        return True

    def _publish_result(self, record: Record) -> None:
        try:
            self._broker.publish_results(
                [(record.owner, envelope.encode(envelope.build_result(record), self._keyring))]
            )
            crash_point("client.stop_result_published")
        except BrokerUnavailable as error:
            logger.debug("the owner finds the result in the ledger: %s", error)


def _check_duplicate_ids(prepared_requests: Sequence[PreparedRequest]) -> None:
    """`IdConflict` when two different requests of one call have the same id."""
    digests: dict[str, str] = {}
    for draft in prepared_requests:
        request, digest = draft.request, draft.submission.digest
        if digests.setdefault(request.id, digest) != digest:
            raise IdConflict(f"two different requests have the id {request.id}; choose another id, or leave it out")


def _raise_if_rejected(prepared_request: PreparedRequest, result: OperationResult) -> None:
    if result.code is ResultCode.CONFLICT:
        raise IdConflict(
            f"another request was submitted under the id {prepared_request.request.id}; choose another one, or omit it"
        )
    if result.code is ResultCode.TOO_LATE:
        raise RequestTooLate(
            f"{prepared_request.request.id}: this machine's clock is behind the ledger's by more than accept_seconds"
        )
