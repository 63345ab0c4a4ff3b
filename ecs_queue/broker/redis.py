"""The broker on Redis or Valkey: lists in kombu's format, moved by scripts of ours.

Any program that has kombu can publish requests and consume results. kombu itself is not used here: its consumer pops a
message before it notes that it did (docs/architecture.md, "Why the Redis broker is not kombu's").
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from itertools import islice
from typing import Any, TypeVar

from ecs_queue.broker import topology
from ecs_queue.broker.base import OnDelivery, OnUndecodable, RequestMessage
from ecs_queue.broker.element import UndecodableElement, decode_element, encode_elements, find_size_problem
from ecs_queue.broker.failures import CONNECTION_ERRORS
from ecs_queue.broker.redis_consumer import POLL_SECONDS, ConsumerLimits, RedisRequestConsumer, wrap_redis_errors
from ecs_queue.redis_connection import connect, run_pipeline
from ecs_queue.server_keys import namespace_prefix
from ecs_queue.server_url import SERVER_TICK_SECONDS, longest_wait
from ecs_queue.server_url.iam import IamLogin

T = TypeVar("T")

#: Maximum messages per round trip, and per command: longer commands take several times as long to build.
_MESSAGES_PER_ROUND_TRIP, _MESSAGES_PER_COMMAND = 500, 16
_CHECK_SCRIPT = "return #KEYS"
#: Maximum results per drain, so that it returns even when results keep coming.
_MAX_RESULTS_PER_DRAIN = 500

#: (the broker's name of a queue, priority in the order of Redis) -> bodies in order.
_BodiesByList = dict[tuple[str, int], list[bytes]]


class RedisBroker:
    """A `Broker`. It has one connection to publish; each consumer has its own."""

    def __init__(
        self,
        url: str,
        namespace: str,
        *,
        visibility_timeout: float,
        socket_timeout: float,
        max_message_bytes: int = topology.MAX_MESSAGE_BYTES,
        iam: IamLogin | None = None,
    ) -> None:
        """See `Config` for the numbers and the log-in.

        Raises:
            ConfigError: The URL cannot be used.
        """
        self._connect: Callable[[], Any] = lambda: connect(
            url,
            socket_timeout=socket_timeout,
            max_connections=1,
            key="broker_url",
            slot_key=namespace_prefix(namespace),
            iam=iam,
        )
        self._namespace = namespace
        self._keys = topology.QueueKeys(namespace)
        self._limits = ConsumerLimits(visibility_timeout, max_message_bytes, longest_wait(url, socket_timeout))
        self._lock = threading.Lock()
        self._client = self._connect()

    def __repr__(self) -> str:
        """Leave out the URL: it may hold a password."""
        return f"RedisBroker(namespace={self._namespace!r})"

    def publish_requests(self, messages: Sequence[RequestMessage]) -> None:
        """See `Broker.publish_requests`."""
        for batch in _batches(messages):
            lists = _BodiesByList()
            for message in batch:
                name = topology.request_queue_name(message.queue)
                lists.setdefault((name, topology.redis_priority(message.priority)), []).append(message.body)
            self._push(lists, {name for name, _ in lists})

    def publish_results(self, messages: Sequence[tuple[str, bytes]]) -> None:
        """See `Broker.publish_results`."""
        for batch in _batches(messages):
            lists = _BodiesByList()
            for owner, body in batch:
                lists.setdefault((topology.result_queue_name(owner), 0), []).append(body)
            self._push(lists, set(), topology.RESULT_QUEUE_EXPIRY_SECONDS)

    def consume_requests(
        self, queues: Sequence[str], prefetch: int, on_delivery: OnDelivery, on_undecodable: OnUndecodable
    ) -> RedisRequestConsumer:
        """See `Broker.consume_requests`."""
        client = self._connect()
        with wrap_redis_errors():
            client.ping()
        return RedisRequestConsumer(client, self._keys, queues, prefetch, self._limits, on_delivery, on_undecodable)

    def consume_results(self, owner: str) -> RedisResultConsumer:
        """See `Broker.consume_results`."""
        key = self._keys.list_key(topology.result_queue_name(owner))
        return RedisResultConsumer(self._connect(), key, self._limits)

    def delete_result_queue(self, owner: str) -> None:
        """See `Broker.delete_result_queue`."""
        with self._lock, wrap_redis_errors():
            self._client.delete(self._keys.list_key(topology.result_queue_name(owner)))

    def backlog(self, queue: str) -> int:
        """See `Broker.backlog`."""
        keys = self._keys.list_keys(topology.request_queue_name(queue))
        return sum(self._run([("LLEN", key) for key in keys]))

    def check(self, queues: Sequence[str] = (), *, may_create: bool = True) -> None:  # noqa: ARG002 - any is usable
        """See `Broker.check`. Also fails where messages could be published, and no script could take them."""
        with self._lock, wrap_redis_errors():
            self._client.ping()  # as health checks of a connection do
            self._client.register_script(_CHECK_SCRIPT)(keys=self._keys.check_keys)

    def close(self) -> None:
        """See `Broker.close`."""
        with self._lock:
            self._client.close()

    def _push(self, lists: _BodiesByList, queues_to_wake: set[str], expire_after: int = 0) -> None:
        """Publish; a list expires `expire_after` seconds after the last push, 0 means never."""
        commands: list[tuple[Any, ...]] = []
        for (name, priority), bodies in lists.items():
            key = self._keys.list_key(name, priority)
            elements = encode_elements(name, priority, bodies)
            while batch := list(islice(elements, _MESSAGES_PER_COMMAND)):
                commands.append(("LPUSH", key, *batch))
            if expire_after:
                commands.append(("PEXPIRE", key, 1000 * expire_after))
        # After the messages, which a consumer that is woken must find.
        commands += [("ZADD", self._keys.wake_key(name), 0, "1") for name in queues_to_wake]
        self._run(commands)

    def _run(self, commands: Sequence[Sequence[Any]]) -> list[Any]:
        """Return the replies to commands that may run twice."""
        with self._lock, wrap_redis_errors():
            replies = run_pipeline(self._client, commands)
            for reply in replies:
                if isinstance(reply, Exception):
                    raise reply
        return replies


class RedisResultConsumer:
    """See `ResultConsumer`. Results are hints: one that is lost between the server and here is found in the ledger."""

    def __init__(self, client: Any, key: str, limits: ConsumerLimits) -> None:
        self._client = client
        self._key = key
        self._limits = limits

    def drain(self, timeout: float) -> list[bytes]:
        """See `ResultConsumer.drain`. Returns at most some hundreds; drops elements that are not messages.

        A wait shorter than the server's tick would last as long as that: then this only looks.
        """
        deadline = time.monotonic() + timeout
        with wrap_redis_errors():
            bodies = self._decode(self._pop())
            while not bodies and (left := deadline - time.monotonic()) >= SERVER_TICK_SECONDS:
                bodies = self._decode(self._wait(left))
        return bodies

    def _wait(self, seconds: float) -> list[bytes]:
        """Wait up to `seconds` for an element; return all elements that are there then."""
        if not self._limits.max_block_seconds:
            time.sleep(min(seconds, POLL_SECONDS))
            return self._pop()
        found = self._client.brpop([self._key], min(seconds, self._limits.max_block_seconds))
        return [found[1], *self._pop()] if found else []

    def _pop(self) -> list[bytes]:
        return self._client.rpop(self._key, _MAX_RESULTS_PER_DRAIN - 1) or []

    def _decode(self, elements: Sequence[bytes]) -> list[bytes]:
        bodies = []
        for element in elements:
            with suppress(UndecodableElement):
                if not find_size_problem(len(element), self._limits.max_message_bytes):
                    bodies.append(decode_element(element).body)
        return bodies

    def close(self) -> None:
        """See `ResultConsumer.close`."""
        with suppress(*CONNECTION_ERRORS), wrap_redis_errors():
            self._client.close()


def _batches(messages: Sequence[T]) -> Iterator[Sequence[T]]:
    return (
        messages[start : start + _MESSAGES_PER_ROUND_TRIP]
        for start in range(0, len(messages), _MESSAGES_PER_ROUND_TRIP)
    )
