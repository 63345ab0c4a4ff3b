"""Messages as any program may put them on the broker's list."""

from __future__ import annotations

import base64
import json
import select
import socket
import threading
import uuid
from contextlib import suppress
from typing import Any, Self

import redis


def encode_kombu_message(body: bytes, **properties: Any) -> bytes:
    """Return a message in kombu's format."""
    known = {
        "delivery_tag": str(uuid.uuid4()),
        "body_encoding": "base64",
        "delivery_mode": 2,
        "priority": 9,
        "delivery_info": {"exchange": "", "routing_key": "requests.default"},
    }
    return json.dumps(
        {
            "body": base64.b64encode(body).decode(),
            "content-type": "application/json",
            "content-encoding": "utf-8",
            "headers": {},
            "properties": known | properties,
        }
    ).encode()


def push_messages(client: redis.Redis, *messages: bytes, queue: str = "default", namespace: str = "ecs-queue") -> None:
    """Put messages on the list as docs/messages.md describes it."""
    client.lpush(f"{namespace}:q:requests.{queue}", *messages)


class TcpForwarder:
    """One address for a server that fails over: new connections go to `port`, old ones stay where they are."""

    def __init__(self, port: int) -> None:
        self.port = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._sockets: list[socket.socket] = []
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._accept, daemon=True)

    @property
    def url(self) -> str:
        """Where clients connect."""
        return f"redis://127.0.0.1:{self._listener.getsockname()[1]}/0"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stopping.set()
        self._thread.join()
        self._listener.close()
        for each in self._sockets:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def _accept(self) -> None:
        while not self._stopping.is_set():
            if not select.select([self._listener], [], [], 0.1)[0]:
                continue
            client = self._listener.accept()[0]
            try:
                server = socket.create_connection(("127.0.0.1", self.port))
            except OSError:
                client.close()
                continue
            self._sockets += [client, server]
            for source, sink in ((client, server), (server, client)):
                threading.Thread(target=_copy_stream, args=(source, sink), daemon=True).start()


def _copy_stream(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
    with suppress(OSError):
        sink.shutdown(socket.SHUT_WR)
