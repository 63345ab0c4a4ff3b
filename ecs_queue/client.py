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

import msgspec

from ecs_queue.broker import open_broker
from ecs_queue.broker.base import Broker, Outgoing
from ecs_queue.config import Config, load_config
from ecs_queue.core import envelope
from ecs_queue.core.envelope import TaskRequest, TaskResult
from ecs_queue.core.plan import Plan, plan_if_readable, queued_task, submission_of
from ecs_queue.core.protocol import Answer, Word
from ecs_queue.core.record import Record, Submission
from ecs_queue.core.run_task_kwargs import validate_request
from ecs_queue.core.states import State
from ecs_queue.crashpoints import reach
from ecs_queue.errors import (
    BrokerUnavailable,
    IdConflict,
    InvalidRequest,
    LedgerUnavailable,
    RequestTooLate,
    UnknownTask,
)
from ecs_queue.journal import JournalStore, open_store
from ecs_queue.journal.client import ClientJournal
from ecs_queue.keyring import open_keyring
from ecs_queue.ledger import open_ledger
from ecs_queue.ledger.base import Ledger
from ecs_queue.waiting import Waiting

logger = logging.getLogger("ecs_queue")

#: The members of a task line (a line of `submit --file`, an element of `submit_many`).
TASK_FIELDS = frozenset(
    {"id", "command", "queue", "executor_config", "priority", "expires_in", "relaunch", "time_limit"}
)
_PUT_AT_ONCE = 500
#: How long a comparison with the ledger's clock is good. Seconds.
_CLOCK_CHECKED_EVERY = 60.0


class Submitted(msgspec.Struct, frozen=True):
    """A validated request on its way: the envelope exactly as published, and what the ledger needs of it."""

    request: TaskRequest
    body: bytes
    submission: Submission

    def __repr__(self) -> str:
        """Without the payload."""
        return f"Submitted({self.submission!r})"


class Handle:
    """One submitted request."""

    __slots__ = ("_queue", "draft", "id", "nonce")

    def __init__(self, queue: EcsQueue, record_id: str, nonce: str, draft: Submitted | None = None) -> None:
        """`draft`: what this process submitted, kept to be put again should the ledger lose it."""
        self._queue = queue
        self.id = record_id
        self.nonce = nonce
        self.draft = draft

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
        self._own_queue = owner is None
        self.owner = f"client-{secrets.token_hex(6)}" if owner is None else owner
        self._clock = clock
        self._new_id = new_id
        self._clock_ahead = 0.0  # of the ledger's, seconds
        self._clock_checked_at = float("-inf")
        self._keyring = open_keyring(config)
        self._waiting: Waiting[Submitted] = Waiting(broker, ledger, self.owner, self._submit_again, self._keyring)

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
        return cls(config, open_broker(config), open_ledger(config), owner=owner, journal=open_store(config))

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
        _check_ids(drafts)
        self._check_not_taken([draft for draft, line in zip(drafts, lines, strict=True) if line.get("id") is not None])
        handles: list[Handle] = []
        for start in range(0, len(drafts), _PUT_AT_ONCE):
            handles += self.send(drafts[start : start + _PUT_AT_ONCE])
        return handles

    def prepare(self, task: Mapping[str, Any], *, origin: str = "") -> Submitted:
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
        validate_request(self.config.profile(request.queue), queued_task(request, 1, request.submitted_at))
        body = envelope.encode(request, self._keyring)
        nonce = envelope.nonce_of(self.config.namespace, body)
        return Submitted(request, body, submission_of(request, body, nonce, self.config.launch_deadline))

    def send(self, drafts: Sequence[Submitted]) -> list[Handle]:
        """Queue what `prepare` made: the ledger first, then the messages. `IdConflict`: all but that one are queued."""
        answers = self.ledger.put([draft.submission for draft in drafts])
        answered = list(zip(drafts, answers, strict=True))
        reach("submit.put")
        self._journal.submitted(draft.submission for draft, answer in answered if answer.word is Word.CREATED)
        self._publish([draft for draft, answer in answered if answer.word is Word.CREATED])
        for draft, answer in answered:
            _refuse(draft, answer)
        return [self._handle_of(draft, answer) for draft, answer in answered]

    def handle(self, record_id: str) -> Handle:
        """A handle on a request that was submitted earlier, by anybody."""
        return Handle(self, record_id, self.status(record_id).nonce)

    def as_completed(self, handles: Sequence[Handle], timeout: float | None = None) -> Iterator[TaskResult]:
        """Results in the order in which the requests end; `ResultTimeout` when `timeout` seconds are over."""
        return self._waiting.as_completed({(handle.id, handle.nonce): handle.draft for handle in handles}, timeout)

    def status(self, record_id: str) -> Record:
        """The record as it stands; `UnknownTask` when there is none."""
        record = self.ledger.get([record_id])[0]
        if record is None:
            raise UnknownTask(f"no request {record_id} is known: it was never submitted, or its retention time is over")
        return record

    def read(self, body: bytes) -> TaskRequest:
        """The request in an envelope, verified and opened with this configuration's keys; `UndecodableMessage`."""
        return envelope.decode_request(body, self._keyring)

    def read_journalled(self, body: bytes) -> TaskRequest:
        """The request in an envelope that the journal kept: opened, not verified, for the journal writes it anew."""
        return envelope.decode_request(body, self._keyring.without_signatures())

    def frozen_plan(self, record: Record) -> Plan | None:
        """What a record's present launch is made of; None before it is claimed, after its end and without its key."""
        return plan_if_readable(record, self._keyring)

    def stop(self, record_id: str, by: str = "client") -> State:
        """Ask for a stop; the state there is then. Before the launch it ends at once (REVOKED).

        An id that is not known yet is revoked when it arrives, within a day.
        """
        return self.stop_many([record_id], by)[0].state

    def stop_many(self, ids: Sequence[str], by: str = "client") -> list[Record]:
        """Ask for stops; the records as they are then, in order."""
        records = []
        answers = self.ledger.stop(ids, by)
        reach("stop.marked")
        for record_id, answer in zip(ids, answers, strict=True):
            self._journal.stop_asked(record_id, by, answer.word)
            if answer.record is None:
                raise UnknownTask(f"the ledger did not answer the stop: {answer.word}")
            if answer.word is Word.ENDED and answer.record.owner:
                self._announce(answer.record)
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
        self._waiting.close()
        self._journal.close()
        if self._own_queue and self._waiting.used:
            try:
                self._broker.forget_results(self.owner)
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

    def _check_not_taken(self, drafts: Sequence[Submitted]) -> None:
        """`IdConflict` before anything is queued: one lookup of the ids that the caller chose."""
        taken: list[str] = []
        for start in range(0, len(drafts), _PUT_AT_ONCE):
            some = drafts[start : start + _PUT_AT_ONCE]
            records = self.ledger.get([draft.request.id for draft in some])
            for draft, record in zip(some, records, strict=True):
                if record is not None and record.digest and record.digest != draft.submission.digest:
                    taken.append(draft.request.id)
        if taken:
            raise IdConflict(
                f"other requests were submitted under {len(taken)} of the ids ({', '.join(taken[:5])}), so none "
                "of these was; choose other ids, or leave them out"
            )

    def _now(self, by_deadline: bool) -> float:
        """Seconds since the epoch. A deadline is kept by the ledger's clock, so one of a request is made with it: this
        machine's may be minutes off."""
        now = self._clock()
        if by_deadline and self._clock_checked_at + _CLOCK_CHECKED_EVERY <= time.monotonic():
            try:
                self._clock_ahead = now - self.ledger.now()
                self._clock_checked_at = time.monotonic()
            except LedgerUnavailable as error:
                logger.debug("the deadline is by this machine's clock: %s", error)
        return now - self._clock_ahead

    def _handle_of(self, draft: Submitted, answer: Answer) -> Handle:
        """The nonce is the record's: submitted again, it is the first submission that counts."""
        if answer.record is None or answer.record.nonce == draft.submission.nonce:
            return Handle(self, draft.request.id, draft.submission.nonce, draft)
        return Handle(self, draft.request.id, answer.record.nonce)

    def _publish(self, drafts: Sequence[Submitted]) -> None:
        if not drafts:
            return
        try:
            self._broker.publish_requests([Outgoing(d.request.queue, d.body, d.request.priority) for d in drafts])
            reach("submit.published")
        except BrokerUnavailable as error:
            # Accepted all the same: the records are in the ledger, whose sweep finds what no message speaks of.
            logger.warning("%d requests were accepted but not announced, launch is delayed: %s", len(drafts), error)

    def _submit_again(self, draft: Submitted) -> bool:
        """The ledger lost a put at a fail-over: the very same envelope, so that it is the very same request."""
        answer = self.ledger.put([draft.submission])[0]
        if answer.word in (Word.TOO_LATE, Word.CONFLICT):
            return False
        reach("submit.put_again")
        self._publish([draft])
        return True

    def _announce(self, record: Record) -> None:
        try:
            self._broker.publish_results([(record.owner, envelope.encode(envelope.result_of(record), self._keyring))])
            reach("stop.announced")
        except BrokerUnavailable as error:
            logger.debug("the owner finds the result in the ledger: %s", error)


def _check_ids(drafts: Sequence[Submitted]) -> None:
    """`IdConflict` when two different requests of one call have the same id."""
    digests: dict[str, str] = {}
    for draft in drafts:
        request, digest = draft.request, draft.submission.digest
        if digests.setdefault(request.id, digest) != digest:
            raise IdConflict(f"two different requests have the id {request.id}; choose another id, or leave it out")


def _refuse(draft: Submitted, answer: Answer) -> None:
    if answer.word is Word.CONFLICT:
        raise IdConflict(
            f"another request was submitted under the id {draft.request.id}; choose another id, or leave it out"
        )
    if answer.word is Word.TOO_LATE:
        raise RequestTooLate(
            f"{draft.request.id}: this machine's clock is behind the ledger's by more than accept_seconds"
        )
