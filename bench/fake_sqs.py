"""A fake SQS for the benchmarks, in a separate process: one queue in memory, with SQS's JSON protocol.

moto's server takes some milliseconds per message, which would dominate a benchmark of events. This server has only the
operations that the workers and the local ECS call: SendMessageBatch, ReceiveMessage with its wait and visibility, and
DeleteMessageBatch. The tests use moto.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import time
from collections import deque
from typing import Any

from aiohttp import web

HOST = "127.0.0.1"
QUEUE_PATH = "/123456789012/events"


class FakeQueue:
    """One standard queue. Used in the server's event loop only."""

    def __init__(self) -> None:
        self._visible: deque[tuple[str, str]] = deque()  # handle, body
        self._in_flight: dict[str, tuple[float, str]] = {}  # handle -> (time when visible again, body), by time
        self._handles = itertools.count()
        self._arrived = asyncio.Condition()

    async def send(self, parameters: dict[str, Any]) -> dict[str, Any]:
        """SendMessageBatch."""
        async with self._arrived:
            for entry in parameters["Entries"]:
                self._visible.append((str(next(self._handles)), entry["MessageBody"]))
            self._arrived.notify_all()
        return {"Successful": [{"Id": entry["Id"], "MessageId": entry["Id"]} for entry in parameters["Entries"]]}

    async def receive(self, parameters: dict[str, Any]) -> dict[str, Any]:
        """ReceiveMessage."""
        async with self._arrived:
            try:
                await asyncio.wait_for(self._arrived.wait_for(self._has_visible), parameters.get("WaitTimeSeconds", 0))
            except TimeoutError:
                return {}
            until = time.monotonic() + parameters["VisibilityTimeout"]
            received = [
                self._visible.popleft() for _ in range(min(parameters["MaxNumberOfMessages"], len(self._visible)))
            ]
            self._in_flight.update({handle: (until, body) for handle, body in received})
        return {"Messages": [{"MessageId": handle, "ReceiptHandle": handle, "Body": body} for handle, body in received]}

    async def delete(self, parameters: dict[str, Any]) -> dict[str, Any]:
        """DeleteMessageBatch."""
        for entry in parameters["Entries"]:
            self._in_flight.pop(entry["ReceiptHandle"], None)
        return {"Successful": [{"Id": entry["Id"]} for entry in parameters["Entries"]], "Failed": []}

    def _has_visible(self) -> bool:
        now = time.monotonic()
        while self._in_flight and next(iter(self._in_flight.values()))[0] <= now:
            handle = next(iter(self._in_flight))
            self._visible.append((handle, self._in_flight.pop(handle)[1]))
        return bool(self._visible)


async def _serve() -> None:
    queue = FakeQueue()
    operations = {
        "AmazonSQS.SendMessageBatch": queue.send,
        "AmazonSQS.ReceiveMessage": queue.receive,
        "AmazonSQS.DeleteMessageBatch": queue.delete,
    }

    async def handle(request: web.BaseRequest) -> web.Response:
        operation = operations[request.headers["X-Amz-Target"]]
        body = json.dumps(await operation(await request.json()))
        return web.Response(text=body, content_type="application/x-amz-json-1.0")

    server = web.ServerRunner(web.Server(handle, access_log=None), handle_signals=True)
    await server.setup()
    await web.TCPSite(server, HOST, 0).start()
    print(f"http://{HOST}:{server.addresses[0][1]}{QUEUE_PATH}", flush=True)
    await asyncio.Event().wait()


def main() -> None:
    """Serve until SIGTERM; the first line on stdout is the queue's URL."""
    with contextlib.suppress(KeyboardInterrupt, web.GracefulExit):
        asyncio.run(_serve())


if __name__ == "__main__":
    main()
