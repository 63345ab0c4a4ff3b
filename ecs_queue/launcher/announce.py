"""Announces results on the broker. A hint that makes delivery fast: the ledger keeps what is undelivered."""

from __future__ import annotations

import queue
import threading

from ecs_queue.broker.base import Broker
from ecs_queue.core.envelope import encode, result_of
from ecs_queue.core.keyring import NO_KEYS, Keyring
from ecs_queue.core.record import Record
from ecs_queue.crashpoints import reach
from ecs_queue.errors import BrokerUnavailable
from ecs_queue.telemetry import Telemetry

_BATCH = 500
#: For so long after a batch the next is gathered: many small ones cost the broker's client far more. Seconds.
_GATHER = 0.02
#: Results that wait for a lost broker; beyond, the oldest are left to their owners' look into the ledger.
_KEPT = 20_000


class Announcer:
    """A `Service`: publishes in batches on a thread of its own, so that no launch or poll waits for the broker."""

    def __init__(
        self, broker: Broker, telemetry: Telemetry, rest_after_error: float = 1.0, keyring: Keyring = NO_KEYS
    ) -> None:
        """`keyring`: signs the results."""
        self._broker = broker
        self._telemetry = telemetry
        self._rest_after_error = rest_after_error
        self._keyring = keyring
        self._waiting: queue.SimpleQueue[Record | None] = queue.SimpleQueue()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def publish(self, record: Record) -> None:
        """Announce the result of an ended record, if anybody waits for it. Does not block."""
        if record.owner:
            self._waiting.put(record)

    def start(self) -> None:
        """See `Service`."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="announcer", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """See `Service`. What waits is still published, once."""
        self._stopping.set()
        self._waiting.put(None)

    def join(self, timeout: float) -> bool:
        """See `Service`."""
        if self._thread is None:
            return True
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while True:
            batch = self._next_batch()
            if batch:
                self._send(batch)
            if self._stopping.is_set() and self._waiting.empty():
                return
            if len(batch) < _BATCH:
                self._stopping.wait(_GATHER)

    def _next_batch(self) -> list[tuple[str, bytes]]:
        record = self._waiting.get()
        batch: list[tuple[str, bytes]] = []
        while record is not None:
            self._add(record, batch)
            if len(batch) == _BATCH:
                break
            try:
                record = self._waiting.get_nowait()
            except queue.Empty:
                break
        return batch

    def _add(self, record: Record, batch: list[tuple[str, bytes]]) -> None:
        try:
            batch.append((record.owner, encode(result_of(record), self._keyring)))
        except (TypeError, ValueError) as error:  # words of ECS that JSON cannot hold
            self._left_to_the_ledger(1, f"{record.id}: {error}")

    def _send(self, batch: list[tuple[str, bytes]]) -> None:
        while True:
            try:
                reach("announce.publishing")
                self._broker.publish_results(batch)
                reach("announce.published")
            except BrokerUnavailable as error:
                if self._stopping.is_set() or self._waiting.qsize() > _KEPT:
                    return self._left_to_the_ledger(len(batch), str(error))
                self._stopping.wait(self._rest_after_error)
            except Exception as error:  # noqa: BLE001 - it must not end the thread: later results want to be told too
                return self._left_to_the_ledger(len(batch), f"{type(error).__name__}: {error}")
            else:
                return None

    def _left_to_the_ledger(self, results: int, reason: str) -> None:
        self._telemetry.emit("results.unpublished", results=results, reason=reason)
