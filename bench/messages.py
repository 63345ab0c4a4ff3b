"""Receiving and acknowledging a backlog of request messages, with our broker and with kombu's own consumer."""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median
from typing import Any

import kombu
import psutil

from bench.measurement import Measurement, median_and_range
from ecs_queue.broker import Delivery, RequestMessage, open_broker
from ecs_queue.config import Config, load_config
from ecs_queue.local.redis_server import RedisServer
from ecs_queue.server_keys import queue_prefix

#: As many as a worker with 32 threads has room for.
_LIMIT, _PREFETCH = 32, 64
_ROUNDS = 3
_BODY = b'{"command": ["python", "etl.py"], "note": "%s"}' % (b"x" * 900)


def run(messages: int) -> list[Measurement]:
    """Return messages per second, and the server's processor time for each: publish, receive, acknowledge."""
    with RedisServer() as server:
        config = load_config(environ={"AIRFLOW__ECS_QUEUE__BROKER_URL": server.url})
        process = psutil.Process(server.pid)
        ours: list[tuple[float, float]] = []
        kombus: list[tuple[float, float]] = []
        for _ in range(_ROUNDS):
            ours.append(_measure(config, process, messages, _receive_with_ours))
            kombus.append(_measure(config, process, messages, _receive_with_kombu))
    our_rates, kombu_rates = [rate for rate, _ in ours], [rate for rate, _ in kombus]
    server_times = [seconds * 1e6 for _, seconds in ours]
    return [
        Measurement("receive and acknowledge a backlog, messages/s", median_and_range(our_rates, 0)),
        Measurement("  the server's CPU time for each, us", median_and_range(server_times, 0)),
        Measurement("  kombu's own consumer, messages/s", median_and_range(kombu_rates, 0)),
        Measurement("  ours / kombu's", "", "", median(our_rates) / median(kombu_rates)),
    ]


def _measure(
    config: Config, server: psutil.Process, messages: int, receive: Callable[[Config, int], None]
) -> tuple[float, float]:
    broker = open_broker(config)
    broker.publish_requests([RequestMessage("default", _BODY)] * messages)
    broker.close()
    times_before, start = server.cpu_times(), time.perf_counter()
    receive(config, messages)
    seconds, times = time.perf_counter() - start, server.cpu_times()
    used = times.user + times.system - times_before.user - times_before.system
    return messages / seconds, used / messages


def _receive_with_ours(config: Config, messages: int) -> None:
    broker = open_broker(config)
    received: list[Delivery] = []
    done = 0
    consumer = broker.consume_requests(["default"], _PREFETCH, received.append, print)
    while done < messages:
        consumer.drain(1.0, {"default": _LIMIT})
        done += len(received)
        for delivery in received:
            delivery.ack()
        received.clear()
    consumer.drain(0.0, {"default": _LIMIT})
    consumer.close()
    broker.close()


def _receive_with_kombu(config: Config, messages: int) -> None:
    done = 0

    def acknowledge(message: Any) -> None:
        nonlocal done
        message.ack()
        done += 1

    options = {"global_keyprefix": queue_prefix(config.namespace), "priority_steps": list(range(10))}
    queue = kombu.Queue("requests.default", exchange="", routing_key="requests.default")
    with (
        kombu.Connection(config.broker_url, transport_options=options) as connection,
        kombu.Consumer(connection, [queue], on_message=acknowledge, prefetch_count=_PREFETCH),
    ):
        while done < messages:
            connection.drain_events(timeout=10)
