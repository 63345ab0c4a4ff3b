"""The stream of the journal's new events."""

from __future__ import annotations

import asyncio

import pytest

from ecs_queue.cli.web import make_presentation
from ecs_queue.testing import MemoryQueue
from ecs_queue.web import event_stream
from ecs_queue.web.event_stream import EventStreams
from tests.fake_clock import FakeClock


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
