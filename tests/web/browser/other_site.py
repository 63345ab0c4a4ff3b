"""Pages of another origin, on another port of this machine, under any name that leads there."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class OtherSite:
    """Its port, and the paths that it was asked for."""

    port: int
    asked: list[str] = field(default_factory=list)


@contextmanager
def serve_pages(pages: Mapping[str, str]) -> Iterator[OtherSite]:
    """Serve HTML by path, for example {"/": "<p>Hello"}. The browser gets no other file."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            text = pages.get(self.path, "").encode()
            self.send_response(200 if text else 404)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing: the test's own assertions say what went wrong."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield OtherSite(server.server_address[1], asked)
        finally:
            server.shutdown()
            thread.join()
