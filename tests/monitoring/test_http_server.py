"""The HTTP server: bad and slow clients lose their connection, and the others are answered."""

from __future__ import annotations

import http.client
import socket
from collections.abc import Iterator

import pytest

from ecs_queue.errors import ConfigError
from ecs_queue.monitoring import http_server
from ecs_queue.monitoring.http_server import HttpResponse, HttpServer, text_response


def _broken(query: object) -> HttpResponse:
    raise RuntimeError("hunter2")


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[HttpServer]:
    monkeypatch.setattr(http_server, "REQUEST_SECONDS", 1.0)
    monkeypatch.setattr(http_server, "MAX_CONNECTIONS", 4)
    large = HttpResponse(200, "text/plain", b"x" * 50_000_000)
    routes = {"/ok": lambda query: text_response(200, query.get("a", "ok")), "/large": lambda _: large}
    server = HttpServer("127.0.0.1", 0, {**routes, "/broken": _broken})
    server.start()
    yield server
    server.stop()
    assert server.join(10)


def ask(server: HttpServer, method: str, path: str) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
    connection.request(method, path)
    response = connection.getresponse()
    body = response.read()
    connection.close()
    return response.status, body


def is_closed_while_dripping(connection: socket.socket) -> bool:
    """Send a byte every tenth of a second."""
    connection.settimeout(0.1)
    for _ in range(200):
        try:
            connection.sendall(b"G")
            if not connection.recv(1):
                return True
        except TimeoutError:
            continue
        except ConnectionError:
            return True
    return False


@pytest.mark.parametrize(
    ("method", "path", "status", "body"),
    [
        ("GET", "/ok", 200, b"ok\n"),
        ("GET", "/ok?a=%C3%BC&b", 200, "ü\n".encode()),
        ("HEAD", "/ok", 200, b""),
        ("POST", "/ok", 405, b"expected GET or HEAD\n"),
        ("BREW", "/ok", 501, None),
        ("GET", "/", 404, b"expected one of /ok, /large, /broken\n"),
        ("GET", "/" + "x" * 70_000, 414, None),
    ],
)
def test_a_request_is_answered(server: HttpServer, method: str, path: str, status: int, body: bytes | None) -> None:
    found = ask(server, method, path)
    assert found[0] == status
    assert body is None or found[1] == body


def test_an_error_shows_only_in_the_log(server: HttpServer, caplog: pytest.LogCaptureFixture) -> None:
    status, body = ask(server, "GET", "/broken")
    assert (status, b"hunter2" in body) == (500, False)
    assert "/broken could not be answered" in caplog.text
    assert ask(server, "GET", "/ok")[0] == 200


def test_slow_clients_lose_their_connection_and_others_are_answered(server: HttpServer) -> None:
    address = ("127.0.0.1", server.port)
    silent, half, reader = (socket.create_connection(address, 20) for _ in range(3))
    half.sendall(b"GET /ok HTTP/1.1\r\nHost: x\r\nX-A")
    reader.sendall(b"GET /large HTTP/1.1\r\n\r\n")  # and takes nothing
    assert ask(server, "GET", "/ok")[0] == 200

    dripping = socket.create_connection(address, 20)
    assert is_closed_while_dripping(dripping)
    for connection in (silent, half):
        assert not connection.recv(1), "closed"
    for connection in (silent, half, reader, dripping):
        connection.close()
    assert ask(server, "GET", "/ok")[0] == 200


def test_an_address_in_use_is_a_sentence(server: HttpServer) -> None:
    other = HttpServer("127.0.0.1", server.port, {})
    with pytest.raises(ConfigError, match=r"cannot listen on 127.0.0.1:\d+: .*in use"):
        other.start()
    other.stop()
    assert other.join(1)


def _has_ipv6() -> bool:
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False


needs_ipv6 = pytest.mark.skipif(not _has_ipv6(), reason="the kernel of this machine has no IPv6")


@needs_ipv6
def test_every_address_is_that_of_both_protocols_whatever_the_system_does(monkeypatch: pytest.MonkeyPatch) -> None:
    made = socket.socket

    def make_separate(*arguments: object, **keywords: object) -> socket.socket:
        found = made(*arguments, **keywords)  # type: ignore[arg-type]
        if found.family == socket.AF_INET6:  # as with net.ipv6.bindv6only
            found.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        return found

    monkeypatch.setattr(socket, "socket", make_separate)
    server = HttpServer("::", 0, {"/ok": lambda _: text_response(200, "ok")})
    server.start()
    monkeypatch.undo()
    assert ask(server, "GET", "/ok") == (200, b"ok\n")
    server.stop()
    assert server.join(10)


@needs_ipv6
def test_a_name_that_has_only_an_address_of_ipv6_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    address = (socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("::1", 0, 0, 0))
    monkeypatch.setattr(socket, "getaddrinfo", lambda *arguments, **keywords: [address])
    server = HttpServer("pod.internal", 0, {})
    server.start()
    monkeypatch.undo()
    with socket.create_connection(("::1", server.port), timeout=10):
        server.stop()
    assert server.join(10)


def test_a_client_is_answered_while_others_hold_every_connection(
    server: HttpServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_server, "REQUEST_SECONDS", 20.0)
    silent = [socket.create_connection(("127.0.0.1", server.port), 20) for _ in range(9)]
    for connection in silent:
        connection.sendall(b"GET /ok HTTP/1.1\r\n")
    assert [ask(server, "GET", "/ok")[0] for _ in range(3)] == [200, 200, 200]
    silent[-1].sendall(b"\r\n")
    assert silent[-1].recv(12) == b"HTTP/1.0 200", "the oldest ones were closed"
    for connection in silent:
        connection.close()


def test_a_flood_of_connections_is_closed_and_the_next_client_is_answered(server: HttpServer) -> None:
    silent = [socket.create_connection(("127.0.0.1", server.port), 20) for _ in range(20)]
    for connection in silent:
        assert not connection.recv(1), "closed at once, or after its time to send a request"
        connection.close()
    assert ask(server, "GET", "/ok")[0] == 200
