"""The circuit breakers of queues."""

from __future__ import annotations

import pytest

from ecs_queue.telemetry import Telemetry
from ecs_queue.worker.circuit_breaker import CircuitBreakers
from tests.fake_clock import FakeClock


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def circuit_breakers(clock: FakeClock) -> CircuitBreakers:
    return CircuitBreakers(clock, Telemetry(), lambda queue: "here")


def test_it_is_closed_at_first(circuit_breakers: CircuitBreakers) -> None:
    assert not circuit_breakers.is_open("q")
    assert circuit_breakers.health() == "ok"


def test_each_failure_after_a_pause_doubles_the_pause_up_to_a_minute(
    circuit_breakers: CircuitBreakers, clock: FakeClock
) -> None:
    pauses = []
    for _ in range(6):
        circuit_breakers.open("q", "no credentials")
        opened = clock()
        while circuit_breakers.is_open("q"):
            clock.advance(1)
        pauses.append(clock() - opened)

    assert pauses == [5, 10, 20, 40, 60, 60]


def test_failures_during_a_pause_change_nothing(circuit_breakers: CircuitBreakers, clock: FakeClock) -> None:
    for _ in range(10):
        circuit_breakers.open("q", "no credentials")

    clock.advance(5)

    assert not circuit_breakers.is_open("q")


def test_a_call_that_works_closes_it_and_the_next_pause_is_short_again(
    circuit_breakers: CircuitBreakers, clock: FakeClock
) -> None:
    circuit_breakers.open("q", "no credentials")
    clock.advance(6)
    circuit_breakers.open("q", "no credentials")

    circuit_breakers.close("q")
    assert circuit_breakers.health() == "ok"
    circuit_breakers.open("q", "again")
    clock.advance(5)

    assert not circuit_breakers.is_open("q")


def test_health_names_the_queue_and_the_reason_until_a_call_works(
    circuit_breakers: CircuitBreakers, clock: FakeClock
) -> None:
    circuit_breakers.open("q", "no credentials")
    clock.advance(3600)

    assert circuit_breakers.health() == "q: no credentials"


def test_opening_and_closing_are_each_reported_once(clock: FakeClock) -> None:
    names: list[str] = []
    circuit_breakers = CircuitBreakers(clock, Telemetry(lambda name, fields: names.append(name)), lambda queue: "here")

    circuit_breakers.open("q", "no credentials")
    circuit_breakers.open("q", "no credentials")
    circuit_breakers.close("q")
    circuit_breakers.close("q")

    assert names == ["circuit.opened", "circuit.closed"]


def test_a_circuit_of_another_target_does_not_pause_the_queue_and_leaves_health_when_its_pause_is_over(
    circuit_breakers: CircuitBreakers, clock: FakeClock
) -> None:
    circuit_breakers.open("default", "no such cluster", "elsewhere")
    assert not circuit_breakers.is_open("default")
    assert circuit_breakers.health() == "default: no such cluster"
    circuit_breakers.open("default", "no credentials", "here")
    circuit_breakers.close("default", "elsewhere")
    assert circuit_breakers.is_open("default")
    circuit_breakers.open("default", "no such cluster", "elsewhere")
    clock.advance(60.0)
    assert circuit_breakers.health() == "default: no credentials"
