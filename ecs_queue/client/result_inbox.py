"""Where a client's result messages arrive: its owner's queue at the broker, opened when it is first read."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence

from ecs_queue.broker.base import Broker, ResultConsumer
from ecs_queue.crash_points import crash_point
from ecs_queue.errors import BrokerUnavailable, MissingRight

logger = logging.getLogger("ecs_queue")

#: Pause after a broker that cannot be reached: each attempt may take the whole socket timeout. Seconds.
_BROKER_RETRY_SECONDS = 2.0


class ResultInbox:
    """The result messages of one owner. An outage of the broker only pauses it. Use it in one thread."""

    def __init__(self, broker: Broker, owner: str, monotonic: Callable[[], float]) -> None:
        """Open nothing yet; with the owner "" no message ever arrives."""
        self._broker = broker
        self._owner = owner
        self._monotonic = monotonic
        self._retry_at = float("-inf")
        self._consumer: ResultConsumer | None = None

    @property
    def is_open(self) -> bool:
        """Whether the owner's queue was opened."""
        return self._consumer is not None

    def drain(self, timeout: float, closed: threading.Event) -> Sequence[bytes]:
        """Return the messages that arrive within `timeout` seconds; `closed` ends a wait without the broker."""
        if not self._owner or self._monotonic() < self._retry_at:
            closed.wait(timeout)  # results come from the ledger alone
            return ()
        try:
            if self._consumer is None:
                self._consumer = self._broker.consume_results(self._owner)
            bodies = self._consumer.drain(timeout)
        except (BrokerUnavailable, MissingRight) as error:
            logger.debug("Results are read from the ledger alone: %s", error)
            self._retry_at = self._monotonic() + _BROKER_RETRY_SECONDS
            return ()
        if bodies:
            crash_point("client.results_drained")
        return bodies

    def close(self) -> None:
        """Close the consumer; the queue stays."""
        if self._consumer is not None:
            self._consumer.close()
