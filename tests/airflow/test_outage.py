"""A server that is away."""

from __future__ import annotations

import logging

import pytest

from ecs_queue.airflow.outage import REMIND_SECONDS, REST_SECONDS, Outage
from ecs_queue.errors import LedgerUnavailable


class Server:
    def __init__(self) -> None:
        self.now = 0.0
        self.calls = 0
        self.down = True
        self.outage = Outage("ledger", logging.getLogger("tests.outage"), lambda: self.now)

    def ask(self) -> str | None:
        return self.outage.attempt(self.answer)

    def answer(self) -> str:
        self.calls += 1
        if self.down:
            raise LedgerUnavailable
        return "here"


def test_after_a_failure_it_is_left_alone_for_a_while() -> None:
    server = Server()
    assert [server.ask() for _ in range(5)] == [None] * 5
    assert server.calls == 1
    server.now += REST_SECONDS
    server.ask()
    assert server.calls == 2


def test_it_is_used_again_as_soon_as_it_answers() -> None:
    server = Server()
    server.ask()
    server.down = False
    server.now += REST_SECONDS
    assert [server.ask(), server.ask()] == ["here", "here"]


def test_a_long_outage_is_mentioned_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    server = Server()
    with caplog.at_level(logging.WARNING, "tests.outage"):
        while server.now < 3 * REMIND_SECONDS - 1:
            server.ask()
            server.now += REST_SECONDS
    assert len(caplog.records) == 3


def test_an_error_that_is_no_outage_is_raised() -> None:
    def broken() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        Server().outage.attempt(broken)
