"""What no message speaks of."""

from __future__ import annotations

import pytest

from ecs_queue.core.answers import Kind, RunAnswer
from ecs_queue.core.states import State
from ecs_queue.launcher.lanes import Job, JobKind
from ecs_queue.launcher.sweep import Sweeper
from tests.launcher.lab import Lab


@pytest.fixture
def lab() -> Lab:
    return Lab()


def test_a_request_whose_message_was_lost_is_launched_when_it_has_been_silent(lab: Lab) -> None:
    lab.put()

    lab.later(lab.config.ring_seconds - 1)
    assert not lab.ecs.calls
    lab.later(2)

    assert lab.state() is State.LAUNCHED


def test_while_messages_come_silent_requests_are_left_to_them(lab: Lab) -> None:
    lab.put()
    busy = Sweeper(lab.worker.parts, lab.worker.launcher, lab.worker.slots, ["default"], lambda queue: False)
    lab.clock.advance(60)

    busy.step()

    assert not lab.ecs.calls


def test_a_due_retry_does_not_wait_for_the_messages(lab: Lab) -> None:
    lab.ecs.answers.append(RunAnswer(Kind.CAPACITY))
    lab.worker.take(lab.body())
    busy = Sweeper(lab.worker.parts, lab.worker.launcher, lab.worker.slots, ["default"], lambda queue: False)
    lab.clock.advance(60)

    busy.step()

    assert lab.state() is State.LAUNCHED


def test_an_expired_request_ends_though_no_worker_ever_takes_it(lab: Lab) -> None:
    lab.put(expires_in=10.0, queue="nobody-serves-this")

    lab.later(11)

    assert lab.state() is State.EXPIRED
    assert lab.published == [lab.record()]


def test_what_never_finds_capacity_expires_at_the_launch_deadline() -> None:
    lab = Lab(launch_deadline=60)
    lab.ecs.answers.extend([RunAnswer(Kind.CAPACITY, reason="no room")] * 100)
    lab.worker.take(lab.body())

    lab.pass_time(70)

    assert lab.state() is State.EXPIRED
    assert "no room" in lab.record().reason


def test_only_the_queues_of_this_worker_are_launched(lab: Lab) -> None:
    lab.put("other", queue="gpu")

    lab.later(60)

    assert lab.state("other") is State.QUEUED


def test_no_more_is_popped_than_there_is_room_for(lab: Lab) -> None:
    for index in range(50):
        lab.put(f"t{index}")
    lab.worker.slots.full = True
    lab.clock.advance(6)

    for _ in range(10):
        lab.worker.sweep()

    assert lab.worker.slots.kept == lab.config.concurrency
    assert len(lab.memory.due_silent("default", 100)) == 50 - lab.config.concurrency


def test_retries_get_a_share_of_slots_that_messages_keep_busy(lab: Lab) -> None:
    lab.ecs.answers.append(RunAnswer(Kind.CAPACITY))
    lab.worker.take(lab.body("retry"))
    lab.worker.slots.full = True
    for _ in range(lab.config.concurrency):
        lab.worker.slots.submit(Job(lambda: None, JobKind.MESSAGE, "default"))

    lab.clock.advance(60)
    lab.worker.sweep()
    lab.worker.slots.run_kept()

    assert lab.state("retry") is State.LAUNCHED


def test_an_open_circuit_keeps_its_queue_from_being_swept(lab: Lab) -> None:
    lab.put()
    lab.clock.advance(6)
    lab.worker.circuits.open("default", "no credentials")

    lab.worker.sweep()

    assert lab.state() is State.QUEUED


def test_records_whose_retention_is_over_are_dropped(lab: Lab) -> None:
    lab.memory.stop(["a"], "alice")
    lab.clock.advance(3 * 86400)

    lab.worker.sweep()

    assert "a" not in lab.memory._records


def test_a_worker_that_stops_starts_nothing_more(lab: Lab) -> None:
    lab.put()
    lab.worker.stopping.set()

    lab.later(6)

    assert not lab.ecs.calls
    assert lab.state() is State.QUEUED


def test_it_rests_shortly_after_it_has_found_something_and_longer_else(lab: Lab) -> None:
    lab.put()
    assert lab.worker.sweeper.step() == 0.5
    lab.clock.advance(6)

    assert lab.worker.sweeper.step() == 0.05
