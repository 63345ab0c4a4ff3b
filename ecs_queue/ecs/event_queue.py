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

#: The most messages of one receipt or deletion (SQS's limit).
MAX_BATCH_SIZE = 10
#: How long a received message is hidden from other readers. Seconds.
VISIBILITY_TIMEOUT = 30
_REGION = re.compile(r"(?:^|\.)(?:sqs\.)?([a-z]{2}(?:-[a-z]+)+-\d)(?:\.|$)")


class EventMessage(NamedTuple):
    """`body` as it came; `handle` deletes it."""

    body: str
    receipt_handle: str


class EventQueue(Protocol):
    """Where events come from. At least once, in any order."""

    def receive(self) -> list[EventMessage]:
        """Up to ten, waiting a while for the first; they come again unless they are deleted. EventsUnavailable."""
        ...

    def delete(self, messages: Sequence[EventMessage]) -> int:
        """Up to ten; how many are left, to come again. EventsUnavailable."""
        ...


class SqsEventQueue:
    """`EventQueue`. Thread-safe.

    `open_client`: a boto3 SQS client; called again after an error, so that renewed credentials are found.
    `wait`, `visibility`: whole seconds for which a receipt waits, and hides what it brought from other readers.
    """

    def __init__(self, open_client: Callable[[], Any], url: str, wait_seconds: int, visibility_timeout: int) -> None:
        self._open_client = open_client
        self._url = url
        self._wait_seconds = wait_seconds
        self._visibility_timeout = visibility_timeout
        self._lock = threading.Lock()
        self._client: Any = None

    def receive(self) -> list[EventMessage]:
        """See `EventQueue`. A long poll: an empty answer is SQS's word that there is none."""
        answer = self._call(
            "receive_message",
            MaxNumberOfMessages=MAX_BATCH_SIZE,
            WaitTimeSeconds=self._wait_seconds,
            VisibilityTimeout=self._visibility_timeout,
        )
        return [EventMessage(message["Body"], message["ReceiptHandle"]) for message in answer.get("Messages") or ()]

    def delete(self, messages: Sequence[EventMessage]) -> int:
        """See `EventQueue`."""
        entries = [{"Id": str(number), "ReceiptHandle": one.receipt_handle} for number, one in enumerate(messages)]
        answer = self._call("delete_message_batch", Entries=entries)
        return len(answer.get("Failed") or ())

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
    """The queue at this URL, with the credentials of a queue's profile."""
    # Not longer than a worker that stops may take, and answered before the client gives up.
    wait = max(0, min(3, int(read_timeout) - 1))
    return SqsEventQueue(lambda: open_sqs_client(clients, target, url), url, wait, visibility_timeout)


def open_sqs_client(clients: EcsClients, target: Target, url: str) -> Any:
    """A boto3 client for the queue at this URL, which names endpoint and, on AWS, Region."""
    parts = urlsplit(url)
    region = _REGION.search(parts.hostname or "")
    return clients.client_for_service(target, "sqs", f"{parts.scheme}://{parts.netloc}", region[1] if region else None)
