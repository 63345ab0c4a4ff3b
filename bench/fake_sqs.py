"""An SQS stand-in for the benchmarks, a process of its own: one queue in memory, in SQS's JSON protocol.

moto's server takes some milliseconds for each message, which would be all that a benchmark of events measures. Only
what the workers and the local ECS call is there: SendMessageBatch, ReceiveMessage with its wait and visibility, and
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
    """One standard queue. In the server's event loop."""

    def __init__(self) -> None:
        self._visible: deque[tuple[str, str]] = deque()  # handle, body
        self._in_flight: dict[str, tuple[float, str]] = {}  # handle -> visible again at, body; in order of time
        self._handles = itertools.count()
        self._arrived = asyncio.Condition()

    async def send(self, asked: dict[str, Any]) -> dict[str, Any]:
        """SendMessageBatch."""
        async with self._arrived:
            for entry in asked["Entries"]:
                self._visible.append((str(next(self._handles)), entry["MessageBody"]))
            self._arrived.notify_all()
        return {"Successful": [{"Id": entry["Id"], "MessageId": entry["Id"]} for entry in asked["Entries"]]}

    async def receive(self, asked: dict[str, Any]) -> dict[str, Any]:
        """ReceiveMessage."""
        async with self._arrived:
            try:
                await asyncio.wait_for(self._arrived.wait_for(self._has_visible), asked.get("WaitTimeSeconds", 0))
            except TimeoutError:
                return {}
            until = time.monotonic() + asked["VisibilityTimeout"]
            taken = [self._visible.popleft() for _ in range(min(asked["MaxNumberOfMessages"], len(self._visible)))]
            self._in_flight.update({handle: (until, body) for handle, body in taken})
        return {"Messages": [{"MessageId": one, "ReceiptHandle": one, "Body": body} for one, body in taken]}

    async def delete(self, asked: dict[str, Any]) -> dict[str, Any]:
        """DeleteMessageBatch."""
        for entry in asked["Entries"]:
            self._in_flight.pop(entry["ReceiptHandle"], None)
        return {"Successful": [{"Id": entry["Id"]} for entry in asked["Entries"]], "Failed": []}

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

    async def answer(request: web.BaseRequest) -> web.Response:
        operation = operations[request.headers["X-Amz-Target"]]
        body = json.dumps(await operation(await request.json()))
        return web.Response(text=body, content_type="application/x-amz-json-1.0")

    server = web.ServerRunner(web.Server(answer, access_log=None), handle_signals=True)
    await server.setup()
    await web.TCPSite(server, HOST, 0).start()
    print(f"http://{HOST}:{server.addresses[0][1]}{QUEUE_PATH}", flush=True)
    await asyncio.Event().wait()


def main() -> None:
    """Serve until it is told to stop; the first line on stdout is the queue's URL."""
    with contextlib.suppress(KeyboardInterrupt, web.GracefulExit):
        asyncio.run(_serve())


if __name__ == "__main__":
    main()
