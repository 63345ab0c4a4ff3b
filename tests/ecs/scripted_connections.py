"""A server on loopback whose connections follow a script: when they answer, and when they break."""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
import threading
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self


class Unencrypted(bytes):
    """An answer that a server with TLS sends without it."""


#: What follows a request: the bytes of the answer, or a function of the request that returns them; None: no answer.
Step = bytes | Callable[[bytes], bytes] | None


def http_answer(body: bytes, status: str = "200 OK", *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


class ScriptedConnections:
    """Answers the requests of each connection with its steps, then closes it. Refuses connections beyond the script.

    Args:
        connections: The steps of each connection, in the order in which they are made.
        tls: For https.
        silent: Whether connections are kept open without a word, not even TLS's.
    """

    def __init__(self, *connections: Sequence[Step], tls: ssl.SSLContext | None = None, silent: bool = False) -> None:
        self.requests: list[bytes] = []
        self.accepted = 0
        self._script = connections
        self._tls = tls
        self._silent = silent
        self._released = threading.Event()
        self._channels: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._threads = [threading.Thread(target=self._accept)]

    @property
    def url(self) -> str:
        return f"{'https' if self._tls or self._silent else 'http'}://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        self._threads[0].start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._released.set()
        for waiting in (self._listener, *self._channels):  # wakes the threads that accept and read
            with contextlib.suppress(OSError):
                waiting.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()

    def _accept(self) -> None:
        accepted = []
        with self._listener, contextlib.suppress(OSError):
            for _steps in self._script:
                connection, _ = self._listener.accept()
                self.accepted += 1
                accepted.append(connection)
                if len(accepted) < len(self._script):
                    self._start(connection, self._script[len(accepted) - 1])
        if len(accepted) == len(self._script):  # the last one is served when the listener is closed
            self._start(accepted[-1], self._script[-1])

    def _start(self, connection: socket.socket, steps: Sequence[Step]) -> None:
        thread = threading.Thread(target=self._serve, args=(connection, steps))
        self._threads.append(thread)
        thread.start()

    def _serve(self, connection: socket.socket, steps: Sequence[Step]) -> None:
        with connection, contextlib.suppress(OSError):
            if self._silent:
                self._released.wait()
                return
            channel = self._tls.wrap_socket(connection, server_side=True) if self._tls else connection
            self._channels.append(channel)
            with channel:
                for step in steps:
                    request = _read_request(channel)
                    if not request:
                        return
                    self.requests.append(request)
                    answer = step(request) if callable(step) else step
                    if answer is None:
                        return
                    if isinstance(answer, Unencrypted):
                        os.write(channel.fileno(), answer)
                    else:
                        channel.sendall(answer)


def _read_request(channel: socket.socket) -> bytes:
    """Return one request, head and body; b"" when the connection has ended."""
    received = b""
    while b"\r\n\r\n" not in received:
        part = channel.recv(65536)
        if not part:
            return b""
        received += part
    head, _, body = received.partition(b"\r\n\r\n")
    (length,) = [int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
    while len(body) < length:
        body += channel.recv(65536)
    return head + b"\r\n\r\n" + body
