"""Sends ECS Task State Change events to an SQS queue, in the form and with the faults of EventBridge."""

from __future__ import annotations

import contextlib
import datetime
import heapq
import itertools
import os
import random
import threading
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import boto3
import msgspec
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from ecs_queue.local.ecs.options import EventFaultOptions

#: Maximum number of messages in one call of SQS.
_MAX_BATCH = 10
#: Maximum number of events that wait for an unreachable queue; the oldest are dropped, as EventBridge does.
_MAX_QUEUED = 100_000
_RETRY_SECONDS = 1.0
#: How long pending events are sent after the server stops. Seconds.
_SHUTDOWN_SECONDS = 2.0
#: Maximum delay of an event that later events overtake. Seconds.
_REORDER_DELAY_SECONDS = 1.0


class EventSender:
    """Sends events on a separate thread, so that no ECS call waits for it. `clock` returns seconds since the epoch."""

    def __init__(
        self, queue_url: str, region: str, account: str, faults: EventFaultOptions, clock: Callable[[], float]
    ) -> None:
        self._queue_url = queue_url
        self._region = region
        self._account = account
        self._faults = faults
        self._clock = clock
        self._random = random.Random(faults.seed)
        self._order = itertools.count()
        self._queue: list[tuple[float, int, str]] = []  # send time (monotonic), order, message
        self._changed = threading.Condition()
        self._deadline: float | None = None
        self._thread = threading.Thread(target=self._run, name="local-ecs-events", daemon=True)
        self.sent_count = 0

    def start(self) -> None:
        """Start the sending thread."""
        self._thread.start()

    def stop(self) -> None:
        """Send the events that are due, for a limited time, and end the thread."""
        with self._changed:
            self._deadline = time.monotonic() + _SHUTDOWN_SECONDS
            self._changed.notify_all()
        self._thread.join()

    def send(self, description: bytes) -> None:
        """Send the event of a changed task. Does not block.

        Args:
            description: the task, as DescribeTasks returns it.
        """
        faults, rng = self._faults, self._random
        if rng.random() < faults.drop:
            return
        message = build_event(description, self._region, self._account, self._clock())
        for _ in range(2 if rng.random() < faults.duplicate else 1):
            delay = 0.0
            if rng.random() < faults.delay:
                delay = rng.uniform(0.0, faults.delay_seconds)
            elif rng.random() < faults.reorder:
                delay = rng.uniform(0.0, _REORDER_DELAY_SECONDS)
            self._enqueue(time.monotonic() + delay, message)

    def _enqueue(self, at: float, message: str) -> None:
        with self._changed:
            if len(self._queue) >= _MAX_QUEUED:
                heapq.heappop(self._queue)
            heapq.heappush(self._queue, (at, next(self._order), message))
            self._changed.notify()

    def _run(self) -> None:
        with contextlib.closing(_client(self._queue_url, self._region)) as sqs:
            while batch := self._next_batch():
                try:
                    entries = [{"Id": str(number), "MessageBody": body} for number, (*_, body) in enumerate(batch)]
                    result = sqs.send_message_batch(QueueUrl=self._queue_url, Entries=entries)
                    failed = [batch[int(failure["Id"])] for failure in result.get("Failed") or ()]
                except (BotoCoreError, ClientError):
                    failed = batch
                self.sent_count += len(batch) - len(failed)
                for _, _, body in failed:
                    self._enqueue(time.monotonic() + _RETRY_SECONDS, body)

    def _next_batch(self) -> list[tuple[float, int, str]]:
        """Wait for due events and return them; [] at the end."""
        with self._changed:
            while True:
                now = time.monotonic()
                batch: list[tuple[float, int, str]] = []
                while self._queue and self._queue[0][0] <= now and len(batch) < _MAX_BATCH:
                    batch.append(heapq.heappop(self._queue))
                if batch and (self._deadline is None or now < self._deadline):
                    return batch
                if self._deadline is not None:
                    return []
                self._changed.wait(self._queue[0][0] - now if self._queue else None)


def build_event(description: bytes, region: str, account: str, now: float) -> str:
    """Return the message for a task's description: EventBridge's envelope, with times in its format."""
    detail: dict[str, Any] = msgspec.json.decode(description)
    for name, value in detail.items():
        if name.endswith("At") and isinstance(value, int | float):
            detail[name] = _iso_time(value, "milliseconds")
    detail["updatedAt"] = _iso_time(now, "milliseconds")
    envelope = {
        "version": "0",
        "id": _event_id(detail),
        "detail-type": "ECS Task State Change",
        "source": "aws.ecs",
        "account": account,
        "time": _iso_time(now, "seconds"),
        "region": region,
        "resources": [detail["taskArn"]],
        "detail": detail,
    }
    return msgspec.json.encode(envelope).decode()


def _event_id(detail: dict[str, Any]) -> str:
    """An id that depends on the task and its version: a duplicate has the same id."""
    digits = f"{detail['taskArn'].rpartition('/')[2][:24]:0>24}{detail['version']:08x}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def _iso_time(moment: float, precision: str) -> str:
    at = datetime.datetime.fromtimestamp(moment, datetime.UTC)
    return at.isoformat(timespec=precision).replace("+00:00", "Z")


def _client(queue_url: str, region: str) -> Any:
    """A client of the queue URL's own endpoint; without credentials in the environment it gets placeholders."""
    parts = urlsplit(queue_url)
    credentials = {}
    if not os.environ.get("AWS_ACCESS_KEY_ID"):
        credentials = dict.fromkeys(("aws_access_key_id", "aws_secret_access_key"), "local")
    config = Config(retries={"total_max_attempts": 1, "mode": "standard"}, connect_timeout=2, read_timeout=5)
    endpoint = f"{parts.scheme}://{parts.netloc}"
    return boto3.Session().client("sqs", region_name=region, endpoint_url=endpoint, config=config, **credentials)
