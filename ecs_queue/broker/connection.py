"""Helpers of every kombu connection: wrapped errors, a close that never raises, elements that are not messages.

kombu's Redis transport pops an element off its list before it decodes it. An element that cannot be decoded would be
lost unless its raw bytes were kept here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

import kombu
from kombu.exceptions import KombuError
from kombu.transport import virtual
from kombu.utils.json import loads
from kombu.utils.scheduling import round_robin_cycle

from ecs_queue.broker.base import OnUndecodable
from ecs_queue.crash_points import crash_point
from ecs_queue.errors import BrokerUnavailable, ConfigError

#: Gets the transport's name of the queue and the message as decoded from kombu's JSON.
OnLostMessage = Callable[[str, Mapping[str, Any]], None]


@contextmanager
def wrap_url_errors() -> Iterator[None]:
    """Raise what the client library says of the options of a URL, when it connects, as ConfigError without the URL."""
    try:
        yield
    except (TypeError, ValueError, AttributeError, KeyError) as error:
        found = re.search(r"unexpected keyword argument '(\w+)'", str(error))
        option = f"the option {found[1]!r}" if found else "an option"
        raise ConfigError(
            f"broker_url: {option} after the ? cannot be used ({type(error).__name__}); leave it out, ecs-queue sets "
            "time limits and health checks itself"
        ) from None


def connect(connection: Any) -> None:
    """Connect with one attempt; kombu's default sleeps for seconds between several.

    Raises:
        ConfigError: An option of the URL cannot be used.
    """
    with wrap_url_errors():
        connection.ensure_connection(max_retries=0)


def make_queue(name: str, expires: int | None = None) -> Any:
    """Return a queue on the default exchange, which needs no binding; it expires after `expires` unused seconds."""
    return kombu.Queue(name, exchange="", routing_key=name, durable=True, expires=expires)


def message_body(message: Any) -> bytes:
    """Return the body of a kombu message; TypeError or ValueError when it cannot be an envelope."""
    body = message.body
    if isinstance(body, str):
        return body.encode()
    if isinstance(body, bytes | bytearray | memoryview):
        return bytes(body)
    raise TypeError(f"the body is a {type(body).__name__}, not a string")


@contextmanager
def wrap_errors(connection: Any) -> Iterator[None]:
    """Raise the errors of kombu and the client library as BrokerUnavailable, without the URL."""
    try:
        yield
    except (KombuError, OSError, *connection.connection_errors, *connection.channel_errors) as error:
        message = str(error) or type(error).__name__
        hint = "check broker_url and the server"
        if "maxmemory" in message:
            hint = "the server is full: give it more memory (maxmemory)"
        elif "read only replica" in message:
            hint = "broker_url leads to a replica: after a fail-over it must lead to the new primary"
        raise BrokerUnavailable(f"the broker failed: {message}; {hint}") from error


def close_connection(connection: Any) -> None:
    """Close without raising: the connection may be broken, and its unacknowledged messages are delivered again."""
    with suppress(Exception):
        channels = [*connection.transport.channels, *connection.transport._avail_channels]
        with suppress(Exception):
            connection.release()
        for channel in channels:
            # A second time: an error in the first half of a close skips the second half. kombu would keep the channel
            # with its unacknowledged messages until the process ends, and then try to requeue them again.
            close_channel(channel)


def close_channel(channel: Any) -> None:
    """Close without raising, and leave no socket open.

    kombu closes a channel's connections before it requeues its messages, for which the client makes a new connection
    that kombu does not close.
    """
    with suppress(Exception):
        channel.close()
    if hasattr(channel, "_create_client"):
        with suppress(Exception):  # a channel that requeued nothing has no client
            channel._create_client().connection_pool.disconnect()


class SuspendableRoundRobin(round_robin_cycle):  # type: ignore[misc]
    """kombu's round robin over the queues, without the suspended ones.

    Cancelling a consumer instead would move a message in transit to the end of its queue.
    """

    def __init__(self, it: list[str] | None = None) -> None:
        super().__init__(it)
        self.suspended: set[str] = set()

    def consume(self, n: int) -> list[str]:
        """Return the queues of the next poll."""
        return [queue for queue in self.items[:n] if queue not in self.suspended]


def requeue_at_front(message: Any) -> None:
    """Return a message to the head of its queue; to the end if the transport cannot do that."""
    qos = message.channel.qos
    if message.acknowledged or not hasattr(qos, "restore_by_tag"):
        message.requeue()
        return
    qos.restore_by_tag(message.delivery_tag, leftmost=False)
    virtual.QoS.ack(qos, message.delivery_tag)
    message._state = "REQUEUED"


class Receiver:
    """Drains one connection with one channel.

    It sets the exchange of messages from other publishers, so that kombu can requeue them: kombu requeues a message
    by its exchange and drops it when it does not know the exchange.
    """

    def __init__(self, connection: Any, channel: Any, on_undecodable: OnUndecodable, on_lost: OnLostMessage) -> None:
        """Hook into the connection.

        Args:
            connection, channel: kombu's.
            on_undecodable: gets elements that are not messages.
            on_lost: gets a message that only this process has: it was popped off its list, and the server, full or
                unreachable, did not store it among the unacknowledged ones.
        """
        self._connection = connection
        self._on_lost = on_lost
        self._on_undecodable = on_undecodable
        self._codecs: Mapping[str, Any] = channel.codecs
        self._separator = str(getattr(channel, "sep", ""))
        self._popped: list[tuple[str, bytes]] = []  # the popped element that is not decoded yet
        self._deliver = connection.transport._deliver
        connection.transport._deliver = self._deliver_checked
        if connection.transport.driver_type == "redis":
            self._parse = channel.client.parse_response
            channel.client.parse_response = self._parse_and_remember

    def drain(self, timeout: float) -> bool:
        """Receive one element within `timeout` seconds. Return whether there was one."""
        self._popped.clear()
        try:
            self._connection.drain_events(timeout=timeout)
        except TimeoutError:
            return False
        except Exception as error:  # kombu's JSON hooks may raise any error
            if not self._popped:
                raise
            name, raw = self._popped.pop()
            self._on_undecodable(name, raw, f"not JSON that kombu can read: {_describe_error(error)}")
        return True

    def deliver_element(self, name: str, raw: bytes) -> None:
        """Deliver an element that was popped already."""
        self._popped = [(name, raw)]
        try:
            message = loads(raw.decode())
        except Exception as error:  # noqa: BLE001 - kombu's JSON hooks may raise any error
            self._on_undecodable(name, raw, f"not JSON that kombu can read: {_describe_error(error)}")
        else:
            self._deliver_checked(message, name)

    def _parse_and_remember(self, connection: Any, command: str, **options: Any) -> Any:
        found = self._parse(connection, command, **options)
        if command == "BRPOP" and found:
            crash_point("broker.popped")
            key, element = found
            name = key.decode(errors="replace") if isinstance(key, bytes) else str(key)
            self._popped.append((name.rsplit(self._separator, 1)[0], _to_bytes(element)))
        return found

    def _deliver_checked(self, message: Any, name: str) -> None:
        raw = self._popped.pop()[1] if self._popped else None
        reason = _format_error(message, self._codecs)
        if not reason:
            message["properties"]["delivery_info"] = {"exchange": "", "routing_key": name}
            try:
                self._deliver(message, name)
            except UndecodableElement as error:
                reason = str(error)
            except Exception:
                self._on_lost(name, message)
                raise
        if reason:
            element = json.dumps(message).encode() if raw is None else raw
            self._on_undecodable(name, element, f"not a message in kombu's format: {reason}")


class UndecodableElement(Exception):  # noqa: N818 - never leaves this package
    """Raised by a consumer's callback for an element that is not a message."""


def _format_error(message: Any, codecs: Mapping[str, Any]) -> str:
    """Why kombu cannot use this JSON as a message; "" when it can."""
    if not isinstance(message, dict):
        return f"it is a {type(message).__name__}"
    properties = message.get("properties")
    if not isinstance(properties, dict):
        return "it has no properties"
    if not isinstance(properties.get("delivery_tag"), str):
        return "it has no delivery_tag"
    if not isinstance(message.get("headers") or {}, dict):
        return "its headers are not an object"
    body, encoding = message.get("body"), properties.get("body_encoding")
    if not isinstance(body, str):
        return "its body is not a string"
    return _body_error(body, encoding, codecs)


def _body_error(body: str, encoding: Any, codecs: Mapping[str, Any]) -> str:
    if encoding in (None, "", "utf-8"):
        return ""
    codec = codecs.get(encoding) if isinstance(encoding, str) else None
    if codec is None:
        return "its body_encoding is unknown"
    try:
        codec.decode(body)
    except ValueError as error:
        return f"its body is not {encoding}: {_describe_error(error)}"
    return ""


def _to_bytes(element: Any) -> bytes:
    return element if isinstance(element, bytes) else str(element).encode(errors="surrogateescape")


def _describe_error(error: Exception) -> str:
    """Leave out the message of errors that quote their input, which may hold secrets."""
    return error.msg if isinstance(error, json.JSONDecodeError) else type(error).__name__
