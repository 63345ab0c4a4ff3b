"""A harness of a request consumer."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self

from ecs_queue.broker import Broker, Delivery, RequestMessage, make_broker

TIMEOUT_SECONDS = 30.0


@contextmanager
def broker_factory(url: str, usual_namespace: str, ledger_url: str = "") -> Iterator[Callable[..., Broker]]:
    """Return a function that makes brokers of a namespace; they are closed at the end."""
    made: list[Broker] = []

    def make(namespace: str = usual_namespace, visibility_timeout: float = 60.0, **options: Any) -> Broker:
        options = {"visibility_timeout": visibility_timeout, "socket_timeout": 5.0, **options}
        broker = make_broker(url, namespace, ledger_url=ledger_url, **options)
        made.append(broker)
        return broker

    yield make
    for broker in made:
        broker.close()


class BrokerHarness:
    """Consumes `queues` and keeps the deliveries unacknowledged."""

    def __init__(
        self,
        broker: Broker,
        queues: Sequence[str] = ("q",),
        prefetch: int = 10,
        limits: Mapping[str, int] | None = None,
    ) -> None:
        """Connect; `limits` are those of each drain."""
        self.broker = broker
        self.limits = limits
        self.deliveries: list[Delivery] = []
        self.undecodable: list[tuple[str, bytes, str]] = []
        self.consumer = broker.consume_requests(
            queues, prefetch, self.deliveries.append, lambda *element: self.undecodable.append(element)
        )

    def publish(self, *bodies: bytes, queue: str = "q", priority: int = 0) -> None:
        self.broker.publish_requests([RequestMessage(queue, body, priority) for body in bodies])

    def drain_until(self, condition: Callable[[], bool]) -> None:
        """Drain until the condition holds; fail after a time limit."""
        deadline = time.monotonic() + TIMEOUT_SECONDS
        while not condition():
            assert time.monotonic() < deadline, f"unacknowledged: {self.bodies}"
            self.consumer.drain(0.05, self.limits)

    def receive(self, number: int) -> list[bytes]:
        """Drain until `number` messages are unacknowledged, and return their bodies."""
        self.drain_until(lambda: len(self.deliveries) >= number)
        return self.bodies

    def drain_for(self, seconds: float) -> list[bytes]:
        """Drain for `seconds`, and return the unacknowledged bodies."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.consumer.drain(0.05, self.limits)
        return self.bodies

    @property
    def bodies(self) -> list[bytes]:
        return [delivery.body for delivery in self.deliveries]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.consumer.close()
