"""Receives request messages from Amazon SQS, several queues on one thread, and the contents of dead-letter queues."""

from __future__ import annotations

import time
from binascii import a2b_base64
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

import msgspec

from ecs_queue.broker.base import OnDelivery, OnUndecodable
from ecs_queue.broker.element import UndecodableElement, decode_element, find_size_problem
from ecs_queue.broker.failures import CONNECTION_ERRORS
from ecs_queue.broker.outstanding import OutstandingDeliveries, OutstandingDelivery, Request
from ecs_queue.broker.sqs_client import (
    LONG_POLL_SECONDS,
    MAX_ENTRIES,
    SqsQueues,
    batches,
    with_ids,
    wrap_sqs_errors,
)

#: Time between short polls when a drain may not wait for as long as that. Seconds.
_SHORT_POLL_INTERVAL = 0.1
#: How often dead-letter queues are read, and how often it is checked whether one exists by now. Seconds.
_DEAD_LETTER_INTERVAL, _DEAD_LETTER_SEARCH_INTERVAL = 30.0, 300.0
_RECEIVE_COUNT = "ApproximateReceiveCount"


class _Received(NamedTuple):
    """What is needed to acknowledge a message."""

    url: str
    handle: str


class SqsRequestConsumer:
    """See `RequestConsumer`."""

    def __init__(
        self,
        queues: SqsQueues,
        names: Mapping[str, str],
        dead_names: Mapping[str, str],
        limits: tuple[int, int, int],
        on_delivery: OnDelivery,
        on_undecodable: OnUndecodable,
    ) -> None:
        """Make no call yet.

        Args:
            queues: The client's queues; they are closed with this consumer.
            names: SQS's name for each queue.
            dead_names: SQS's name of the dead-letter queue for each queue; it need not exist.
            limits: The prefetch limit, the largest message in bytes, the visibility timeout in seconds.
            on_delivery: See `Broker.consume_requests`.
            on_undecodable: See `Broker.consume_requests`.
        """
        self._queues = queues
        self._names = names
        self._dead_names = dead_names
        self._prefetch, self._max_message_bytes, self._visibility_timeout = limits
        self._on_delivery = on_delivery
        self._on_undecodable = on_undecodable
        self._outstanding = OutstandingDeliveries()
        self._refused: list[_Received] = []
        self._suspended: set[str] = set()
        self._order = deque(names)  # the queue that waits longest first
        self._dead_letters_at = self._dead_letters_searched_at = float("-inf")

    def drain(self, timeout: float, limits: Mapping[str, int] | None = None) -> int:
        """See `RequestConsumer.drain`."""
        deadline = time.monotonic() + timeout
        with wrap_sqs_errors():
            self._send_requests()
            if self._is_full:
                self._outstanding.wait_for_request(timeout)
                self._send_requests()
                return 0
            self._receive_dead_letters()
            while True:
                received = self._receive_from_all(limits, deadline)
                left = deadline - time.monotonic()
                if received or left <= 0:
                    return received
                self._outstanding.wait_for_request(min(left, _SHORT_POLL_INTERVAL))
                self._send_requests()

    def suspend(self, queue: str) -> None:
        """See `RequestConsumer.suspend`."""
        self._suspended.add(queue)

    def resume(self, queue: str) -> None:
        """See `RequestConsumer.resume`."""
        self._suspended.discard(queue)

    def restore_expired(self) -> bool:
        """See `RequestConsumer.restore_expired`. SQS does that by itself."""
        return False

    def close(self) -> None:
        """See `RequestConsumer.close`."""
        with suppress(*CONNECTION_ERRORS), wrap_sqs_errors():
            self._send_requests()
            self._change([delivery.message for delivery in self._outstanding], Request.REQUEUE)
        self._outstanding.remove(self._outstanding)
        self._queues.client.close()

    @property
    def _is_full(self) -> bool:
        return len(self._outstanding) >= self._prefetch

    def _receive_from_all(self, limits: Mapping[str, int] | None, deadline: float) -> int:
        """Ask every queue, and wait for a message in the last one if there is time. Return the number of messages."""
        queues = [queue for queue in self._order if queue not in self._suspended]
        received = 0
        for queue in queues:
            room = self._prefetch - len(self._outstanding)
            maximum = min(room, MAX_ENTRIES, limits.get(queue, 0) if limits is not None else 1)
            if maximum <= 0 or (received and limits is None):
                continue
            may_wait = not received and queue == queues[-1] and time.monotonic() + LONG_POLL_SECONDS <= deadline
            received += self._receive(queue, maximum, LONG_POLL_SECONDS if may_wait else 0)
            self._order.remove(queue)
            self._order.append(queue)
        return received

    def _receive(self, queue: str, maximum: int, wait: int) -> int:
        received = 0
        url = self._queues.ensure_url(self._names[queue])
        for message in self._call_receive(url, maximum, wait):
            taken = _Received(url, message["ReceiptHandle"])
            element = read_element(message["Body"])
            try:
                body = self._decode(element)
            except UndecodableElement as error:
                self._on_undecodable(queue, element[: self._max_message_bytes], str(error))
                self._refused.append(taken)
                continue
            is_redelivered = int(message.get("Attributes", {}).get(_RECEIVE_COUNT, 1)) > 1
            self._on_delivery(OutstandingDelivery(self._outstanding, queue, body, is_redelivered, taken))
            received += 1
        return received

    def _call_receive(self, url: str, maximum: int, wait: int) -> Sequence[dict[str, Any]]:
        try:
            reply = self._queues.client.receive_message(
                QueueUrl=url,
                MaxNumberOfMessages=maximum,
                WaitTimeSeconds=wait,
                VisibilityTimeout=self._visibility_timeout,
                MessageSystemAttributeNames=[_RECEIVE_COUNT],
            )
        except self._queues.client.exceptions.QueueDoesNotExist:
            self._queues.forget()
            raise
        messages: Sequence[dict[str, Any]] = reply.get("Messages", ())
        return messages

    def _decode(self, element: bytes) -> bytes:
        if problem := find_size_problem(len(element), self._max_message_bytes):
            raise UndecodableElement(problem)
        return decode_sqs_element(element)

    def _receive_dead_letters(self) -> None:
        """Report what SQS moved to a dead-letter queue of ours."""
        now = time.monotonic()
        if now - self._dead_letters_at < _DEAD_LETTER_INTERVAL:
            return
        self._dead_letters_at = now
        may_search = now - self._dead_letters_searched_at >= _DEAD_LETTER_SEARCH_INTERVAL
        if may_search:
            self._dead_letters_searched_at = now
        for queue, name in self._dead_names.items():
            url = self._queues.find_optional_url(name) if may_search or self._queues.knows(name) else None
            if url is not None and self._report_dead_letters(queue, name, url):
                self._dead_letters_at = float("-inf")  # there may be more

    def _report_dead_letters(self, queue: str, name: str, url: str) -> bool:
        messages = self._call_receive(url, MAX_ENTRIES, 0)
        for message in messages:
            element = read_element(message["Body"])
            try:
                body = self._decode(element)
            except UndecodableElement:
                body = element[: self._max_message_bytes]
            reason = f"SQS moved it to its dead-letter queue {name}: no worker acknowledged it"
            self._on_undecodable(queue, body, reason)
            self._refused.append(_Received(url, message["ReceiptHandle"]))
        return bool(messages)

    def _send_requests(self) -> None:
        self._change(self._refused, Request.ACK)
        self._refused.clear()
        pending = self._outstanding.pending_requests()
        # SQS has no order, and so no head of a queue.
        acked = [delivery for delivery, request in pending.items() if request is Request.ACK]
        returned = [delivery for delivery, request in pending.items() if request is not Request.ACK]
        for deliveries, request in ((acked, Request.ACK), (returned, Request.REQUEUE)):
            self._change([delivery.message for delivery in deliveries], request)
            self._outstanding.remove(deliveries)

    def _change(self, received: Sequence[_Received], request: Request) -> None:
        """Delete messages, or make them visible again. No effect on those that another consumer has received since."""
        client = self._queues.client
        for url in dict.fromkeys(one.url for one in received):
            for batch in batches([one for one in received if one.url == url]):
                entries: list[dict[str, Any]] = with_ids([{"ReceiptHandle": one.handle} for one in batch])
                if request is Request.ACK:
                    client.delete_message_batch(QueueUrl=url, Entries=entries)
                else:
                    entries = [{**entry, "VisibilityTimeout": 0} for entry in entries]
                    client.change_message_visibility_batch(QueueUrl=url, Entries=entries)


def read_element(text: str) -> bytes:
    """Return a message's body as bytes, without the base64 that kombu may put around it."""
    raw = text.encode()
    if not raw.lstrip().startswith(b"{"):
        with suppress(ValueError):
            return a2b_base64(raw, strict_mode=True)
    return raw


def decode_sqs_element(element: bytes) -> bytes:
    """Return the envelope in a message. Programs without kombu send the envelope itself.

    Raises:
        UndecodableElement: It is neither in kombu's format nor a JSON object.
    """
    with suppress(msgspec.DecodeError, ValueError, RecursionError):
        if "properties" not in msgspec.json.decode(element, type=dict[str, msgspec.Raw]):
            return element
    return decode_element(element).body
