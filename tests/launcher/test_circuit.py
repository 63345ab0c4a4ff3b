"""Circuits of queues."""

from __future__ import annotations

import pytest

from ecs_queue.launcher.circuit import Circuits
from ecs_queue.telemetry import Telemetry
from tests.launcher.lab import Clock


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def circuits(clock: Clock) -> Circuits:
    return Circuits(clock, Telemetry())


def test_it_is_closed_at_first(circuits: Circuits) -> None:
    assert not circuits.is_open("q")
    assert circuits.health() == "ok"


def test_each_failure_after_a_pause_doubles_the_pause_up_to_a_minute(circuits: Circuits, clock: Clock) -> None:
    pauses = []
    for _ in range(6):
        circuits.open("q", "no credentials")
        opened = clock()
        while circuits.is_open("q"):
            clock.advance(1)
        pauses.append(clock() - opened)

    assert pauses == [5, 10, 20, 40, 60, 60]


def test_failures_during_a_pause_change_nothing(circuits: Circuits, clock: Clock) -> None:
    for _ in range(10):
        circuits.open("q", "no credentials")

    clock.advance(5)

    assert not circuits.is_open("q")


def test_a_call_that_works_closes_it_and_the_next_pause_is_short_again(circuits: Circuits, clock: Clock) -> None:
    circuits.open("q", "no credentials")
    clock.advance(6)
    circuits.open("q", "no credentials")

    circuits.close("q")
    assert circuits.health() == "ok"
    circuits.open("q", "again")
    clock.advance(5)

    assert not circuits.is_open("q")


def test_health_names_the_queue_and_the_reason_until_a_call_works(circuits: Circuits, clock: Clock) -> None:
    circuits.open("q", "no credentials")
    clock.advance(3600)

    assert circuits.health() == "q: no credentials"


def test_it_is_told_once_that_it_opened_and_once_that_it_closed(clock: Clock) -> None:
    told: list[str] = []
    circuits = Circuits(clock, Telemetry(lambda name, fields: told.append(name)))

    circuits.open("q", "no credentials")
    circuits.open("q", "no credentials")
    circuits.close("q")
    circuits.close("q")

    assert told == ["circuit.opened", "circuit.closed"]
