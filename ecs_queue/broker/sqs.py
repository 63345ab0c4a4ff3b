"""The broker on Amazon SQS: requests in kombu's format, moved with boto3.

SQS carries requests only. Reading a queue costs calls all the time, and no process would delete the result queue of an
owner that died. So results go through the ledger's server, which every owner reaches anyway.
kombu's own transport for SQS is not used (docs/architecture.md, "Why the SQS broker is not kombu's").
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import cached_property

from ecs_queue.broker import topology
from ecs_queue.broker.base import Broker, OnDelivery, OnUndecodable, RequestMessage, ResultConsumer
from ecs_queue.broker.element import encode_elements
from ecs_queue.broker.sqs_client import MAX_ENTRIES, SqsQueues, open_client, with_ids, wrap_sqs_errors
from ecs_queue.broker.sqs_consumer import SqsRequestConsumer
from ecs_queue.broker.sqs_names import dead_letter_queue_name, request_queue_name
from ecs_queue.errors import BrokerUnavailable, UnusableServer

#: What the largest request needs: 128 KiB in base64, and kombu's properties.
_MAX_ELEMENT_BYTES = 180 * 1024
#: Maximum size of a batch: what every queue took before SQS raised the limit to 1 MiB in 2025.
_MAX_BATCH_BYTES = 256 * 1024


class SqsBroker:
    """A `Broker`."""

    def __init__(
        self,
        url: str,
        namespace: str,
        *,
        visibility_timeout: float,
        socket_timeout: float,
        results: Broker,
        max_message_bytes: int = topology.MAX_MESSAGE_BYTES,
    ) -> None:
        """See `Config` for the numbers. `results` is closed with this broker."""
        self._url = url
        self._namespace = namespace
        self._visibility_timeout = math.ceil(visibility_timeout)
        self._socket_timeout = socket_timeout
        self._max_message_bytes = max_message_bytes
        self._results = results

    def __repr__(self) -> str:
        """Leave out the URL."""
        return f"SqsBroker(namespace={self._namespace!r})"

    def publish_requests(self, messages: Sequence[RequestMessage]) -> None:
        """See `Broker.publish_requests`. SQS knows no priorities: workers order what they have received."""
        by_queue: dict[str, list[str]] = {}
        for message in messages:
            name = request_queue_name(self._namespace, message.queue)
            (element,) = encode_elements(name, message.priority, [message.body])
            by_queue.setdefault(name, []).append(element.decode())
        with wrap_sqs_errors():
            for name, elements in by_queue.items():
                for batch in _batches_by_size(elements):
                    self._send(name, batch)

    def publish_results(self, messages: Sequence[tuple[str, bytes]]) -> None:
        """See `Broker.publish_results`."""
        self._results.publish_results(messages)

    def consume_requests(
        self, queues: Sequence[str], prefetch: int, on_delivery: OnDelivery, on_undecodable: OnUndecodable
    ) -> SqsRequestConsumer:
        """See `Broker.consume_requests`."""
        names = {queue: request_queue_name(self._namespace, queue) for queue in queues}
        with wrap_sqs_errors():
            opened = self._open_queues()
            for name in names.values():
                opened.ensure_url(name)
        dead_names = {queue: dead_letter_queue_name(self._namespace, queue) for queue in queues}
        limits = (prefetch, self._max_message_bytes, self._visibility_timeout)
        return SqsRequestConsumer(opened, names, dead_names, limits, on_delivery, on_undecodable)

    def consume_results(self, owner: str) -> ResultConsumer:
        """See `Broker.consume_results`."""
        return self._results.consume_results(owner)

    def delete_result_queue(self, owner: str) -> None:
        """See `Broker.delete_result_queue`."""
        self._results.delete_result_queue(owner)

    def backlog(self, queue: str) -> int:
        """See `Broker.backlog`. SQS's number is approximate."""
        with wrap_sqs_errors():
            name = request_queue_name(self._namespace, queue)
            return self._queues.attribute(name, "ApproximateNumberOfMessages") or 0

    def check(self, queues: Sequence[str] = (), *, may_create: bool = True) -> None:
        """See `Broker.check`."""
        names = [request_queue_name(self._namespace, queue) for queue in queues]
        opened = self._queues  # raises UnusableServer without a Region
        with wrap_sqs_errors():
            opened.forget()
            for name in names or [request_queue_name(self._namespace, "default")]:
                if opened.find_url(name) is None and names and may_create:
                    opened.ensure_url(name)
            maxima = {name: opened.attribute(name, "MaximumMessageSize") for name in names}
        for name, maximum in maxima.items():
            _check_size_limit(name, maximum)
        self._results.check()

    def close(self) -> None:
        """See `Broker.close`."""
        if "_queues" in self.__dict__:
            self._queues.client.close()
        self._results.close()

    @cached_property
    def _queues(self) -> SqsQueues:
        """Those of publishers, which are thread-safe; each consumer has its own."""
        return self._open_queues()

    def _open_queues(self) -> SqsQueues:
        return SqsQueues(open_client(self._url, self._socket_timeout), self._visibility_timeout)

    def _send(self, name: str, elements: Sequence[str]) -> None:
        url = self._queues.ensure_url(name)
        entries = with_ids([{"MessageBody": element} for element in elements])
        try:
            reply = self._queues.client.send_message_batch(QueueUrl=url, Entries=entries)
        except self._queues.client.exceptions.QueueDoesNotExist:
            self._queues.forget()
            raise
        for failure in reply.get("Failed", ()):
            code, text = failure.get("Code", ""), failure.get("Message", "")
            raise BrokerUnavailable(f"the broker did not take a message: {code} {text}; check the queue {name}")


def _check_size_limit(name: str, maximum: int | None) -> None:
    if maximum is not None and maximum < _MAX_ELEMENT_BYTES:
        raise UnusableServer(
            f"the broker's queue {name} takes messages of at most {maximum} bytes, and a request may have "
            f"{_MAX_ELEMENT_BYTES}: set its MaximumMessageSize to 262144 or more"
        )


def _batches_by_size(elements: Sequence[str]) -> Iterator[list[str]]:
    batch: list[str] = []
    size = 0
    for element in elements:
        if batch and (len(batch) == MAX_ENTRIES or size + len(element) > _MAX_BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(element)
        size += len(element)
    if batch:
        yield batch
