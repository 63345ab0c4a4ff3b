"""A server that closes connections whose first request does not arrive."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from aiohttp import web


class TimedServer(web.Server):
    """aiohttp waits without limit for the header of a connection's first request; this one for some seconds.

    The header of a later request may take as long as a connection may be idle (aiohttp's keepalive_timeout).
    """

    def __init__(self, handle: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]], seconds: float) -> None:
        """Serve with `handle`; a connection has `seconds` for its first header."""
        super().__init__(self._handle_in_time, access_log=None)
        self._handle = handle
        self._seconds = seconds
        self._waiting: set[object] = set()

    def __call__(self) -> web.RequestHandler:
        """Return the handler of a new connection."""
        connection = super().__call__()
        self._waiting.add(connection)
        asyncio.get_running_loop().call_later(self._seconds, self._close_if_waiting, connection)
        return connection

    async def _handle_in_time(self, request: web.BaseRequest) -> web.StreamResponse:
        self._waiting.discard(request.protocol)
        return await self._handle(request)

    def _close_if_waiting(self, connection: web.RequestHandler) -> None:
        if connection in self._waiting:
            self._waiting.discard(connection)
            connection.force_close()
