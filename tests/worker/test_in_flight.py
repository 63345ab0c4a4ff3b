"""What a worker has in flight."""

from __future__ import annotations

import datetime

import pytest

from ecs_queue.tasks import EcsExecutorTask, EcsQueuedTask
from ecs_queue.worker.in_flight import InFlightTasks
from tests.fake_clock import FakeClock


def _task(key: str) -> EcsQueuedTask:
    return EcsQueuedTask(key, ["true"], "default", {}, 1, datetime.datetime.now(datetime.UTC))


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def in_flight(clock: FakeClock) -> InFlightTasks:
    return InFlightTasks(clock, forget_after=300.0)


def test_what_was_added_is_not_unknown(in_flight: InFlightTasks) -> None:
    in_flight.add("arn:1", _task("a"))

    assert in_flight.untracked_ids(["a", "b"]) == ["b"]


def test_what_was_dropped_is_unknown_and_dropping_twice_does_no_harm(in_flight: InFlightTasks) -> None:
    in_flight.add("arn:1", _task("a"))
    in_flight.drop("a")
    in_flight.drop("a")

    assert in_flight.untracked_ids(["a"]) == ["a"]
    assert len(in_flight) == 0


def test_a_request_in_its_next_launch_replaces_the_former_one(in_flight: InFlightTasks) -> None:
    in_flight.add("arn:1", _task("a"))
    in_flight.add("arn:2", _task("a"))

    assert len(in_flight) == 1


def test_an_update_of_what_is_not_there_is_ignored(in_flight: InFlightTasks) -> None:
    in_flight.add("arn:2", _task("a"))

    in_flight.update("a", EcsExecutorTask("arn:1", "RUNNING", "RUNNING", []))
    in_flight.update("b", EcsExecutorTask("arn:2", "RUNNING", "RUNNING", []))

    assert len(in_flight) == 1


def test_only_what_was_not_touched_for_long_is_forgotten(in_flight: InFlightTasks, clock: FakeClock) -> None:
    for key, arn in (("seen", "arn:1"), ("asked for", "arn:2"), ("left", "arn:3")):
        in_flight.add(arn, _task(key))
    clock.advance(200)
    in_flight.update("seen", EcsExecutorTask("arn:1", "RUNNING", "RUNNING", []))
    in_flight.untracked_ids(["asked for"])
    clock.advance(200)

    in_flight.forget_untouched()

    assert in_flight.untracked_ids(["seen", "asked for", "left"]) == ["left"]
