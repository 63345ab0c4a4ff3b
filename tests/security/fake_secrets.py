"""Systems Manager and Secrets Manager on this machine, as far as values of the configuration are read from them."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self


class FakeSecrets:
    """A server with values that tests put into it; `environ` makes boto3 ask it."""

    def __init__(self) -> None:
        self.values: dict[str, str] = {}
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._make_handler())
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})

    @property
    def environ(self) -> dict[str, str]:
        url = f"http://127.0.0.1:{self._server.server_port}"
        return {"AWS_ENDPOINT_URL_SSM": url, "AWS_ENDPOINT_URL_SECRETS_MANAGER": url, "AWS_REGION": "eu-west-1"}

    def _make_handler(self) -> type[BaseHTTPRequestHandler]:
        values = self.values

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                is_parameter = self.headers["X-Amz-Target"].endswith("GetParameter")
                value = values[asked["Name" if is_parameter else "SecretId"]]
                body = json.dumps({"Parameter": {"Value": value}} if is_parameter else {"SecretString": value}).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/x-amz-json-1.1")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:
                """Log nothing."""

        return Handler

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
