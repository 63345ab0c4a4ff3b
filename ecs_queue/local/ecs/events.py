"""ECS Task State Change events, as EventBridge would put them into an SQS queue: in its form, and with its habits."""

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

#: SQS takes so many messages at once.
_MAX_BATCH = 10
#: Events that wait for a queue that cannot be reached; the oldest beyond are lost, as EventBridge loses them at last.
_MAX_QUEUED = 100_000
_RETRY_SECONDS = 1.0
#: What still waits when the server stops is sent for so long.
_SHUTDOWN_SECONDS = 2.0
#: How long an event is held back that others are to overtake. Seconds.
_REORDER_DELAY_SECONDS = 1.0


class EventSender:
    """Sends from a thread of its own: no call of ECS waits for it. `clock`: seconds since 1970."""

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
        self._queue: list[tuple[float, int, str]] = []  # when to send (monotonic), order, message
        self._changed = threading.Condition()
        self._deadline: float | None = None
        self._thread = threading.Thread(target=self._run, name="local-ecs-events", daemon=True)
        self.sent_count = 0

    def start(self) -> None:
        """Start sending."""
        self._thread.start()

    def stop(self) -> None:
        """Send what waits and is due, for a moment, and end."""
        with self._changed:
            self._deadline = time.monotonic() + _SHUTDOWN_SECONDS
            self._changed.notify_all()
        self._thread.join()

    def send(self, description: bytes) -> None:
        """A task has changed: its description, as DescribeTasks answers it. Does not block."""
        faults, rng = self._faults, self._random
        if rng.random() < faults.drop:
            return
        message = build_event(description, self._region, self._account, self._clock())
        for _ in range(2 if rng.random() < faults.duplicate else 1):
            held = 0.0
            if rng.random() < faults.delay:
                held = rng.uniform(0.0, faults.delay_seconds)
            elif rng.random() < faults.reorder:
                held = rng.uniform(0.0, _REORDER_DELAY_SECONDS)
            self._enqueue(time.monotonic() + held, message)

    def _enqueue(self, at: float, message: str) -> None:
        with self._changed:
            if len(self._queue) >= _MAX_QUEUED:
                heapq.heappop(self._queue)
            heapq.heappush(self._queue, (at, next(self._order), message))
            self._changed.notify()

    def _run(self) -> None:
        sqs = _client(self._queue_url, self._region)
        with contextlib.closing(sqs):
            while batch := self._next_batch():
                try:
                    entries = [{"Id": str(number), "MessageBody": body} for number, (*_, body) in enumerate(batch)]
                    answer = sqs.send_message_batch(QueueUrl=self._queue_url, Entries=entries)
                    refused = [batch[int(failure["Id"])] for failure in answer.get("Failed") or ()]
                except (BotoCoreError, ClientError):
                    refused = batch
                self.sent_count += len(batch) - len(refused)
                for _, _, body in refused:
                    self._enqueue(time.monotonic() + _RETRY_SECONDS, body)

    def _next_batch(self) -> list[tuple[float, int, str]]:
        """What is due, when something is; nothing at the end."""
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
    """The message for a task's description: EventBridge's envelope around it, with times in its form."""
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
    """The same for the same version of a task: a doubled event is the very same event."""
    digits = f"{detail['taskArn'].rpartition('/')[2][:24]:0>24}{detail['version']:08x}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def _iso_time(moment: float, precision: str) -> str:
    at = datetime.datetime.fromtimestamp(moment, datetime.UTC)
    return at.isoformat(timespec=precision).replace("+00:00", "Z")


def _client(queue_url: str, region: str) -> Any:
    """The endpoint is the queue URL's own; without credentials some for a stand-in."""
    parts = urlsplit(queue_url)
    stand_in = {} if os.environ.get("AWS_ACCESS_KEY_ID") else {"aws_access_key_id": "local"}
    if stand_in:
        stand_in["aws_secret_access_key"] = "local"  # noqa: S105 - no secret
    config = Config(retries={"total_max_attempts": 1, "mode": "standard"}, connect_timeout=2, read_timeout=5)
    endpoint = f"{parts.scheme}://{parts.netloc}"
    return boto3.Session().client("sqs", region_name=region, endpoint_url=endpoint, config=config, **stand_in)
