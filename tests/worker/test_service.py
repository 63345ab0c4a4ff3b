"""The start/stop contract."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from ecs_queue.errors import LedgerUnavailable
from ecs_queue.telemetry import Telemetry
from ecs_queue.worker.outages import Outages
from ecs_queue.worker.service import PeriodicService

LONG = 30.0


class StepCounter:
    """Counts the steps of a service; `error` is raised by each but the last two."""

    def __init__(self, error: Exception | None = None) -> None:
        self.steps = 0
        self.reasons: list[str] = []
        self.telemetry = Telemetry(lambda name, fields: self.reasons.append(fields.get("reason", name)))
        self.finished = threading.Event()
        self.error = error

    def step(self) -> float:
        self.steps += 1
        if self.steps >= 3:
            self.finished.set()
            return LONG
        if self.error is not None:
            raise self.error
        return 0.0


def _start_service(recorder: StepCounter, finish: Callable[[], None] | None = None) -> PeriodicService:
    service = PeriodicService(
        "s", recorder.step, Outages(recorder.telemetry, time.monotonic), error_delay=0.001, finish=finish
    )
    service.start()
    assert recorder.finished.wait(10)
    return service


def test_it_steps_until_it_is_stopped_in_the_middle_of_a_rest() -> None:
    recorder = StepCounter()
    service = _start_service(recorder)

    service.stop()

    assert service.join(10)
    assert recorder.steps == 3


def test_starting_and_stopping_twice_does_no_harm() -> None:
    recorder = StepCounter()
    service = _start_service(recorder)
    service.start()

    service.stop()
    service.stop()

    assert service.join(10)
    assert recorder.steps == 3


def test_one_that_was_never_started_has_ended() -> None:
    assert PeriodicService("s", lambda: 0.0, Outages(Telemetry(), time.monotonic)).join(0.0)


def test_it_says_when_it_has_not_ended_in_time() -> None:
    service = _start_service(StepCounter())

    assert not service.join(0.0)

    service.stop()
    assert service.join(10)


def test_errors_are_reported_and_do_not_end_it() -> None:
    for error in (LedgerUnavailable("gone for a while"), ZeroDivisionError("never thought of")):
        recorder = StepCounter(error)

        service = _start_service(recorder)

        service.stop()
        assert service.join(10)
        assert len(recorder.reasons) == 2
        assert str(error) in recorder.reasons[0]


def test_the_end_runs_on_the_same_thread_after_the_last_step() -> None:
    recorder = StepCounter()
    threads: list[str] = []
    service = _start_service(recorder, finish=lambda: threads.append(threading.current_thread().name))
    assert threads == []

    service.stop()
    assert service.join(10)

    assert threads == ["s"]


def test_an_error_at_the_end_is_reported() -> None:
    recorder = StepCounter()

    def finish() -> None:
        raise LedgerUnavailable("gone")

    service = _start_service(recorder, finish)
    service.stop()

    assert service.join(10)
    assert recorder.reasons == ["gone"]
