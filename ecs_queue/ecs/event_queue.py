"""The SQS queue into which EventBridge puts ECS's events, over boto3."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol
from urllib.parse import urlsplit

from ecs_queue.ecs.classify import classify_read_error
from ecs_queue.ecs.clients import EcsClients, Target
from ecs_queue.errors import EventQueueUnavailable

#: The largest number of messages in one receipt or deletion (SQS's limit).
MAX_BATCH_SIZE = 10
#: How long a received message is hidden from other readers. Seconds.
VISIBILITY_TIMEOUT = 30
_REGION = re.compile(r"(?:^|\.)(?:sqs\.)?([a-z]{2}(?:-[a-z]+)+-\d)(?:\.|$)")


class EventMessage(NamedTuple):
    """A message as received; `receipt_handle` deletes it."""

    body: str
    receipt_handle: str


class EventQueue(Protocol):
    """A queue of events, which come at least once and in any order."""

    def receive(self) -> list[EventMessage]:
        """Return up to ten messages, waiting a while for the first; they come again unless they are deleted.

        Raises:
            EventQueueUnavailable: the queue cannot be read.
        """
        ...

    def delete(self, messages: Sequence[EventMessage]) -> int:
        """Delete up to ten messages; return how many were not deleted and come again. Raises as `receive` does."""
        ...


class SqsEventQueue:
    """An `EventQueue` in SQS. Thread-safe.

    Args:
        open_client: Returns a boto3 SQS client; called again after an error, so that renewed credentials are found.
        wait_seconds: How long a receipt waits for the first message.
        visibility_timeout: How long a received message is hidden from other readers, in whole seconds.
    """

    def __init__(self, open_client: Callable[[], Any], url: str, wait_seconds: int, visibility_timeout: int) -> None:
        self._open_client = open_client
        self._url = url
        self._wait_seconds = wait_seconds
        self._visibility_timeout = visibility_timeout
        self._lock = threading.Lock()
        self._client: Any = None

    def receive(self) -> list[EventMessage]:
        """See `EventQueue`. A long poll: an empty response means that SQS has no message."""
        response = self._call(
            "receive_message",
            MaxNumberOfMessages=MAX_BATCH_SIZE,
            WaitTimeSeconds=self._wait_seconds,
            VisibilityTimeout=self._visibility_timeout,
        )
        return [EventMessage(message["Body"], message["ReceiptHandle"]) for message in response.get("Messages") or ()]

    def delete(self, messages: Sequence[EventMessage]) -> int:
        """See `EventQueue`."""
        entries = [{"Id": str(n), "ReceiptHandle": message.receipt_handle} for n, message in enumerate(messages)]
        response = self._call("delete_message_batch", Entries=entries)
        return len(response.get("Failed") or ())

    def _call(self, operation: str, **arguments: Any) -> Any:
        client = None
        try:
            client = self._ready_client()
            return getattr(client, operation)(QueueUrl=self._url, **arguments)
        except Exception as error:
            with self._lock:
                if self._client is client:
                    self._client = None
            reason = classify_read_error(error).reason.replace("ECS was not reached", "SQS was not reached")
            raise EventQueueUnavailable(reason) from error

    def _ready_client(self) -> Any:
        with self._lock:
            if self._client is None:
                self._client = self._open_client()
            return self._client


def open_event_queue(
    clients: EcsClients, target: Target, url: str, read_timeout: float, visibility_timeout: int = VISIBILITY_TIMEOUT
) -> EventQueue:
    """Return the queue at this URL, read with the target's credentials."""
    # Not longer than a worker may take to stop, and shorter than the client's time-out.
    wait = max(0, min(3, int(read_timeout) - 1))
    return SqsEventQueue(lambda: open_sqs_client(clients, target, url), url, wait, visibility_timeout)


def open_sqs_client(clients: EcsClients, target: Target, url: str) -> Any:
    """Return a boto3 client for the queue at this URL, which names the endpoint and, on AWS, the Region."""
    parts = urlsplit(url)
    region = _REGION.search(parts.hostname or "")
    return clients.client_for_service(target, "sqs", f"{parts.scheme}://{parts.netloc}", region[1] if region else None)
