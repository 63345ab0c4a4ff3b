"""The Python client: submit commands, wait for their results, stop them.

    with EcsQueue.from_config() as queue:
        handle = queue.submit(["python", "etl.py"], executor_config={"cpu": 512})
        print(handle.result(timeout=600).exit_code)

Submitting is idempotent: the same id with the same request is the same request.
"""

from __future__ import annotations

import logging
import secrets
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

from ecs_queue import durations
from ecs_queue.broker import open_broker
from ecs_queue.broker.base import Broker
from ecs_queue.client import producer
from ecs_queue.client.producer import PreparedRequest, batches
from ecs_queue.client.results import ResultWaiter
from ecs_queue.config import Config, load_config
from ecs_queue.config.keyring import open_keyring
from ecs_queue.crash_points import crash_point
from ecs_queue.errors import BrokerUnavailable, IdConflict, InvalidRequest, LedgerUnavailable, UnknownTask, UsageError
from ecs_queue.journal import JournalStore, open_journal_store
from ecs_queue.journal.client_journal import ClientJournal
from ecs_queue.ledger import open_ledger
from ecs_queue.ledger.base import Ledger
from ecs_queue.messages import envelope
from ecs_queue.messages.envelope import TaskResult
from ecs_queue.messages.queue_names import canonical_queue_name
from ecs_queue.protocol.operations import OperationResult, ResultCode
from ecs_queue.protocol.record import Record
from ecs_queue.protocol.states import State
from ecs_queue.runtask.arguments import validate_request
from ecs_queue.runtask.launch_spec import build_queued_task

logger = logging.getLogger("ecs_queue")

#: The members of a task line (a line of `submit --file`, an element of `submit_many`).
TASK_FIELDS = frozenset(
    {"id", "command", "queue", "executor_config", "priority", "expires_in", "relaunch", "time_limit"}
)
_DURATION_FIELDS = frozenset({"expires_in", "time_limit"})
_PUT_BATCH_SIZE = 500
#: How long a measured difference to the ledger's clock is used. Seconds.
_CLOCK_SYNC_INTERVAL_SECONDS = 60.0


@dataclass(eq=False, slots=True)
class Handle:
    """One submitted request.

    `prepared_request` is what this process submitted: it is put again when the ledger loses it in a fail-over.
    """

    _client: EcsQueue = field(repr=False)
    id: str
    nonce: str = field(repr=False)
    prepared_request: PreparedRequest | None = field(default=None, repr=False)

    def result(self, timeout: float | None = None) -> TaskResult:
        """Wait for the result.

        A lost result message only delays it: every second the client also reads some of the awaited records, in turn.

        Args:
            timeout: Seconds to wait; None waits without a limit.

        Raises:
            ResultTimeout: The request has not ended in time. It goes on.
            UnknownTask: The ledger does not know the request any more: its retention time is over, or a fail-over
                lost it and it cannot be put again.
        """
        return next(self._client.as_completed([self], timeout))

    def state(self) -> State:
        """Return the present state; raise `UnknownTask` when the ledger does not know the request."""
        return self._client.status(self.id).state

    def stop(self, by: str = "client") -> State:
        """Request a stop, see `EcsQueue.stop`."""
        return self._client.stop(self.id, by=by)


class EcsQueue:
    """A client of one namespace. Thread-safe."""

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
        """Create a client on an open broker, ledger and journal; `close` closes all three.

        Args:
            config: The configuration; it must be that of the broker and the ledger.
            broker: Where requests are published and result messages arrive.
            ledger: Where requests and results are stored.
            owner: Names this client's result queue. None: a new one, deleted by `close`. "": no result queue, so that
                waiting only reads the ledger.
            clock: Seconds since the epoch.
            new_id: Makes the ids of requests that come without one.
            journal: Where submissions and stop requests are recorded.
        """
        self.config = config
        self._journal = ClientJournal(journal, config.namespace)
        self._broker = broker
        self.ledger = ledger
        self._owns_result_queue = owner is None
        self.owner = f"client-{secrets.token_hex(6)}" if owner is None else owner
        self._clock = clock
        self._new_id = new_id
        self._clock_offset = 0.0  # this machine's clock minus the ledger's, seconds
        self._clock_synced_at = float("-inf")
        self.keyring = open_keyring(config)
        self._result_waiter = ResultWaiter(broker, ledger, self.owner, self._put_again, self.keyring)
        self._is_closed = False

    @classmethod
    def open(cls, config: Config, owner: str | None = None) -> Self:
        """Return a client for a configuration. It connects on first use."""
        return cls(config, open_broker(config), open_ledger(config), owner=owner, journal=open_journal_store(config))

    @classmethod
    def from_config(
        cls,
        path: str | None = None,
        *,
        environ: Mapping[str, str] | None = None,
        overrides: Mapping[str, str] | None = None,
        owner: str | None = None,
    ) -> Self:
        """Load the configuration (docs/configuration.md) and return a client for it. It connects on first use."""
        return cls.open(load_config(path, environ, overrides), owner)

    def submit(self, command: Sequence[str], **fields: Any) -> Handle:
        """Submit one command.

        Args:
            command: The program and its arguments.
            fields: Members of a task line: id, queue, executor_config, priority, expires_in, relaunch, time_limit.

        Raises:
            InvalidRequest, ConfigError: The request cannot be launched. Nothing was queued.
            IdConflict: Another request has the id.
            RequestTooLate: The ledger received the request after its `accept_until`.
            LedgerUnavailable: It is unknown whether the request was accepted. Submit it again with the same id.
        """
        return self.submit_many([{"command": command, **fields}])[0]

    def submit_many(self, tasks: Iterable[Mapping[str, Any]]) -> list[Handle]:
        """Submit many task lines, and return their handles in order.

        All are validated before the first is queued. Each batch is one pipelined write and one publication.

        Raises:
            IdConflict: Other requests have some of the ids. No request was submitted, unless another process
                submitted one of the ids at the same moment: then the other requests of its batch were submitted.
                Submitting all of them again with other ids for the named ones is safe.
            RequestTooLate: The ledger received a request after its `accept_until`; all others of its batch are queued.
        """
        lines = list(tasks)
        prepared_requests = [self.prepare(task) for task in lines]
        producer.reject_duplicate_ids(prepared_requests)
        chosen = [item for item, line in zip(prepared_requests, lines, strict=True) if line.get("id") is not None]
        conflicts = [conflict.request.id for conflict in self.find_conflicts(chosen)]
        if conflicts:
            raise IdConflict(
                f"no request was submitted: {len(conflicts)} of the ids belong to other requests "
                f"({', '.join(conflicts[:5])}); choose other ids for these, or leave them out"
            )
        return [handle for batch in batches(prepared_requests, _PUT_BATCH_SIZE) for handle in self.send(batch)]

    def prepare(self, task: Mapping[str, Any], *, origin: str = "") -> PreparedRequest:
        """Validate one task line and encode it as a request. Nothing is queued.

        Args:
            task: See `TASK_FIELDS`.
            origin: The id of the request that this one repeats.
        """
        self._check_open()
        if not isinstance(task, Mapping):
            raise InvalidRequest(
                f'expected a task such as {{"command": ["echo", "hello"]}}, found {type(task).__name__}'
            )
        unknown = sorted(map(str, set(task) - TASK_FIELDS))
        if unknown:
            raise InvalidRequest(f"unknown member {unknown[0]!r}; known are {', '.join(sorted(TASK_FIELDS))}")
        fields = {name: value for name, value in task.items() if value is not None}
        command = fields.pop("command", None)
        if isinstance(command, str) or not isinstance(command, Sequence):
            raise InvalidRequest('command: expected a list of strings, for example ["echo", "hello"]')
        for name in _DURATION_FIELDS & fields.keys():
            fields[name] = _parse_duration(name, fields[name])
        request = envelope.new_request(
            id=fields.pop("id") if "id" in fields else self._new_id(),
            command=list(command),
            now=self._now(for_deadline="expires_in" in fields),
            accept_seconds=self.config.accept_seconds,
            owner=self.owner,
            origin=origin,
            **fields,
        )
        profile = producer.profile_for_checks(self.config.profile(request.queue))
        validate_request(profile, build_queued_task(request, 1, request.submitted_at))
        return producer.prepare_request(request, self.config, self.keyring)

    def find_conflicts(self, prepared_requests: Sequence[PreparedRequest]) -> list[PreparedRequest]:
        """Return those whose id belongs to another request in the ledger.

        Look up ids that the caller chose before the first request is queued; generated ids need no lookup.
        """
        self._check_open()
        return [
            conflict
            for batch in batches(prepared_requests, _PUT_BATCH_SIZE)
            for conflict in producer.find_conflicts(batch, self.ledger.get([item.request.id for item in batch]))
        ]

    def send(self, prepared_requests: Sequence[PreparedRequest]) -> list[Handle]:
        """Store prepared requests in the ledger, then publish their messages.

        Sending the same prepared request again is safe, also after `LedgerUnavailable`.

        Raises:
            IdConflict, RequestTooLate: One was rejected; all others of the call are queued.
        """
        self._check_open()
        answered = list(zip(prepared_requests, self.ledger.put([p.submission for p in prepared_requests]), strict=True))
        crash_point("client.requests_put")
        created = [item for item, result in answered if result.code is ResultCode.CREATED]
        self._journal.record_submissions(item.submission for item in created)
        self._publish_requests(created)
        for item, result in answered:
            producer.raise_if_rejected(item, result)
        return [self._make_handle(item, result) for item, result in answered]

    def handle(self, record_id: str) -> Handle:
        """Return a handle of a request that this or another process submitted earlier."""
        return Handle(self, record_id, self.status(record_id).nonce)

    def as_completed(self, handles: Sequence[Handle], timeout: float | None = None) -> Iterator[TaskResult]:
        """Yield each result once, in the order in which the requests end.

        A result counts as delivered when the next one is requested, so a caller that crashes gets it again.

        Raises:
            ResultTimeout: `timeout` seconds are over. The requests go on.
            UnknownTask: The ledger does not know one of the requests any more.
        """
        self._check_open()
        return self._result_waiter.as_completed(
            {(handle.id, handle.nonce): handle.prepared_request for handle in handles}, timeout
        )

    def status(self, record_id: str) -> Record:
        """Return the present record; raise `UnknownTask` when there is none."""
        self._check_open()
        record = self.ledger.get([record_id])[0]
        if record is None:
            raise UnknownTask(f"no request {record_id} is known: it was never submitted, or its retention time is over")
        return record

    def stop(self, record_id: str, by: str = "client") -> State:
        """Request a stop, and return the state after that. A request that is not launched yet ends at once (REVOKED).

        An unknown id is remembered for `accept_seconds` (a day by default): the request is revoked when it arrives.
        """
        return self.stop_many([record_id], by)[0].state

    def stop_many(self, ids: Sequence[str], by: str = "client") -> list[Record]:
        """Request stops, and return the records after that, in order."""
        self._check_open()
        records = []
        results = self.ledger.stop(ids, by)
        crash_point("client.stop_marked")
        for record_id, result in zip(ids, results, strict=True):
            self._journal.record_stop_request(record_id, by, result.code)
            if result.record is None:
                raise UnknownTask(f"the ledger returned no record of {record_id} for the stop: {result.code}")
            if result.code is ResultCode.ENDED and result.record.owner:
                self._publish_result(result.record)
            records.append(result.record)
        return records

    def check(self) -> None:
        """Raise `BrokerUnavailable` or `LedgerUnavailable` when one of them cannot be reached."""
        self._check_open()
        self._broker.check()
        self.ledger.now()

    def backlog(self, queue: str) -> int:
        """Return how many request messages wait in the queue."""
        self._check_open()
        return self._broker.backlog(canonical_queue_name(queue))

    def close(self) -> None:
        """Close all connections; later calls raise `UsageError`. Requests go on, their results stay in the ledger."""
        if self._is_closed:
            return
        self._is_closed = True
        self._result_waiter.close()
        self._journal.close()
        if self._owns_result_queue and self._result_waiter.has_result_queue:
            try:
                self._broker.delete_result_queue(self.owner)
            except BrokerUnavailable as error:
                logger.debug("The result queue was not deleted, it will expire: %s", error)
        self._broker.close()
        self.ledger.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def _check_open(self) -> None:
        """Raise `UsageError` after `close`; a connection that is opened anew would never be closed."""
        if self._is_closed:
            raise UsageError("the client is closed: nothing was done; open a new one, or keep this one open longer")

    def _now(self, for_deadline: bool) -> float:
        """Seconds since the epoch. Deadlines use the ledger's clock: this machine's clock may be minutes off."""
        now = self._clock()
        if for_deadline and self._clock_synced_at + _CLOCK_SYNC_INTERVAL_SECONDS <= time.monotonic():
            try:
                self._clock_offset = now - self.ledger.now()
                self._clock_synced_at = time.monotonic()
            except LedgerUnavailable as error:
                logger.debug("Using this machine's clock for a deadline, the ledger's cannot be read: %s", error)
        return now - self._clock_offset

    def _make_handle(self, prepared_request: PreparedRequest, result: OperationResult) -> Handle:
        """The nonce is the record's: when a request is submitted twice, the first submission counts."""
        own_nonce = prepared_request.submission.nonce
        nonce = own_nonce if result.record is None else result.record.nonce
        return Handle(self, prepared_request.request.id, nonce, prepared_request if nonce == own_nonce else None)

    def _publish_requests(self, requests: Sequence[PreparedRequest]) -> None:
        if not requests:
            return
        try:
            self._broker.publish_requests([request.to_message() for request in requests])
            crash_point("client.requests_published")
        except BrokerUnavailable as error:
            # They are accepted: the workers' sweep finds records without a message.
            logger.warning("%d requests were accepted but not published, which delays them: %s", len(requests), error)

    def _put_again(self, prepared_request: PreparedRequest) -> bool:
        """Put the same envelope again after the ledger lost it in a fail-over, so that it is the same request."""
        if not producer.is_accepted(self.ledger.put([prepared_request.submission])[0]):
            return False
        crash_point("client.request_put_again")
        self._publish_requests([prepared_request])
        return True

    def _publish_result(self, record: Record) -> None:
        body = envelope.encode(envelope.build_result(record), self.keyring)
        try:
            self._broker.publish_results([(record.owner, body)])
            crash_point("client.stop_result_published")
        except BrokerUnavailable as error:
            logger.debug("A result was not published, its owner will find it in the ledger: %s", error)


def _parse_duration(name: str, value: object) -> float:
    """Return the seconds of a task line's member: a number, or text such as "90s" and "1h"."""
    seconds = durations.parse_duration(value)
    if seconds is None or not 0 < seconds <= durations.MAX_SECONDS:
        raise InvalidRequest(f"{name}: expected a duration above 0, such as {durations.EXAMPLES}, found {value!r:.80}")
    return seconds
