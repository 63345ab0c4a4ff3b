"""Prepares, stores and publishes requests for the Python client."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any

import msgspec

from ecs_queue.broker.base import Broker
from ecs_queue.client import producer
from ecs_queue.client.acting_user import acting_user
from ecs_queue.client.main_container import render_main_container
from ecs_queue.client.producer import PreparedRequest, batches
from ecs_queue.client.task_line import parse_task_line
from ecs_queue.client.tracing import ClientTracing
from ecs_queue.client.tracing_setup import open_client_tracing
from ecs_queue.config import Config
from ecs_queue.crash_points import crash_point
from ecs_queue.errors import BrokerUnavailable, LedgerUnavailable, MissingRight
from ecs_queue.journal.client_journal import ClientJournal
from ecs_queue.ledger.base import Ledger
from ecs_queue.messages import envelope
from ecs_queue.messages.keyring import Keyring
from ecs_queue.messages.request import new_request
from ecs_queue.messages.result import build_result
from ecs_queue.protocol.operations import OperationResult, ResultCode
from ecs_queue.protocol.record import Record
from ecs_queue.runtask.arguments import validate_request
from ecs_queue.runtask.launch_spec import build_queued_task

logger = logging.getLogger("ecs_queue")

#: Maximum number of requests in one pipelined write.
BATCH_SIZE = 500
#: How long a measured difference to the ledger's clock is used. Seconds.
_CLOCK_SYNC_INTERVAL_SECONDS = 60.0
#: A request that may be launched within this time is announced as one without a delay. More than clocks drift apart.
_SHORT_DELAY_SECONDS = 5.0


class RequestSender:
    """Makes requests of one owner and submits them. Thread-safe."""

    def __init__(
        self,
        config: Config,
        broker: Broker,
        ledger: Ledger,
        journal: ClientJournal,
        keyring: Keyring,
        owner: str,
        clock: Callable[[], float],
        monotonic: Callable[[], float],
        new_id: Callable[[], str],
    ) -> None:
        """See `EcsQueue.__init__`."""
        self._config = config
        self._broker = broker
        self._ledger = ledger
        self._journal = journal
        self._keyring = keyring
        self._owner = owner
        self._clock = clock
        self._monotonic = monotonic
        self._new_id = new_id
        self._clock_offset = 0.0  # this machine's clock minus the ledger's, seconds
        self._clock_synced_at = float("-inf")

    @cached_property
    def tracing(self) -> ClientTracing:
        """What exports the spans of submissions and results; opened when it is needed."""
        return open_client_tracing(self._config)

    def close(self) -> None:
        """Export the spans that are left."""
        if "tracing" in self.__dict__:
            self.tracing.close()

    def prepare(self, task: Mapping[str, Any], origin: str) -> PreparedRequest:
        """See `EcsQueue.prepare`."""
        fields = parse_task_line(task)
        request = new_request(
            now=self._now(for_deadline="expires_in" in fields or "delay" in fields),
            accept_seconds=self._config.accept_seconds,
            owner=self._owner,
            origin=origin,
            submitted_by=acting_user(self._config),
            **self._render(fields),
        )
        profile = producer.profile_for_checks(self._config.profile(request.queue))
        validate_request(profile, build_queued_task(request, 1, request.submitted_at), request.labels)
        request, span = self.tracing.begin_submission(request)
        try:
            prepared = producer.prepare_request(request, self._config, self._keyring)
        except BaseException as error:
            self.tracing.fail_submission(span, type(error).__name__)
            raise
        return prepared if span is None else msgspec.structs.replace(prepared, submit_span=span)

    def fail(self, prepared_requests: Iterable[PreparedRequest], error_type: str) -> None:
        """Note that these are not sent after all, or may not have been."""
        for prepared_request in prepared_requests:
            self.tracing.fail_submission(prepared_request.submit_span, error_type)

    def find_conflicts(self, prepared_requests: Sequence[PreparedRequest]) -> list[PreparedRequest]:
        """See `EcsQueue.find_conflicts`."""
        return [
            conflict
            for batch in batches(prepared_requests, BATCH_SIZE)
            for conflict in producer.find_conflicts(batch, self._ledger.get([item.request.id for item in batch]))
        ]

    def send(self, prepared_requests: Sequence[PreparedRequest]) -> list[OperationResult]:
        """Store requests, then publish their messages; raises as `EcsQueue.send` does."""
        results = self._ledger.put([item.submission for item in prepared_requests])
        answered = list(zip(prepared_requests, results, strict=True))
        crash_point("client.requests_put")
        created = [item for item, result in answered if result.code is ResultCode.CREATED]
        self._journal.record_submissions(item.submission for item in created)
        self._publish_requests(created)
        for item, result in answered:
            self.tracing.end_submission(item, result.code)
        for item, result in answered:
            producer.raise_if_rejected(item, result)
        return results

    def put_again(self, prepared_request: PreparedRequest) -> bool:
        """Put the same envelope again after the ledger lost it in a fail-over, so that it is the same request."""
        if not producer.is_accepted(self._ledger.put([prepared_request.submission])[0]):
            return False
        crash_point("client.request_put_again")
        self._publish_requests([prepared_request])
        return True

    def publish_result(self, record: Record) -> None:
        """Publish the result of a request that a stop has ended."""
        body = envelope.encode(build_result(record), self._keyring)
        try:
            self._broker.publish_results([(record.owner, body)])
            crash_point("client.stop_result_published")
        except (BrokerUnavailable, MissingRight) as error:
            logger.debug("A result was not published, its owner will find it in the ledger: %s", error)

    def _render(self, fields: dict[str, Any]) -> dict[str, Any]:
        """Return the members of the request: those of the task line, with an id and with the main container's."""
        fields.setdefault("id", self._new_id())
        queue = fields.get("queue", "default")
        name = self._config.profile(queue).container_name if isinstance(queue, str) else None
        return render_main_container(fields, name)

    def _now(self, for_deadline: bool) -> float:
        """Seconds since the epoch. Deadlines use the ledger's clock: this machine's clock may be minutes off."""
        now = self._clock()
        if for_deadline and self._clock_synced_at + _CLOCK_SYNC_INTERVAL_SECONDS <= self._monotonic():
            try:
                self._clock_offset = now - self._ledger.now()
                self._clock_synced_at = self._monotonic()
            except (LedgerUnavailable, MissingRight) as error:
                logger.debug("Using this machine's clock for a deadline, the ledger's cannot be read: %s", error)
        return now - self._clock_offset

    def _is_due_soon(self, prepared_request: PreparedRequest) -> bool:
        delayed_until = prepared_request.submission.delayed_until
        return not delayed_until or delayed_until <= self._now(for_deadline=True) + _SHORT_DELAY_SECONDS

    def _publish_requests(self, created: Sequence[PreparedRequest]) -> None:
        """Publish the messages of new requests, except of delayed ones, which workers find in the ledger in time.

        A request that is due soon gets a message: it may be due before the ledger stores it, and would wait for the
        sweep. A message that arrives too early has no effect.
        """
        requests = list(filter(self._is_due_soon, created))
        if not requests:
            return
        try:
            self._broker.publish_requests([request.to_message() for request in requests])
            crash_point("client.requests_published")
        except (BrokerUnavailable, MissingRight) as error:
            # They are accepted: the workers' sweep finds records without a message.
            logger.warning("%d requests were accepted but not published, which delays them: %s", len(requests), error)
