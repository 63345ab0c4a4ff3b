"""The stream of the journal's new events."""

from __future__ import annotations

import asyncio
import gc

import pytest
from starlette.requests import ClientDisconnect
from starlette.types import Message

from ecs_queue.cli.web import make_presentation
from ecs_queue.testing import MemoryQueue
from ecs_queue.web import event_stream
from ecs_queue.web.event_stream import EventStreams
from tests.fake_clock import FakeClock
from tests.web.conftest import Site

_SCOPE = {"type": "http", "asgi": {"spec_version": "2.4"}}


def test_a_stream_ends_so_that_the_visitors_rights_are_checked_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = FakeClock()

    def read_nothing(*_: object) -> list[object]:
        clock.advance(4)
        return []

    monkeypatch.setattr(event_stream, "read_next_events", read_nothing)

    async def follow() -> list[str]:
        with MemoryQueue() as queue:
            streams = EventStreams(queue, make_presentation(), clock)
            lines = [line async for line in streams.follow("")]
            assert streams.has_room
            return lines

    assert asyncio.run(follow()) == ["retry: 5000\n\n", *[": waiting\n\n"] * 5, "retry: 100\n\n"]


def test_a_stream_ends_with_its_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_stream, "read_next_events", lambda *_: [])

    async def follow() -> list[str]:
        with MemoryQueue() as queue:
            streams = EventStreams(queue, make_presentation(), FakeClock())
            lines: list[str] = []
            streams.end_when(lambda: len(lines) >= 3)
            async for line in streams.follow(""):
                lines.append(line)
            return lines

    assert len(asyncio.run(follow())) == 3


def test_a_stream_that_breaks_between_two_events_gives_its_place_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_stream, "read_next_events", lambda *_: [])

    async def receive() -> Message:
        await asyncio.Event().wait()
        raise AssertionError

    async def break_off(message: Message) -> None:
        if message["type"] == "http.response.body":
            raise OSError("the browser is gone")

    async def follow() -> None:
        with MemoryQueue() as queue:
            streams = EventStreams(queue, make_presentation())
            gc.disable()  # it would close the events, some time
            try:
                for _ in range(event_stream._MAX_STREAMS):
                    with pytest.raises(ClientDisconnect):
                        await streams.respond("", with_body=True)(_SCOPE, receive, break_off)
            finally:
                gc.enable()
            assert streams._open == 0

    asyncio.run(follow())


def test_a_head_gets_the_headers_and_reads_nothing(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    reads: list[object] = []

    def read(*of: object) -> str:
        reads.append(of)
        return "it is read"

    monkeypatch.setattr(event_stream, "read_next_events", read)
    answer = site.browser.head("/journal/events")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/event-stream; charset=utf-8")
    assert reads == []
    assert "it is read" in site.browser.get("/journal/events").text
