"""Publishes results on the broker: a hint that makes delivery fast, since the ledger keeps what is undelivered."""

from __future__ import annotations

import queue
from collections.abc import Sequence
from typing import Protocol

from ecs_queue.crash_points import crash_point
from ecs_queue.error_text import error_text, typed_error_text
from ecs_queue.errors import BrokerUnavailable, MissingRight
from ecs_queue.messages.envelope import encode
from ecs_queue.messages.keyring import NO_KEYS, Keyring
from ecs_queue.messages.result import build_result
from ecs_queue.protocol.record import Record
from ecs_queue.telemetry import Telemetry
from ecs_queue.worker.service import ThreadService

_BATCH_SIZE = 500
#: Time for which the next batch is gathered, for each result of the last one and at most: many small batches cost the
#: broker's client far more, but a lone result should not wait. Seconds.
_GATHER_PER_RESULT, _MAX_GATHER = 0.005, 0.02
#: The most results that wait for a lost broker; beyond, the owners of the oldest find them in the ledger.
_MAX_PENDING = 20_000


class ResultBroker(Protocol):
    """The part of a `Broker` that it needs."""

    def publish_results(self, messages: Sequence[tuple[str, bytes]]) -> None:
        """See `Broker.publish_results`."""
        ...


class ResultPublisher(ThreadService):
    """Publishes in batches on its own thread, so that no launch or poll waits for the broker."""

    def __init__(
        self, broker: ResultBroker, telemetry: Telemetry, error_delay: float = 1.0, keyring: Keyring = NO_KEYS
    ) -> None:
        """`keyring` signs the results."""
        super().__init__("result-publisher")
        self._broker = broker
        self._telemetry = telemetry
        self._error_delay = error_delay
        self._keyring = keyring
        self._pending: queue.SimpleQueue[Record | None] = queue.SimpleQueue()
        self._in_hand = 0

    def publish(self, record: Record) -> None:
        """Publish the result of an ended record that has an owner. Does not block."""
        if record.owner:
            self._pending.put(record)

    def count_pending(self) -> int:
        """Return how many results wait, those of the batch that is being published included."""
        return self._pending.qsize() + self._in_hand

    def stop(self) -> None:
        """See `Service`. Pending results are still published, with one try."""
        super().stop()
        self._pending.put(None)

    def _run(self) -> None:
        while True:
            batch = self._next_batch()
            if batch:
                self._in_hand = len(batch)
                self._publish_batch(batch)
                self._in_hand = 0
            if self._stopping.is_set() and self._pending.empty():
                return
            if len(batch) < _BATCH_SIZE:
                self._stopping.wait(min(_MAX_GATHER, _GATHER_PER_RESULT * len(batch)))

    def _next_batch(self) -> list[tuple[str, bytes]]:
        record = self._pending.get()
        batch: list[tuple[str, bytes]] = []
        while record is not None:
            try:
                batch.append((record.owner, encode(build_result(record), self._keyring)))
            except (TypeError, ValueError) as error:  # ECS's text is not valid in JSON
                self._report_unpublished(1, f"{record.id}: {error_text(error)}")
            if len(batch) == _BATCH_SIZE:
                break
            try:
                record = self._pending.get_nowait()
            except queue.Empty:
                break
        return batch

    def _publish_batch(self, batch: list[tuple[str, bytes]]) -> None:
        while True:
            try:
                crash_point("result_publisher.publishing")
                self._broker.publish_results(batch)
                crash_point("result_publisher.published")
            except BrokerUnavailable as error:
                if self._stopping.is_set() or self._pending.qsize() > _MAX_PENDING:
                    return self._report_unpublished(len(batch), str(error))
                self._stopping.wait(self._error_delay)
            except MissingRight as error:
                return self._report_unpublished(len(batch), str(error))
            except Exception as error:  # noqa: BLE001 - it must not end the thread: later results have to be published
                return self._report_unpublished(len(batch), typed_error_text(error))
            else:
                return None

    def _report_unpublished(self, results: int, reason: str) -> None:
        self._telemetry.emit("results.unpublished", results=results, reason=reason)
