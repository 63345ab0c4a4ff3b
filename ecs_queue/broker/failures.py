"""The errors of the client libraries, as errors of the package."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from kombu.exceptions import KombuError, OperationalError

from ecs_queue.error_text import error_text
from ecs_queue.errors import BrokerUnavailable, MissingRight, UnusableServer
from ecs_queue.server_rights import describe_failure, find_missing_right

#: What a broken connection raises, once it is wrapped.
CONNECTION_ERRORS = (BrokerUnavailable, MissingRight)

#: Reply codes of AMQP 0.9.1.
_ACCESS_REFUSED, _NOT_FOUND, _PRECONDITION_FAILED = 403, 404, 406
#: How a server with TLS ends a connection that begins without it: at once, or after an alert that py-amqp takes for the
#: begin of a frame.
_NO_HANDSHAKE = ("Connection reset by peer", "Server unexpectedly closed connection")


def wrap_error(
    error: BaseException, address: str = "", *, is_clear_amqp: bool = False
) -> BrokerUnavailable | MissingRight:
    """Return the error to raise, without the URL and with what to do.

    Args:
        error: What the client library raised.
        address: Host and port of the server; "" where the library names them.
        is_clear_amqp: Whether the connection is one of AMQP without TLS.
    """
    missing_right = find_missing_right(error, "broker", "the broker, {NAMESPACE}:q:*")
    if missing_right is not None:
        return missing_right
    message = error_text(error).removesuffix(".")
    hint = ""
    if "maxmemory" in message:
        hint = "the server is full: give it more memory (maxmemory)"
    elif "read only replica" in message or "master -> replica" in message:  # the latter ends a wait for messages
        hint = "broker_url leads to a replica: after a fail-over it must lead to the new primary"
    elif message.startswith("Basic.cancel"):  # all that py-amqp has of it is this and a number
        return BrokerUnavailable(
            "the broker failed: RabbitMQ has ended the consumption of a queue, which was deleted or has lost its node; "
            "the worker declares it again"
        )
    elif is_clear_amqp and isinstance(error, OperationalError) and message.endswith(_NO_HANDSHAKE):
        hint = "if the server has TLS at this port, begin broker_url with amqps://"
    elif _reply_code(error) == _ACCESS_REFUSED and "Login was refused" in message:
        hint = "correct the user and the password of broker_url"
    elif _reply_code(error) == _ACCESS_REFUSED:
        return MissingRight(
            f"the broker's server denies {message}; grant its user the rights to configure, write and read what begins "
            "with NAMESPACE. (rabbitmqctl set_permissions)"
        )
    described = f"{message}; {hint}" if hint else describe_failure(message, "broker_url")
    is_of_a_socket = isinstance(error, OSError) or isinstance(error.__cause__, OSError)  # kombu wraps some
    where = f"{address}: " if address and is_of_a_socket else ""
    return BrokerUnavailable(f"the broker failed: {where}{described}")


@contextmanager
def wrap_errors(connection: Any) -> Iterator[None]:
    """Raise the errors of kombu and the client library as BrokerUnavailable, without the URL."""
    try:
        yield
    except (KombuError, OSError, *connection.connection_errors, *connection.channel_errors) as error:
        is_clear_amqp = connection.transport.driver_type == "amqp" and not connection.ssl
        raise wrap_error(error, _address(connection), is_clear_amqp=is_clear_amqp) from error


@contextmanager
def wrap_declaration_errors(connection: Any, name: str) -> Iterator[None]:
    """Raise UnusableServer when the queue that is declared exists with other properties."""
    try:
        yield
    except tuple(connection.channel_errors) as error:
        if _reply_code(error) != _PRECONDITION_FAILED:
            raise
        raise UnusableServer(
            f"the broker's queue {name} exists and is not as ecs-queue declares it: {error_text(error)}; delete it "
            f"when it is empty (rabbitmqctl delete_queue {name}), or choose another namespace"
        ) from error


@contextmanager
def unusable_is_unavailable() -> Iterator[None]:
    """Raise BrokerUnavailable for UnusableServer: in a running process it is an outage until it is corrected."""
    try:
        yield
    except UnusableServer as error:
        raise BrokerUnavailable(str(error)) from error


def is_not_found(error: BaseException) -> bool:
    """Return whether a server of AMQP says that a queue does not exist."""
    return _reply_code(error) == _NOT_FOUND


def _address(connection: Any) -> str:
    """Return `HOST:PORT` of kombu's connection, which no error of a socket names."""
    host, port = connection.hostname, connection.port
    return f"{host}:{port}" if host and port else ""


def _reply_code(error: BaseException) -> int:
    code = getattr(error, "code", 0)
    return code if isinstance(code, int) else 0
