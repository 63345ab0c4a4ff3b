"""The executor's access to the ledger and the broker: calls are short, and return None when a server is unavailable."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

from ecs_queue.airflow.outage_guard import OutageGuard
from ecs_queue.airflow.validation_cache import ValidationCache
from ecs_queue.broker import open_broker
from ecs_queue.broker.base import Broker, ResultConsumer
from ecs_queue.client.producer import PreparedRequest, is_accepted, prepare_request
from ecs_queue.client.result_verification import decode_result_keys, iter_confirmed_results
from ecs_queue.config import Config
from ecs_queue.config.keyring import open_keyring
from ecs_queue.crash_points import crash_point
from ecs_queue.findings import Finding, Severity
from ecs_queue.journal import JournalStore, open_journal_store
from ecs_queue.journal.client_journal import ClientJournal
from ecs_queue.ledger import open_ledger
from ecs_queue.ledger.base import Ledger
from ecs_queue.messages.request import new_request
from ecs_queue.messages.result import TaskResult, build_result
from ecs_queue.protocol.operations import OperationResult, ResultCode
from ecs_queue.protocol.record import Record
from ecs_queue.server_users import ServerUser

#: Requests in one round trip: half a megabyte with Airflow's usual workloads.
SEND_BATCH_SIZE = 250
_LOG_LEVELS = {Severity.INFO: logging.INFO, Severity.WARNING: logging.WARNING, Severity.ERROR: logging.ERROR}
#: How long to wait for the broker to say whether there are results.
_DRAIN_TIMEOUT_SECONDS = 0.002


class LedgerAccess:
    """One scheduler job's access to the ledger and the broker.

    Used by the scheduler's one thread, and by the two threads of `send_in_background`, one for the ledger and one for
    the broker. No connection is used by two threads at once: while requests are being sent, the scheduler's thread
    only prepares the next ones, and it waits for all of them before it does anything else.
    """

    def __init__(
        self,
        config: Config,
        broker: Broker,
        ledger: Ledger,
        owner: str,
        log: logging.Logger,
        *,
        on_failure: Callable[[str], None] = lambda _: None,
        journal: JournalStore | None = None,
    ) -> None:
        """Connect to nothing yet.

        Args:
            owner: The owner of the requests, whose results this object receives.
            on_failure: Called with "ledger" or "broker" for each call that fails.
        """
        self.config = config
        self.owner = owner
        self._broker = broker
        self._ledger = ledger
        self._journal = ClientJournal(journal, config)
        self._validation_cache = ValidationCache(config)
        self._keyring = open_keyring(config)
        self._log = log
        self._result_consumer: ResultConsumer | None = None
        self._put_pool = ThreadPoolExecutor(1, "ecs-queue-put")  # a pool starts its thread when it is first used
        self._publish_pool = ThreadPoolExecutor(1, "ecs-queue-publish")
        self.ledger_guard = OutageGuard("ledger", log, on_failure=lambda: on_failure("ledger"))
        self.broker_guard = OutageGuard("broker", log, on_failure=lambda: on_failure("broker"))
        if config.broker_url == config.ledger_url:
            self.ledger_guard.share_waits_with(self.broker_guard)

    @classmethod
    def open(cls, config: Config, owner: str, log: logging.Logger, on_failure: Callable[[str], None]) -> LedgerAccess:
        """Return access to the configured servers; it connects when it is first used.

        The ledger has no barrier: a heartbeat cannot wait for a disk. The executor notices what a fail-over of the
        ledger loses (a submission, an adoption), and repeats it.
        """
        broker, journal = open_broker(config), open_journal_store(config)
        ledger = open_ledger(config, durability="server")
        return cls(config, broker, ledger, owner, log, on_failure=on_failure, journal=journal)

    @property
    def is_backing_off(self) -> bool:
        """Whether a call of the ledger has just failed, so that none is made and no request can be accepted."""
        return self.ledger_guard.is_backing_off

    def prepare(self, task_line: Mapping[str, Any]) -> PreparedRequest:
        """Validate a task line and make its envelope; what many tasks have in common is validated once.

        Raises:
            InvalidRequest: The request can never be launched.
            ConfigError: The configuration is wrong.
        """
        accept_seconds = self.config.accept_seconds
        request = new_request(now=time.time(), accept_seconds=accept_seconds, owner=self.owner, **task_line)
        self._validation_cache.validate(request)
        return prepare_request(request, self.config, self._keyring)

    def pause_journal(self) -> AbstractContextManager[None]:
        """Return a context that pauses the journal's thread, so that the scheduler's thread gets the GIL."""
        return self._journal.pause_writes()

    def send_in_background(self, prepared_requests: Sequence[PreparedRequest]) -> Future[list[OperationResult]]:
        """Put and publish a batch of at most `SEND_BATCH_SIZE`, while the caller prepares the next one.

        Returns:
            The ledger's results in order, available when all is published; an empty list when it is unavailable.
        """
        put_results = self._put_pool.submit(self._put, prepared_requests)
        return self._publish_pool.submit(self._publish_accepted, prepared_requests, put_results)

    def _put(self, prepared_requests: Sequence[PreparedRequest]) -> list[OperationResult]:
        submissions = [prepared.submission for prepared in prepared_requests]
        results = self.ledger_guard.attempt(lambda: self._ledger.put(submissions)) or []
        crash_point("airflow.put")
        created = [new for new, result in zip(submissions, results, strict=False) if result.code is ResultCode.CREATED]
        self._journal.record_submissions(created)
        return results

    def _publish_accepted(
        self, prepared_requests: Sequence[PreparedRequest], put_results: Future[list[OperationResult]]
    ) -> list[OperationResult]:
        """When the broker is unavailable, the workers' sweep finds the requests in the ledger."""
        results = put_results.result()
        pairs = zip(prepared_requests, results, strict=False)
        messages = [prepared.to_message() for prepared, result in pairs if is_accepted(result)]
        if messages:
            self.broker_guard.attempt(lambda: self._broker.publish_requests(messages))
            crash_point("airflow.published")
        return results

    def receive_results(self, deadline: float) -> Iterator[TaskResult]:
        """Yield the results that have arrived, as the ledger has them, until `deadline` (monotonic clock) at most."""
        while not self.is_backing_off:
            bodies = self.broker_guard.attempt(self._drain_results)
            keys = decode_result_keys(bodies or (), self._keyring, self._log)
            records = self.get_records([request_id for request_id, _ in keys])
            if records is not None:  # in an outage the ledger is read later
                yield from iter_confirmed_results(keys, records, self.owner, self._log)
            if not bodies or time.monotonic() >= deadline:
                return

    def get_undelivered_results(self, limit: int) -> list[TaskResult] | None:
        """Return the results that are not confirmed, oldest first."""
        records = self.ledger_guard.attempt(lambda: self._ledger.list_undelivered(self.owner, limit))
        return None if records is None else [build_result(record) for record in records]

    def get_records(self, ids: Sequence[str]) -> list[Record | None] | None:
        """Return the records in order; None for each that does not exist."""
        return self.ledger_guard.attempt(lambda: self._ledger.get(ids)) if ids else []

    def adopt(self, ids: Sequence[str]) -> list[OperationResult] | None:
        """Become the owner of the requests."""
        return self.ledger_guard.attempt(lambda: self._ledger.adopt(ids, self.owner)) if ids else []

    def stop(self, ids: Sequence[str], by: str) -> list[OperationResult] | None:
        """Request stops; a request that the ledger does not know is revoked when it arrives."""
        results = self.ledger_guard.attempt(lambda: self._ledger.stop(ids, by)) if ids else []
        for request_id, result in zip(ids, results or (), strict=False):
            self._journal.record_stop_request(request_id, by, result.code)
        return results

    def confirm(self, results: Sequence[tuple[str, str]]) -> list[OperationResult] | None:
        """Confirm that the results, each (request id, nonce), are delivered."""
        return self.ledger_guard.attempt(lambda: self._ledger.confirm(results, self.owner)) if results else []

    def check_servers(self) -> list[Finding]:
        """Return what is found about the ledger's server. The guards log what a server does not answer, or denies."""
        check = partial(self._ledger.check_server, ServerUser.SUBMITTER, self.config.durability)
        findings = self.ledger_guard.attempt(check) or []
        self.broker_guard.attempt(self._broker.check)
        return findings

    def log_findings(self) -> None:
        """Log what is found about the servers. The scheduler starts nevertheless."""
        for finding in self.check_servers():
            level = _LOG_LEVELS.get(finding.severity)
            if level is not None:
                self._log.log(level, "ecs-queue: %s; the scheduler starts nevertheless", finding.sentence)

    def close(self) -> None:
        """Close the connections. Requests continue, and their results stay in the ledger."""
        self._put_pool.shutdown()
        self._publish_pool.shutdown()
        if self._result_consumer is not None:
            self._result_consumer.close()
        self._journal.close()
        self._broker.close()
        self._ledger.close()

    def _drain_results(self) -> list[bytes]:
        if self._result_consumer is None:
            self._result_consumer = self._broker.consume_results(self.owner)
        bodies = self._result_consumer.drain(_DRAIN_TIMEOUT_SECONDS)
        if bodies:
            crash_point("airflow.drained")
        return bodies
