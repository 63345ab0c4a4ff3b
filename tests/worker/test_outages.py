"""What a worker logs of its services' failures, and its health."""

from __future__ import annotations

from typing import Any

from ecs_queue.errors import BrokerUnavailable, JournalUnavailable, LedgerUnavailable, MissingRight
from ecs_queue.telemetry import Telemetry
from ecs_queue.worker.outages import CONSUMER, HEARTBEAT, Outages
from tests.fake_clock import FakeClock

_SERVICES = ("poller", "sweeper", "admission", HEARTBEAT)


class Harness:
    def __init__(self, *, has_shared_server: bool) -> None:
        self.clock = FakeClock()
        self.emitted: list[tuple[str, dict[str, Any]]] = []
        telemetry = Telemetry(lambda name, fields: self.emitted.append((name, fields)))
        self.outages = Outages(telemetry, self.clock, has_shared_server)

    def fail(self, seconds: int) -> None:
        """Every service fails once a second."""
        for _ in range(seconds):
            for service in _SERVICES:
                self.outages.report_failure(service, LedgerUnavailable("the ledger refuses"))
            self.outages.report_failure(CONSUMER, BrokerUnavailable("the broker refuses"))
            self.outages.report_failure("journal", JournalUnavailable("the journal refuses"))
            self.clock.advance(1.0)

    def work(self, seconds: int) -> None:
        for _ in range(seconds):
            for service in (*_SERVICES, CONSUMER):
                self.outages.report_success(service)
            self.clock.advance(1.0)

    def lines(self) -> list[tuple[str, str]]:
        """The name and the subject of each event above DEBUG."""
        return [(name, fields["service"]) for name, fields in self.emitted if name != "service.retried"]


def test_the_failures_of_all_services_are_one_outage_of_the_server() -> None:
    harness = Harness(has_shared_server=True)
    harness.fail(130)
    harness.work(10)
    subject = "the server of ledger and broker"
    assert harness.lines() == [("service.failed", subject)] * 3 + [("service.recovered", subject)]
    assert len(harness.emitted) == 130 * 6 + 1  # the journal and the debug log have them all


def test_ledger_and_broker_on_two_servers_have_an_outage_each() -> None:
    harness = Harness(has_shared_server=False)
    harness.fail(3)
    harness.work(10)
    assert sorted(harness.lines()) == [
        ("service.failed", "the broker"),
        ("service.failed", "the ledger"),
        ("service.recovered", "the broker"),
        ("service.recovered", "the ledger"),
    ]


def test_only_the_service_that_surely_calls_the_server_shows_that_it_works() -> None:
    harness = Harness(has_shared_server=True)
    harness.fail(2)
    for _ in range(30):
        harness.outages.report_success("sweeper")
        harness.clock.advance(1.0)
    assert harness.lines() == [("service.failed", "the server of ledger and broker")]


def test_a_missing_right_and_a_bug_are_about_their_service_and_spoil_the_health() -> None:
    harness = Harness(has_shared_server=True)
    for _ in range(3):
        harness.outages.report_failure("poller", MissingRight("the ledger's server denies user u the command ZADD"))
        harness.outages.report_failure("sweeper", ZeroDivisionError("never thought of"))
        harness.clock.advance(1.0)
    assert harness.lines() == [("service.failed", "poller"), ("service.failed", "sweeper")]
    assert harness.outages.reasons() == [
        "poller: the ledger's server denies user u the command ZADD",
        "sweeper: ZeroDivisionError: never thought of",
    ]
    harness.work(10)
    assert harness.outages.reasons() == []
