"""An HTTP endpoint on loopback that sends each request the next reply of a script, or closes the connection."""

from __future__ import annotations

import json
import threading
from collections import deque
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self


@dataclass(frozen=True)
class ScriptedReply:
    """One reply. `fault`: "reset" closes the connection after reading, "hang" never replies."""

    body: bytes = b"{}"
    status: int = 200
    fault: str = ""


def ok_reply(**members: Any) -> ScriptedReply:
    return ScriptedReply(json.dumps(members).encode())


def error_reply(code: str, message: str = "", status: int = 400, **members: Any) -> ScriptedReply:
    return ScriptedReply(json.dumps({"__type": code, "message": message, **members}).encode(), status)


@dataclass
class ReceivedRequest:
    """One request as it arrived."""

    operation: str
    body: dict[str, Any]
    headers: dict[str, str] = field(repr=False)


class ScriptedEndpoint:
    """Serves the scripted replies in order, and records the requests. A request beyond the script gets status 599."""

    def __init__(self) -> None:
        self.script: deque[ScriptedReply] = deque()
        self.requests: list[ReceivedRequest] = []
        self._released = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def enqueue(self, *replies: ScriptedReply) -> None:
        self.script.extend(replies)

    @property
    def operations(self) -> list[str]:
        return [request.operation for request in self.requests]

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._released.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        endpoint = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                length = int(self.headers["Content-Length"])
                body = self.rfile.read(length)
                target = self.headers.get("X-Amz-Target", "")
                is_json = target != ""
                asked = json.loads(body) if is_json else {"form": body.decode()}
                endpoint.requests.append(ReceivedRequest(target.rsplit(".", 1)[-1], asked, dict(self.headers.items())))
                reply = endpoint.script.popleft() if endpoint.script else ScriptedReply(status=599)
                if reply.fault == "hang":
                    endpoint._released.wait()
                if reply.fault:
                    self.close_connection = True
                    return
                self.send_response(reply.status)
                self.send_header("Content-Length", str(len(reply.body)))
                self.end_headers()
                self.wfile.write(reply.body)

            def log_message(self, *_args: object) -> None:
                """Quiet."""

        return Handler
