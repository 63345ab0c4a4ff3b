"""Receives and acknowledges a backlog with the `ecs_queue` of any revision that is importable, for `bench.revision`.

It is run as a file, so that it does not bring its own tree's package along. It prints one JSON object: messages per
second, and CPU seconds of this process for each message.
"""

from __future__ import annotations

import argparse
import json
import time
from typing import Any

from ecs_queue import broker as broker_package
from ecs_queue.broker import open_broker
from ecs_queue.config import load_config

#: As many as a worker with 32 threads has room for.
LIMIT, PREFETCH = 32, 64
BODY = b'{"command": ["python", "etl.py"], "note": "%s"}' % (b"x" * 900)


def main() -> None:
    """Publish, receive and acknowledge, on the server that the environment names."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--size", type=int, required=True)
    messages = parser.parse_args().size
    config = load_config()
    broker: Any = open_broker(config)
    message: Any = getattr(broker_package, "RequestMessage", None) or getattr(broker_package, "Outgoing")  # noqa: B009
    broker.publish_requests([message("default", BODY)] * messages)
    cpu, start = time.process_time(), time.perf_counter()
    _receive(broker, messages)
    figures = {"rate": messages / (time.perf_counter() - start), "cpu": (time.process_time() - cpu) / messages}
    broker.close()
    print(json.dumps(figures), flush=True)


def _receive(broker: Any, messages: int) -> None:
    received: list[Any] = []
    consume = getattr(broker, "consume_requests", None) or broker.consume
    consumer = consume(["default"], PREFETCH, received.append, print)
    done = 0
    while done < messages:
        consumer.drain(1.0, {"default": LIMIT})
        done += len(received)
        for delivery in received:
            delivery.ack()
        received.clear()
    consumer.drain(0.0, {"default": LIMIT})
    consumer.close()


if __name__ == "__main__":
    main()
