"""The slots of a worker."""

from __future__ import annotations

import threading

import pytest

from ecs_queue.launcher.slots import Slots
from ecs_queue.telemetry import Telemetry


class Crowd:
    """Jobs that wait until they may go, and how many ran at the same time."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.lock = threading.Lock()
        self.running = 0
        self.most = 0
        self.three_run = threading.Event()

    def job(self) -> None:
        with self.lock:
            self.running += 1
            self.most = max(self.most, self.running)
            if self.running == 3:
                self.three_run.set()
        assert self.go.wait(10)
        with self.lock:
            self.running -= 1


def test_never_more_jobs_run_than_there_are_slots() -> None:
    slots, crowd = Slots(3, Telemetry()), Crowd()
    for _ in range(20):
        slots.submit(crowd.job)
    assert crowd.three_run.wait(10)
    assert (slots.in_hand, slots.free) == (20, 0)

    crowd.go.set()

    assert slots.wait_until_idle(10)
    assert crowd.most == 3
    assert (slots.in_hand, slots.free) == (0, 3)
    slots.close()


@pytest.mark.parametrize(("in_hand", "free", "room"), [(0, 3, 6), (2, 1, 4), (3, 0, 3), (6, 0, 0), (9, 0, 0)])
def test_as_many_jobs_may_wait_as_there_are_slots(in_hand: int, free: int, room: int) -> None:
    slots, crowd = Slots(3, Telemetry()), Crowd()
    for _ in range(in_hand):
        slots.submit(crowd.job)

    assert (slots.free, slots.room) == (free, room)

    crowd.go.set()
    assert slots.wait_until_idle(10)
    slots.close()


def test_what_a_job_raises_is_told_and_its_slot_is_free_again() -> None:
    told: list[str] = []
    slots = Slots(1, Telemetry(lambda name, fields: told.append(fields["reason"])))

    def broken() -> None:
        raise ZeroDivisionError("never thought of")

    slots.submit(broken)

    assert slots.wait_until_idle(10)
    assert told == ["ZeroDivisionError: never thought of"]
    slots.close()


def test_a_job_after_the_end_is_not_counted() -> None:
    slots = Slots(1, Telemetry())
    slots.close()

    slots.submit(lambda: None)

    assert slots.in_hand == 0


def test_waiting_is_bounded() -> None:
    slots, crowd = Slots(1, Telemetry()), Crowd()
    slots.submit(crowd.job)

    assert not slots.wait_until_idle(0.01)

    crowd.go.set()
    assert slots.wait_until_idle(10)
    slots.close()
