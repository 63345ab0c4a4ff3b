"""The Python client: submit commands, wait for their results, stop them.

    with EcsQueue.from_config() as queue:
        handle = queue.submit(["python", "etl.py"], executor_config={"cpu": 512})
        print(handle.result(timeout=600).exit_code)

Submitting is idempotent: the same id with the same request is the same request.
"""

from __future__ import annotations

import logging
import os
import secrets
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any, Self

from ecs_queue.broker import open_broker
from ecs_queue.broker.base import Broker
from ecs_queue.client import producer
from ecs_queue.client.batch import Batch
from ecs_queue.client.control import RequestControl
from ecs_queue.client.handle import Handle
from ecs_queue.client.producer import PreparedRequest, batches
from ecs_queue.client.request import Duration, Request
from ecs_queue.client.results import ResultReader
from ecs_queue.client.sender import BATCH_SIZE, RequestSender
from ecs_queue.config import Config, load_config
from ecs_queue.config.keyring import open_keyring
from ecs_queue.errors import BrokerUnavailable, IdConflict, MissingRight
from ecs_queue.findings import require_usable
from ecs_queue.journal import JournalStore, open_journal_store
from ecs_queue.journal.client_journal import ClientJournal
from ecs_queue.ledger import open_ledger
from ecs_queue.ledger.base import Ledger
from ecs_queue.messages.fields import Relaunch, plain_text
from ecs_queue.messages.queue_names import canonical_queue_name
from ecs_queue.messages.result import TaskResult, build_result
from ecs_queue.protocol.operations import OperationResult
from ecs_queue.server_users import ServerUser

logger = logging.getLogger("ecs_queue")


class EcsQueue(RequestControl):
    """A client of one namespace. Thread-safe."""

    def __init__(
        self,
        config: Config,
        broker: Broker,
        ledger: Ledger,
        *,
        owner: str | None = None,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
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
            monotonic: Seconds of a clock that never goes back, for time-outs and intervals.
            new_id: Makes the ids of requests that come without one.
            journal: Where submissions and stop requests are recorded.
        """
        self.config = config
        self._journal = ClientJournal(journal, config)
        self._broker = broker
        self.ledger = ledger
        self._owns_result_queue = owner is None
        self.owner = f"{config.owner_prefix or 'client'}-{secrets.token_hex(6)}" if owner is None else plain_text(owner)
        self.keyring = open_keyring(config)
        self._sender = RequestSender(
            config, broker, ledger, self._journal, self.keyring, self.owner, clock, monotonic, new_id
        )
        self.results = ResultReader(
            broker, ledger, self.owner, self._sender.put_again, self.keyring, monotonic=monotonic
        )
        self._process_id = os.getpid()
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

    def submit(
        self,
        command: Sequence[str],
        *,
        queue: str | None = None,
        id: str | None = None,
        priority: int | None = None,
        expires_in: Duration | None = None,
        delay: Duration | None = None,
        not_before: datetime | str | float | None = None,
        time_limit: Duration | None = None,
        start_timeout: Duration | None = None,
        environment: Mapping[str, str] | None = None,
        cpu: int | None = None,
        memory: int | None = None,
        executor_config: Mapping[str, Any] | None = None,
        relaunch: Relaunch | None = None,
        retry_rules: Sequence[Mapping[str, Any]] | None = None,
        concurrency_key: str | None = None,
        labels: Mapping[str, str] | None = None,
        traceparent: str | None = None,
    ) -> Handle:
        """Submit one command; `Request` says what each argument means.

        Raises:
            InvalidRequest, ConfigError: The request cannot be launched. Nothing was queued.
            IdConflict: Another request has the id.
            RequestTooLate: The ledger received the request after its `accept_until`.
            LedgerUnavailable: It is unknown whether the request was accepted. Submit it again with the same id.
        """
        request = Request(
            command=command,
            queue=queue,
            id=id,
            priority=priority,
            expires_in=expires_in,
            delay=delay,
            not_before=not_before,
            time_limit=time_limit,
            start_timeout=start_timeout,
            environment=environment,
            cpu=cpu,
            memory=memory,
            executor_config=executor_config,
            relaunch=relaunch,
            retry_rules=retry_rules,
            concurrency_key=concurrency_key,
            labels=labels,
            traceparent=traceparent,
        )
        return self.submit_many([request])[0]

    def submit_many(self, requests: Iterable[Request | Mapping[str, Any]]) -> Batch:
        """Submit many requests, or task lines with the same members, and return their handles in order.

        All are validated before the first is queued. Each batch is one pipelined write and one publication.

        Raises:
            IdConflict: Other requests have some of the ids. No request was submitted, unless another process
                submitted one of the ids at the same moment: then the other requests of its batch were submitted.
                Submitting all of them again with other ids for the named ones is safe.
            RequestTooLate: The ledger received a request after its `accept_until`; all others of its batch are queued.
        """
        lines = [request.to_task_line() if isinstance(request, Request) else request for request in requests]
        prepared_requests: list[PreparedRequest] = []
        with self.submitting(prepared_requests):
            for line in lines:
                prepared_requests.append(self.prepare(line))
            return self._submit_prepared_lines(prepared_requests, lines)

    def _submit_prepared_lines(
        self, prepared_requests: Sequence[PreparedRequest], lines: Sequence[Mapping[str, Any]]
    ) -> Batch:
        """Send requests, unless the ids that the caller chose belong to others."""
        producer.reject_duplicate_ids(prepared_requests)
        chosen = [item for item, line in zip(prepared_requests, lines, strict=True) if line.get("id") is not None]
        conflicts = [conflict.request.id for conflict in self.find_conflicts(chosen)]
        if conflicts:
            raise IdConflict(
                f"no request was submitted: {len(conflicts)} of the ids belong to other requests "
                f"({', '.join(conflicts[:5])}); choose other ids for these, or leave them out"
            )
        return self.submit_prepared(prepared_requests)

    def prepare(self, task: Mapping[str, Any], *, origin: str = "") -> PreparedRequest:
        """Validate one request and encode it. Nothing is queued.

        Args:
            task: A task line: the members of a `Request` that are set.
            origin: The id of the request that this one repeats.
        """
        self._check_open()
        return self._sender.prepare(task, origin)

    @contextmanager
    def submitting(self, prepared_requests: Sequence[PreparedRequest]) -> Iterator[None]:
        """End the spans of prepared requests as failed when an error ends their submission.

        A caller that sends a prepared request again after an error does that within one such context.
        """
        try:
            yield
        except BaseException as error:
            self._sender.fail(prepared_requests, type(error).__name__)
            raise

    def find_conflicts(self, prepared_requests: Sequence[PreparedRequest]) -> list[PreparedRequest]:
        """Return those whose id belongs to another request in the ledger.

        Look up ids that the caller chose before the first request is queued; generated ids need no lookup.
        """
        self._check_open()
        return self._sender.find_conflicts(prepared_requests)

    def send(self, prepared_requests: Sequence[PreparedRequest]) -> list[Handle]:
        """Store prepared requests in the ledger, then publish their messages.

        Sending the same prepared request again is safe, also after `LedgerUnavailable`.

        Raises:
            IdConflict, BrokenRecord, RequestTooLate: One was rejected; all others of the call are queued.
        """
        self._check_open()
        results = self._sender.send(prepared_requests)
        return [self._make_handle(item, result) for item, result in zip(prepared_requests, results, strict=True)]

    def handle(self, record_id: str) -> Handle:
        """Return a handle of a request that this or another process submitted earlier."""
        record_id = plain_text(record_id)
        record = self.status(record_id)
        handle = Handle(self, record_id, record.nonce)
        self.results.watch(handle)
        if record.is_terminal and record.nonce:
            self.results.deliver(build_result(record))
        return handle

    def as_completed(self, handles: Sequence[Handle], timeout: float | None = None) -> Iterator[TaskResult]:
        """Yield each result once, in the order in which the requests end.

        A result counts as delivered when the next one is requested, so a caller that crashes gets it again.

        Raises:
            ResultTimeout: `timeout` seconds are over. The requests go on.
            UnknownTask: The ledger does not know one of the requests any more.
        """
        self._check_open()
        return self.results.as_completed(handles, timeout)

    def submit_prepared(self, prepared_requests: Sequence[PreparedRequest]) -> Batch:
        """Send prepared requests in batches; raises as `send` does."""
        return Batch(self, [one for batch in batches(prepared_requests, BATCH_SIZE) for one in self.send(batch)])

    def check(self, queues: Iterable[str] = ()) -> None:
        """Check that requests can be submitted here, and launched; `queues` are those that they are for, if known.

        Raises:
            BrokerUnavailable, LedgerUnavailable: One of them cannot be reached.
            MissingRight, UnusableServer: A server denies a right, or is unfit for the configuration.
        """
        self._check_open()
        self._broker.check(sorted({canonical_queue_name(queue) for queue in queues}))
        self.ledger.now()
        require_usable(self.ledger.check_server(ServerUser.SUBMITTER))

    def backlog(self, queue: str) -> int:
        """Return how many request messages wait in the queue."""
        self._check_open()
        return self._broker.backlog(canonical_queue_name(queue))

    def close(self) -> None:
        """Close all connections; later calls raise `UsageError`. Requests go on, their results stay in the ledger."""
        if self._is_closed or os.getpid() != self._process_id:  # a forked process leaves it to its parent
            return
        self._is_closed = True
        try:
            self.results.close()
        finally:  # a callback may end this thread
            self._close_connections()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def _close_connections(self) -> None:
        self._journal.close()
        if self._owns_result_queue and self.results.has_result_queue:
            try:
                self._broker.delete_result_queue(self.owner)
            except (BrokerUnavailable, MissingRight) as error:
                logger.debug("The result queue was not deleted, it will expire: %s", error)
        self._broker.close()
        self.ledger.close()
        self._sender.close()

    def _make_handle(self, prepared_request: PreparedRequest, result: OperationResult) -> Handle:
        """The nonce is the record's: when a request is submitted twice, the first submission counts."""
        own_nonce = prepared_request.submission.nonce
        nonce = own_nonce if result.record is None else result.record.nonce
        handle = Handle(self, prepared_request.request.id, nonce, prepared_request if nonce == own_nonce else None)
        self._sender.tracing.watch(handle)
        self.results.watch(handle)
        return handle
