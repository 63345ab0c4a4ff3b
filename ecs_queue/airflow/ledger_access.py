"""The executor's side of ledger and broker: bounded, and it answers None instead of raising when one is away."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
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
from ecs_queue.journal import JournalStore, open_journal_store
from ecs_queue.journal.client_journal import ClientJournal
from ecs_queue.ledger import open_ledger
from ecs_queue.ledger.base import Ledger
from ecs_queue.messages import envelope
from ecs_queue.messages.envelope import TaskResult, build_result
from ecs_queue.protocol.operations import OperationResult, ResultCode
from ecs_queue.protocol.record import Record

#: One round trip each: with Airflow's usual workloads half a megabyte.
SEND_BATCH_SIZE = 250
_DRAIN_TIMEOUT_SECONDS = 0.002  # for the broker's answer to "is there a result?"


class LedgerAccess:
    """One scheduler job's access. `owner` names its results.

    Used by the scheduler's one thread, and by the two of `send_soon`, one for the ledger and one for the broker: never
    two at once on one connection, for the scheduler's only prepares what is sent next, and waits for all that is under
    way before it does anything else.
    """

    def __init__(
        self,
        config: Config,
        broker: Broker,
        ledger: Ledger,
        owner: str,
        log: logging.Logger,
        *,
        clock: Callable[[], float] = time.time,
        on_failure: Callable[[str], None] = lambda _: None,
        journal: JournalStore | None = None,
    ) -> None:
        """`on_failure("ledger" or "broker")` is called for each call that fails."""
        self.config = config
        self.owner = owner
        self._broker = broker
        self._ledger = ledger
        self._clock = clock
        self._journal = ClientJournal(journal, config.namespace)
        self._validation_cache = ValidationCache(config)
        self._keyring = open_keyring(config)
        self._log = log
        self._inbox: ResultConsumer | None = None
        self._put_pool = ThreadPoolExecutor(1, "ecs-queue-put")  # a pool's thread starts with the first use
        self._publish_pool = ThreadPoolExecutor(1, "ecs-queue-publish")
        self.ledger_guard = OutageGuard("ledger", log, on_failure=lambda: on_failure("ledger"))
        self.broker_guard = OutageGuard("broker", log, on_failure=lambda: on_failure("broker"))

    @classmethod
    def open(cls, config: Config, owner: str, log: logging.Logger, on_failure: Callable[[str], None]) -> LedgerAccess:
        """By the configuration; connects when first used."""
        return cls(
            config,
            open_broker(config),
            open_ledger(config),
            owner,
            log,
            on_failure=on_failure,
            journal=open_journal_store(config),
        )

    @property
    def is_backing_off(self) -> bool:
        """Whether the ledger has just failed and is left alone: nothing can be accepted."""
        return self.ledger_guard.is_backing_off

    def prepare(self, task_line: Mapping[str, Any]) -> PreparedRequest:
        """As `EcsQueue.prepare`, but what many tasks have in common is checked once. InvalidRequest, ConfigError."""
        config = self.config
        request = envelope.new_request(
            now=self._clock(), accept_seconds=config.accept_seconds, owner=self.owner, **task_line
        )
        self._validation_cache.validate(request)
        return prepare_request(request, config, self._keyring)

    def pause_journal(self) -> AbstractContextManager[None]:
        """Within, the scheduler waits for what is sent: the journal's thread leaves it the interpreter."""
        return self._journal.pause_writes()

    def send_in_background(self, prepared_requests: Sequence[PreparedRequest]) -> Future[list[OperationResult]]:
        """Put and announce at most `SEND_AT_ONCE` drafts, while the caller prepares the next: servers take their time.

        The ledger's answers in order, none when it cannot be reached; they are there when all is announced.
        """
        return self._publish_pool.submit(
            self._publish_accepted, prepared_requests, self._put_pool.submit(self._put, prepared_requests)
        )

    def _put(self, prepared_requests: Sequence[PreparedRequest]) -> list[OperationResult]:
        submissions = [draft.submission for draft in prepared_requests]
        answers = self.ledger_guard.attempt(lambda: self._ledger.put(submissions)) if submissions else []
        crash_point("airflow.put")
        answered = zip(submissions, answers or (), strict=False)
        self._journal.record_submissions(new for new, answer in answered if answer.code is ResultCode.CREATED)
        return answers or []

    def _publish_accepted(
        self, prepared_requests: Sequence[PreparedRequest], put: Future[list[OperationResult]]
    ) -> list[OperationResult]:
        answers = put.result()
        answered = zip(prepared_requests, answers, strict=False)
        self._publish([draft for draft, answer in answered if is_accepted(answer)])
        return answers

    def _publish(self, prepared_requests: Sequence[PreparedRequest]) -> None:
        """Announce what the ledger has; in an outage the workers' sweep finds it."""
        messages = [prepared.to_message() for prepared in prepared_requests]
        if messages:
            self.broker_guard.attempt(lambda: self._broker.publish_requests(messages))
            crash_point("airflow.published")

    def receive_results(self, deadline: float) -> Iterator[TaskResult]:
        """What result messages speak of, as the ledger has it; until `deadline` (monotonic) at the latest."""
        while not self.is_backing_off:
            bodies = self.broker_guard.attempt(self._drain_inbox)
            keys = decode_result_keys(bodies or (), self._keyring, self._log)
            records = self.get_records([request_id for request_id, _ in keys])
            if records is not None:  # in an outage the ledger is read later
                yield from iter_confirmed_results(keys, records, self.owner, self._log)
            if not bodies or time.monotonic() >= deadline:
                return

    def get_undelivered_results(self, limit: int) -> list[TaskResult] | None:
        """Results that are not confirmed, oldest first."""
        records = self.ledger_guard.attempt(lambda: self._ledger.list_undelivered(self.owner, limit))
        return None if records is None else [build_result(record) for record in records]

    def get_records(self, ids: Sequence[str]) -> list[Record | None] | None:
        """The records as they stand."""
        return self.ledger_guard.attempt(lambda: self._ledger.get(ids)) if ids else []

    def adopt(self, ids: Sequence[str]) -> list[OperationResult] | None:
        """Make them this owner's."""
        return self.ledger_guard.attempt(lambda: self._ledger.adopt(ids, self.owner)) if ids else []

    def stop(self, ids: Sequence[str], by: str) -> list[OperationResult] | None:
        """Ask for stops; an unknown id is revoked when it arrives."""
        answers = self.ledger_guard.attempt(lambda: self._ledger.stop(ids, by)) if ids else []
        for record_id, answer in zip(ids, answers or (), strict=False):
            self._journal.record_stop_request(record_id, by, answer.code)
        return answers

    def confirm(self, results: Sequence[tuple[str, str]]) -> list[OperationResult] | None:
        """Their results have arrived for good."""
        return self.ledger_guard.attempt(lambda: self._ledger.confirm(results, self.owner)) if results else []

    def find_problems(self) -> list[str]:
        """What is wrong with ledger and broker, as sentences."""
        problems = self.ledger_guard.attempt(self._ledger.check_server)
        found = ["the ledger cannot be reached"] if problems is None else list(problems)
        if problems is not None and not self.broker_guard.attempt(self._check_broker):
            found.append("the broker cannot be reached")
        return found

    def close(self) -> None:
        """Give the connections back; requests go on, their results stay in the ledger."""
        self._put_pool.shutdown()
        self._publish_pool.shutdown()
        if self._inbox is not None:
            self._inbox.close()
        self._journal.close()
        self._broker.close()
        self._ledger.close()

    def _check_broker(self) -> bool:
        self._broker.check()
        return True

    def _drain_inbox(self) -> list[bytes]:
        if self._inbox is None:
            self._inbox = self._broker.consume_results(self.owner)
        bodies = self._inbox.drain(_DRAIN_TIMEOUT_SECONDS)
        if bodies:
            crash_point("airflow.drained")
        return bodies
