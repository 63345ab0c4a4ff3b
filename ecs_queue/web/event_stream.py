"""The journal's new events for browsers, as server-sent events."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncGenerator, Callable

from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from ecs_queue.client.client import EcsQueue
from ecs_queue.web.presentation import Presentation
from ecs_queue.web.reading import read_next_events
from ecs_queue.web.threads import Threads

#: Pages that may follow the journal at the same time: each one occupies a thread.
_MAX_STREAMS = 8
#: How long one read waits for an event, and so how soon a closed page is noticed. Seconds.
_READ_SECONDS = 1.0
#: A stream ends after this time, and the browser connects again where it ended. So the visitor's rights are checked
#: anew, and a server of another program, such as Airflow's, waits no longer for its answers when it stops.
_STREAM_SECONDS = 20.0
#: How long browsers wait before they connect again: after an interruption, and after such an end. Milliseconds.
_RETRY, _RETRY_AFTER_END = 5000, 100


_MEDIA_TYPE = "text/event-stream"


class EventStreams:
    """The streams of one application."""

    def __init__(
        self, client: EcsQueue, presentation: Presentation, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._client, self._show, self._clock = client, presentation, clock
        self._threads = Threads(_MAX_STREAMS)
        self._open = 0
        self._is_stopping: Callable[[], bool] = lambda: False

    @property
    def has_room(self) -> bool:
        """Whether one more page may follow."""
        return self._open < _MAX_STREAMS

    def end_when(self, is_stopping: Callable[[], bool]) -> None:
        """End each stream within a second after `is_stopping` returns True: a server waits for its answers."""
        self._is_stopping = is_stopping

    def respond(self, after: str, *, with_body: bool) -> Response:
        """Return the answer with the events after the `seq` `after`. The headers alone, for a HEAD, take no place."""
        if not with_body:
            return Response(media_type=_MEDIA_TYPE)
        return _ClosedStream(self.follow(after))

    async def follow(self, after: str) -> AsyncGenerator[str]:
        """Yield the events after the `seq` `after`, for some seconds, until the page is closed or a read fails."""
        self._open += 1
        ends_at = self._clock() + _STREAM_SECONDS
        try:
            yield f"retry: {_RETRY}\n\n"
            while self._clock() < ends_at and not self._is_stopping():
                found = await self._threads.run(read_next_events, self._client, after, _READ_SECONDS)
                if isinstance(found, str):
                    yield f"event: problem\ndata: {json.dumps(found)}\n\n"
                    return
                for event in found:
                    after = event.seq
                    row = [self._show.timestamp(event.at), event.name, event.id, event.worker]
                    yield f"id: {after}\ndata: {json.dumps([*row, self._show.event_fields(event)])}\n\n"
                yield ": waiting\n\n"
            if not self._is_stopping():
                yield f"retry: {_RETRY_AFTER_END}\n\n"
        finally:
            self._open -= 1


class _ClosedStream(StreamingResponse):
    """Closes its events however it ends. Left suspended they would keep their place until some garbage collection."""

    def __init__(self, events: AsyncGenerator[str]) -> None:
        super().__init__(events, media_type=_MEDIA_TYPE)
        self._events = events

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See Starlette."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            await self._events.aclose()
