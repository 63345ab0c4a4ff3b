"""What is said about errors of the broker's server."""

from __future__ import annotations

import socket
import struct
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module

import kombu
import pytest
import redis.exceptions

from ecs_queue.broker.failures import wrap_error, wrap_errors
from ecs_queue.errors import BrokerUnavailable

_AMQP_HEADER = b"AMQP\x00\x00\x09\x01"
_RESP2 = "the server, or a proxy before it, has RESP2 only: put the option protocol=2 behind broker_url"


@pytest.mark.parametrize(
    "error",
    [
        redis.exceptions.ReadOnlyError("You can't write against a read only replica."),
        redis.exceptions.ResponseError(
            "UNBLOCKED force unblock from blocking operation, instance state changed (master -> replica?)"
        ),
    ],
)
def test_a_server_that_became_a_replica_is_named_whichever_command_meets_it(error: Exception) -> None:
    assert "broker_url leads to a replica" in str(wrap_error(error))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "HELLO must be called with the client already authenticated, otherwise the HELLO AUTH <user> <pass> ...",
            "the server requires a log-in; give broker_url the password",
        ),
        ("Authentication required.", "the server requires a log-in; give broker_url the password"),
        (
            "invalid username-password pair or user is disabled.",
            "invalid username-password pair or user is disabled; correct the user and the password of broker_url",
        ),
        (
            "unknown command 'HELLO', with args beginning with: ***",
            f"unknown command 'HELLO', with args beginning with: ***; {_RESP2}",
        ),
        ("unsupported command 'HELLO'", f"unsupported command 'HELLO'; {_RESP2}"),
        ("Connection closed by server.", "Connection closed by server; check broker_url and the server"),
    ],
)
def test_a_refused_log_in_says_what_to_correct(text: str, expected: str) -> None:
    assert str(wrap_error(redis.exceptions.ConnectionError(text))).startswith(f"the broker failed: {expected}")


def test_an_error_of_a_socket_names_the_server() -> None:
    with (
        kombu.Connection("amqp://jobs:hunter2@127.0.0.1:1//") as connection,
        pytest.raises(
            BrokerUnavailable, match=r"^the broker failed: 127\.0\.0\.1:1: \[Errno 111\] Connection refused; "
        ),
        wrap_errors(connection),
    ):
        connection.ensure_connection(max_retries=0)


@pytest.mark.parametrize("answer", [b"", b"\x15\x03\x01\x00\x02\x02\x46"], ids=["a reset", "an alert of TLS"])
def test_no_tls_where_an_amqp_server_has_it_says_what_to_write(answer: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, ThreadPoolExecutor(1) as thread:

        def end_connection() -> None:
            connection, _ = server.accept()
            connection.recv(len(_AMQP_HEADER), socket.MSG_WAITALL)
            connection.sendall(answer)
            if not answer:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            connection.close()

        thread.submit(end_connection)
        with (
            kombu.Connection(f"amqp://127.0.0.1:{server.getsockname()[1]}//") as connection,
            pytest.raises(BrokerUnavailable, match="TLS at this port, begin broker_url with amqps://"),
            wrap_errors(connection),
        ):
            connection.ensure_connection(max_retries=0)


def test_an_amqp_connection_that_is_lost_later_is_no_question_of_tls() -> None:
    error = ConnectionResetError(104, "Connection reset by peer")
    assert "TLS" not in str(wrap_error(error, "h:5672", is_clear_amqp=True))


def test_a_consumption_that_rabbitmq_has_ended_is_named() -> None:
    error = import_module("amqp").ConsumerCancelled("1", (60, 30))
    assert "a queue, which was deleted or has lost its node" in str(wrap_error(error))
