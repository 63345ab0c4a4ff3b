"""The heartbeat of one command: what comes after the command's end does not reach the next one."""

from __future__ import annotations

import threading
from contextlib import AbstractContextManager, nullcontext
from typing import Any, cast

import pytest

from ecs_queue.errors import LedgerUnavailable
from ecs_queue.runner.alarm import Alarm
from ecs_queue.runner.heartbeat import Heartbeat
from ecs_queue.runs.operations import RunnerOperations


class _Server:
    """A server whose answer to a beat is to cancel the command, and comes when the test lets it."""

    def __init__(self) -> None:
        self.is_asked, self.may_answer, self.is_closed = threading.Event(), threading.Event(), threading.Event()
        self.ledger = cast(RunnerOperations, self)

    def beat(self, *_: Any) -> bool:
        """Say to cancel."""
        self.is_asked.set()
        assert self.may_answer.wait(30.0)
        return True

    def wait_for_wake(self, *_: Any) -> None:
        """Fail."""
        raise LedgerUnavailable("down")

    def interruptible(self, _alarm: Alarm) -> AbstractContextManager[None]:
        """Interrupt nothing."""
        return nullcontext()

    def close(self) -> None:
        """Note it."""
        self.is_closed.set()


@pytest.fixture
def server() -> _Server:
    """See `_Server`."""
    return _Server()


def test_a_command_is_cancelled_once(server: _Server) -> None:
    cancelled = threading.Semaphore(0)
    server.may_answer.set()
    with Heartbeat(lambda: server, "run", "boot", 1, 0.01, cancelled.release) as heartbeat:
        assert heartbeat.start()
        assert cancelled.acquire(timeout=30.0)
        server.is_asked.clear()
        assert server.is_asked.wait(30.0)
    assert server.is_closed.wait(30.0)
    assert not cancelled.acquire(blocking=False)


def test_an_answer_that_comes_after_the_command_has_ended_cancels_nothing(server: _Server) -> None:
    cancelled = threading.Event()
    with Heartbeat(lambda: server, "run", "boot", 1, 1.0, cancelled.set) as heartbeat:
        assert heartbeat.start()
        assert server.is_asked.wait(30.0)
    server.may_answer.set()
    assert server.is_closed.wait(30.0)
    assert not cancelled.is_set()


def test_where_the_system_gives_no_thread_it_is_started_later(server: _Server, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    server.may_answer.set()
    with Heartbeat(lambda: server, "run", "boot", 1, 0.01, lambda: None) as heartbeat:
        with monkeypatch.context() as patched:
            patched.setattr(threading.Thread, "start", refuse)
            assert not heartbeat.start()
        assert heartbeat.start()
        assert server.is_asked.wait(30.0)
    assert server.is_closed.wait(30.0)
