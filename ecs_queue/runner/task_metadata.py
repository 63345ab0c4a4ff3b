"""Reads the ARN of this container's task from ECS's metadata endpoint, version 4."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable
from urllib.parse import urlsplit

from ecs_queue.errors import ConfigError, RetryableError

VARIABLE = "ECS_CONTAINER_METADATA_URI_V4"
_READ_SECONDS = 5.0
_MAX_BYTES = 1 << 20


def read_task_arn(url: str, seconds: float, sleep: Callable[[float], None] = time.sleep) -> str:
    """Return the ARN; a new task may have to try for a while.

    Args:
        url: The value of ECS_CONTAINER_METADATA_URI_V4.
        seconds: For how long to try.
        sleep: Waits.

    Raises:
        ConfigError: There is no such endpoint here.
        RetryableError: It did not answer in time.
    """
    if not url:
        raise ConfigError(f"{VARIABLE} is not set: a runner needs Fargate 1.4.0 or the ECS agent 1.39.0, or later")
    deadline = time.monotonic() + seconds
    pause = 0.05
    while True:
        try:
            return str(json.loads(_get(f"{url}/task"))["TaskARN"])
        except (OSError, ValueError, LookupError, TypeError) as error:
            if time.monotonic() + pause > deadline:
                kind = type(error).__name__
                raise RetryableError(f"the task's metadata at {VARIABLE} cannot be read ({kind})") from None
        sleep(pause)
        pause = min(2.0, pause * 2)


def _get(url: str) -> bytes:
    """The body of a page. As HTTP/1.0, whose answer ends with its connection and is not chunked."""
    parts = urlsplit(url)
    with socket.create_connection((parts.hostname or "", parts.port or 80), _READ_SECONDS) as connection:
        request = f"GET {parts.path} HTTP/1.0\r\nHost: {parts.netloc}\r\nAccept: application/json\r\n\r\n"
        connection.sendall(request.encode())
        received = b""
        while (chunk := connection.recv(65536)) and len(received) < _MAX_BYTES:
            received += chunk
    head, _, body = received.partition(b"\r\n\r\n")
    if head.split(b" ", 2)[1:2] != [b"200"]:
        raise ValueError("no page")
    return body
