"""The guard of an unavailable server."""

from __future__ import annotations

import logging

import pytest

from ecs_queue.airflow.outage_guard import BACKOFF_SECONDS, OutageGuard
from ecs_queue.errors import LedgerUnavailable, MissingRight
from ecs_queue.outage_log import LINE_INTERVAL_SECONDS
from tests.fake_clock import START, FakeClock


class FakeServer:
    def __init__(self) -> None:
        self.clock = FakeClock()
        self.calls = 0
        self.is_unavailable = True
        self.guard = OutageGuard("ledger", logging.getLogger("tests.outage_guard"), self.clock)

    def call_guarded(self) -> str | None:
        return self.guard.attempt(self.call)

    def call(self) -> str:
        self.calls += 1
        if self.is_unavailable:
            raise LedgerUnavailable
        return "result"


def test_after_a_failure_it_is_not_called_during_the_backoff() -> None:
    server = FakeServer()
    assert [server.call_guarded() for _ in range(5)] == [None] * 5
    assert server.calls == 1
    server.clock.advance(BACKOFF_SECONDS)
    server.call_guarded()
    assert server.calls == 2


def test_a_server_that_does_not_answer_holds_back_both_kinds_of_calls() -> None:
    ledger, broker = FakeServer(), FakeServer()
    broker.clock = ledger.clock
    broker.guard = OutageGuard("broker", logging.getLogger("tests.outage_guard"), ledger.clock)
    ledger.guard.share_waits_with(broker.guard)
    broker.call_guarded()
    assert not ledger.guard.is_backing_off  # the server answered: only this kind of call failed

    def wait_in_vain() -> str:
        ledger.clock.advance(0.65)
        return ledger.call()

    ledger.guard.attempt(wait_in_vain)
    ledger.clock.advance(BACKOFF_SECONDS - 0.65)
    assert broker.guard.is_backing_off
    ledger.clock.advance(0.65)
    assert not broker.guard.is_backing_off


def test_it_is_used_again_as_soon_as_it_answers() -> None:
    server = FakeServer()
    server.call_guarded()
    server.is_unavailable = False
    server.clock.advance(BACKOFF_SECONDS)
    assert [server.call_guarded(), server.call_guarded()] == ["result", "result"]


def test_a_long_outage_is_mentioned_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    server = FakeServer()
    with caplog.at_level(logging.WARNING, "tests.outage_guard"):
        while server.clock.now < START + 3 * LINE_INTERVAL_SECONDS - 1:
            server.call_guarded()
            server.clock.advance(BACKOFF_SECONDS)
    assert len(caplog.records) == 3


def test_a_missing_right_is_named_once_and_is_no_outage(caplog: pytest.LogCaptureFixture) -> None:
    failures: list[str] = []
    guard = OutageGuard(
        "ledger", logging.getLogger("tests.outage_guard"), FakeClock(), on_failure=lambda: failures.append("")
    )

    def denied() -> None:
        raise MissingRight("the ledger's server denies user u the command ZADD")

    assert guard.attempt(denied) is None
    assert failures == []
    assert "denies user u the command ZADD" in caplog.text
    assert "unavailable" not in caplog.text


def test_an_error_that_is_no_outage_is_raised() -> None:
    def broken() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        FakeServer().guard.attempt(broken)
