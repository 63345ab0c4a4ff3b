"""Messages as any program may put them on the broker's list."""

from __future__ import annotations

import base64
import json
import uuid
from typing import Any

import redis

from ecs_queue.server_keys import queue_prefix


def encode_kombu_message(body: bytes, **properties: Any) -> bytes:
    """Return a message in kombu's format."""
    known = {
        "delivery_tag": str(uuid.uuid4()),
        "body_encoding": "base64",
        "delivery_mode": 2,
        "priority": 9,
        "delivery_info": {"exchange": "", "routing_key": "requests.default"},
    }
    return json.dumps(
        {
            "body": base64.b64encode(body).decode(),
            "content-type": "application/json",
            "content-encoding": "utf-8",
            "headers": {},
            "properties": known | properties,
        }
    ).encode()


def push_messages(client: redis.Redis, *messages: bytes, queue: str = "default", namespace: str = "ecs-queue") -> None:
    """Put messages on the list as docs/messages.md describes it."""
    client.lpush(f"{queue_prefix(namespace)}requests.{queue}", *messages)
