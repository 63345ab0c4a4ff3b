"""The journal's new events for browsers, as server-sent events."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

from starlette.concurrency import run_in_threadpool

from ecs_queue.client.client import EcsQueue
from ecs_queue.web.presentation import Presentation
from ecs_queue.web.reading import read_next_events

#: Pages that may follow the journal at the same time: each one occupies a thread.
_MAX_STREAMS = 8
#: How long one read waits for an event, and so how soon a closed page is noticed. Seconds.
_READ_SECONDS = 1.0


class EventStreams:
    """The streams of one application."""

    def __init__(self, client: EcsQueue, presentation: Presentation) -> None:
        self._client, self._show = client, presentation
        self._open = 0

    @property
    def has_room(self) -> bool:
        """Whether one more page may follow."""
        return self._open < _MAX_STREAMS

    async def follow(self, after: str) -> AsyncIterator[str]:
        """Yield the events after the `seq` `after` until the page is closed, or the journal cannot be read."""
        self._open += 1
        try:
            yield "retry: 5000\n\n"
            while True:
                found = await run_in_threadpool(read_next_events, self._client, after, _READ_SECONDS)
                if isinstance(found, str):
                    yield f"event: problem\ndata: {json.dumps(found)}\n\n"
                    return
                for event in found:
                    after = event.seq
                    row = [self._show.timestamp(event.at), event.name, event.id, event.worker]
                    yield f"id: {after}\ndata: {json.dumps([*row, self._show.event_fields(event)])}\n\n"
                yield ": waiting\n\n"
        finally:
            self._open -= 1
