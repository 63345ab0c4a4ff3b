"""The runner's connection: TLS, time limits, interruptions, and the way to the server that takes the writes."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from ecs_queue.errors import LedgerUnavailable
from ecs_queue.local.redis_server import RedisServer
from ecs_queue.runner.alarm import Alarm
from ecs_queue.runner.connection import Interrupted, ServerConnection
from ecs_queue.runs.redis_runner import ServerError
from ecs_queue.server_url import parse_server_url
from tests.system.secure_redis import run_secure_redis


@pytest.fixture
def connection(redis_url: str) -> Iterator[ServerConnection]:
    """A connection to an empty server."""
    made = ServerConnection(parse_server_url(redis_url))
    yield made
    made.close()


class _Scripted:
    """A server that answers each connection's first command with a text, and then nothing."""

    def __init__(self, *answers: bytes) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._answers = answers
        self.port = self._listener.getsockname()[1]
        self._open: list[socket.socket] = []
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        with suppress(OSError):  # a connection, or the server, was closed
            for answer in self._answers:
                client, _ = self._listener.accept()
                self._open.append(client)
                client.recv(65536)
                client.sendall(b"+OK\r\n" + answer)

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)  # `close` alone ends no `accept`, which would go on with a later file
        for each in self._open:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        self._thread.join(10)
        for each in (*self._open, self._listener):
            each.close()


def test_replies_come_in_order_with_errors_in_their_place(connection: ServerConnection) -> None:
    replies = connection.call([("SET", "a", 1), ("INCR", "a"), ("NONSENSE",), ("LRANGE", "b", 0, -1)], 5.0)
    assert replies[:2] == [b"OK", 2]
    assert isinstance(replies[2], ServerError)
    assert replies[3] == []
    assert connection.call([("GET", b"none")], 5.0) == [None]


def test_tls_with_a_client_certificate_and_a_user(tmp_path: Path) -> None:
    with run_secure_redis(tmp_path) as server:
        connection = ServerConnection(parse_server_url(server.url_for("worker")))
        assert connection.call([("PING",)], 10.0) == [b"PONG"]
        connection.close()
        for url in (server.url("ecs-queue-worker", "x", ca=False), server.url("ecs-queue-worker", "x")):
            with pytest.raises(LedgerUnavailable):
                ServerConnection(parse_server_url(url)).call([("PING",)], 10.0)


def test_an_alarm_ends_a_wait_and_the_next_call_connects_again(connection: ServerConnection) -> None:
    alarm = Alarm()
    started = time.monotonic()
    timer = threading.Timer(0.1, alarm.set)
    timer.start()
    with pytest.raises(Interrupted), connection.interruptible(alarm):
        connection.call([("BLPOP", "none", 60)], 65.0)
    assert time.monotonic() - started < 30.0
    assert connection.call([("PING",)], 5.0) == [b"PONG"], "not interruptible any more"


def test_an_alarm_ends_waits_also_after_a_connection_that_failed_while_it_was_opened() -> None:
    server = _Scripted(b"", b"+OK\r\n")  # to AUTH alone; to AUTH and CLIENT SETNAME
    alarm = Alarm()
    connection = ServerConnection(parse_server_url(f"redis://:password@127.0.0.1:{server.port}"))
    with connection.interruptible(alarm):
        with pytest.raises(LedgerUnavailable, match="TimeoutError"):
            connection.call([("PING",)], 0.1)
        alarm.set()
        with pytest.raises(Interrupted):
            connection.call([("PING",)], 30.0)
    server.close()


def test_a_server_that_answers_in_part_or_not_at_all_is_left_in_time() -> None:
    server = _Scripted(b"$5\r\nhel", b"")
    connection = ServerConnection(parse_server_url(f"redis://127.0.0.1:{server.port}"))
    for _ in range(2):
        with pytest.raises(LedgerUnavailable, match="TimeoutError"):
            connection.call([("GET", "a")], 0.1)
    server.close()
    with pytest.raises(LedgerUnavailable, match="ConnectionRefusedError"):
        connection.call([("GET", "a")], 5.0)


@pytest.mark.parametrize("scheme", ["redis", "redis+cluster"])
def test_the_node_of_a_cluster_that_has_the_keys_is_asked_instead(redis_server: RedisServer, scheme: str) -> None:
    server = _Scripted(f"-MOVED 866 127.0.0.1:{redis_server.port}\r\n".encode())
    connection = ServerConnection(parse_server_url(f"{scheme}://127.0.0.1:{server.port}"))
    assert connection.call([("ECHO", "a")], 5.0) == [b"a"]
    connection.close()
    server.close()


@pytest.mark.parametrize(
    "answer",
    [b"-READONLY You can't write against a read only replica.\r\n", b"-NOREPLICAS Not enough good replicas.\r\n"],
)
def test_a_server_that_takes_no_writes_is_left(redis_server: RedisServer, answer: bytes) -> None:
    server = _Scripted(answer)
    addresses = f"127.0.0.1:{server.port},127.0.0.1:{redis_server.port}"
    connection = ServerConnection(parse_server_url(f"redis+cluster://{addresses}"))
    connection.call([("GET", "a")], 5.0)
    server.close()
    with pytest.raises(LedgerUnavailable, match="ConnectionRefusedError"):
        connection.call([("PING",)], 5.0)
    assert connection.call([("PING",)], 5.0) == [b"PONG"]
    connection.close()


def _names(port: int) -> bytes:
    """Return a Sentinel's answer that names this port as the primary's."""
    return b"*2\r\n$9\r\n127.0.0.1\r\n$%d\r\n%d\r\n" % (len(str(port)), port)


def _connect_by_sentinels(*sentinels: _Scripted) -> ServerConnection:
    hosts = ",".join(f"127.0.0.1:{each.port}" for each in sentinels)
    return ServerConnection(parse_server_url(f"sentinel://{hosts}/0?service=s"))


def test_sentinels_are_asked_in_turn_for_the_primary(redis_server: RedisServer) -> None:
    ignorant, server = _Scripted(b"*-1\r\n"), _Scripted(_names(redis_server.port))
    connection = _connect_by_sentinels(ignorant, server)
    assert connection.call([("PING",)], 5.0) == [b"PONG"]
    for each in (connection, ignorant, server):
        each.close()


def test_sentinels_that_know_no_primary_are_an_outage() -> None:
    sentinels = [_Scripted(b"*-1\r\n") for _ in range(2)]
    connection = _connect_by_sentinels(*sentinels)
    with pytest.raises(LedgerUnavailable, match="knows no primary"):
        connection.call([("PING",)], 5.0)
    connection.close()
    for each in sentinels:
        each.close()


@pytest.mark.parametrize("position", [0, 1, 2])
def test_a_sentinel_that_names_a_former_primary_is_outvoted(redis_server: RedisServer, position: int) -> None:
    """The runs at the former one are others: the runner would take its own for closed."""
    with socket.create_server(("127.0.0.1", 0)) as former:
        answers = [_names(redis_server.port)] * 2
        answers.insert(position, _names(former.getsockname()[1]))
        sentinels = [_Scripted(*[answer] * 3) for answer in answers]
        connection = _connect_by_sentinels(*sentinels)
        for _ in range(3):
            assert connection.call([("PING",)], 5.0) == [b"PONG"]
            connection.close()
        for each in sentinels:
            each.close()


def test_silent_sentinels_leave_time_for_the_primary(redis_server: RedisServer) -> None:
    silent, server = _Scripted(b""), _Scripted(_names(redis_server.port))
    connection = _connect_by_sentinels(silent, server)
    assert connection.call([("PING",)], 2.0) == [b"PONG"]
    for each in (connection, silent, server):
        each.close()
