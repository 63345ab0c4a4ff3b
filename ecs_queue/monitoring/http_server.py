"""A small HTTP server for GET and HEAD: each request has its own thread, some seconds, and one connection.

A client that sends half a request, or reads slowly, loses its connection after `REQUEST_SECONDS`; the others are
answered meanwhile, up to `MAX_CONNECTIONS` at once. Beyond these the one that has waited longest for its request gives
its place to the new one, so that a probe is answered while others only hold connections.
"""

from __future__ import annotations

import io
import logging
import socket
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, urlsplit

from ecs_queue.error_text import error_text, traceback_text
from ecs_queue.errors import ConfigError

logger = logging.getLogger("ecs_queue")

#: For the request to arrive, and again for its answer to be taken. Seconds.
REQUEST_SECONDS = 5.0
#: Connections at the same time; while all of them are being answered, further ones are closed at once.
MAX_CONNECTIONS = 32
#: For the thread of a connection that is closed to end. Seconds.
_CLOSE_SECONDS = 0.1
#: How often the accepting thread looks whether it is to end. Seconds.
_POLL_SECONDS = 0.2


class HttpResponse(NamedTuple):
    """An HTTP status, a content type and a body."""

    status: int
    content_type: str
    body: bytes


def text_response(status: int, text: str) -> HttpResponse:
    """Return an answer of plain text; a line feed is added."""
    return HttpResponse(status, "text/plain; charset=utf-8", f"{text}\n".encode(errors="backslashreplace"))


#: Returns the answer for the parameters of the query; of a name that stands twice the last one counts.
Route = Callable[[Mapping[str, str]], HttpResponse]


class _RequestReader(io.RawIOBase):
    """Reads from a socket until a deadline, however slowly the bytes come."""

    def __init__(self, connection: socket.socket, deadline: float) -> None:
        self._connection = connection
        self._deadline = deadline

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self._connection.settimeout(max(0.001, self._deadline - time.monotonic()))
        return self._connection.recv_into(buffer)


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    server_version, sys_version = "ecs-queue", ""

    def setup(self) -> None:
        super().setup()
        deadline = time.monotonic() + REQUEST_SECONDS
        self.rfile = io.BufferedReader(_RequestReader(self.connection, deadline))

    def do_GET(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def do_POST(self) -> None:
        self._send(text_response(405, "expected GET or HEAD"))

    do_PUT = do_DELETE = do_PATCH = do_OPTIONS = do_POST  # noqa: N815

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing: a scraper comes every few seconds."""

    def _answer(self, *, with_body: bool = True) -> None:
        self.server.forget_waiting(self.connection)
        address = urlsplit(self.path)
        route = self.server.routes.get(address.path)
        if route is None:
            answer = text_response(404, f"expected one of {', '.join(self.server.routes)}")
        else:
            try:
                answer = route(dict(parse_qsl(address.query, keep_blank_values=True)))
            except Exception as error:  # noqa: BLE001 - the next request may be answered
                logger.error("%s could not be answered: %s", address.path, traceback_text(error))
                answer = text_response(500, "the log of the worker has the error")
        self._send(answer, with_body=with_body)

    def _send(self, answer: HttpResponse, *, with_body: bool = True) -> None:
        self.connection.settimeout(REQUEST_SECONDS)  # of the whole `sendall`
        self.send_response(answer.status)
        if answer.status == 405:
            self.send_header("Allow", "GET, HEAD")
        self.send_header("Content-Type", answer.content_type)
        self.send_header("Content-Length", str(len(answer.body)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        if with_body:
            self.wfile.write(answer.body)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    allow_reuse_address = True
    request_queue_size = MAX_CONNECTIONS

    def __init__(self, address: tuple[str, int], routes: Mapping[str, Route]) -> None:
        self.routes = routes
        self._free = threading.BoundedSemaphore(MAX_CONNECTIONS)
        self._lock = threading.Lock()
        self._waiting: dict[socket.socket, None] = {}  # for their requests, the oldest first
        found = socket.getaddrinfo(*address, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        # Of a name that has both, such as localhost, that of IPv4: by it most clients ask.
        self.address_family, *_, chosen = min(found, key=lambda info: info[0] != socket.AF_INET)
        super().__init__(chosen, _Handler)  # type: ignore[arg-type] # that of IPv6 has four members

    def server_bind(self) -> None:
        """Bind without the reverse look-up of the host's name, which may take long."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if self.address_family == socket.AF_INET6:  # `::` is every address, also where the system separates the two
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])

    def process_request(self, request: Any, client_address: Any) -> None:
        """Handle the request on its own thread, if one is free."""
        if not self._free.acquire(blocking=False) and not self._take_oldest_place():
            self.shutdown_request(request)
            return
        with self._lock:
            self._waiting[request] = None
        try:
            super().process_request(request, client_address)
        except RuntimeError:  # no thread can be started now
            self.forget_waiting(request)
            self._free.release()
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self.forget_waiting(request)
            self._free.release()

    def forget_waiting(self, connection: socket.socket) -> None:
        """Note that the request of this connection has arrived, or comes no more."""
        with self._lock:
            self._waiting.pop(connection, None)

    def _take_oldest_place(self) -> bool:
        """Close the connection that waits longest for its request; return whether its place is free now."""
        with self._lock:
            oldest = next(iter(self._waiting), None)
            if oldest is None:
                return False
            del self._waiting[oldest]
            with suppress(OSError):  # the client was faster
                oldest.shutdown(socket.SHUT_RDWR)
        return self._free.acquire(timeout=_CLOSE_SECONDS)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Log nothing: the client is gone, or was too slow."""


class HttpServer:
    """A `Service` of the worker: `start` binds the address, `stop` closes it."""

    def __init__(self, host: str, port: int, routes: Mapping[str, Route]) -> None:
        """Serve `routes`, by path; port 0 takes a free one."""
        self._address = (host, port)
        self._routes = routes
        self._server: _Server | None = None
        self._thread: threading.Thread | None = None

    @property
    def port(self) -> int:
        """The port, once it is started."""
        return self._address[1] if self._server is None else self._server.server_port

    def start(self) -> None:
        """Bind and answer from now on; ConfigError when the address cannot be used."""
        if self._server is not None:
            return
        host, port = self._address
        try:
            self._server = _Server(self._address, self._routes)
        except (OSError, UnicodeError) as error:
            shown = f"[{host}]" if ":" in host else host
            raise ConfigError(
                f"metrics_host, metrics_port: cannot listen on {shown}:{port}: {error_text(error)}; choose another "
                "port for each worker of this machine"
            ) from None
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(_POLL_SECONDS,), name="monitoring", daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """Stop taking requests; returns at once."""
        if self._server is not None and self._thread is not None and self._thread.is_alive():
            threading.Thread(target=self._server.shutdown, name="monitoring-stop", daemon=True).start()

    def join(self, timeout: float) -> bool:
        """Wait for the end after `stop`, and close the address; return whether it came."""
        if self._server is None or self._thread is None:
            return True
        self._thread.join(timeout)
        if self._thread.is_alive():
            return False
        self._server.server_close()
        return True
