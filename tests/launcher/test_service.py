"""The start/stop contract."""

from __future__ import annotations

import threading
from collections.abc import Callable

from ecs_queue.errors import LedgerUnavailable
from ecs_queue.launcher.service import PeriodicService
from ecs_queue.telemetry import Telemetry

LONG = 30.0


class Recorder:
    """Counts the steps of a service; `error` is raised by each but the last two."""

    def __init__(self, error: Exception | None = None) -> None:
        self.steps = 0
        self.told: list[str] = []
        self.telemetry = Telemetry(lambda name, fields: self.told.append(fields.get("reason", name)))
        self.done = threading.Event()
        self.error = error

    def step(self) -> float:
        self.steps += 1
        if self.steps >= 3:
            self.done.set()
            return LONG
        if self.error is not None:
            raise self.error
        return 0.0


def _run(recorder: Recorder, finish: Callable[[], None] | None = None) -> PeriodicService:
    service = PeriodicService("s", recorder.step, recorder.telemetry, rest_after_error=0.001, finish=finish)
    service.start()
    assert recorder.done.wait(10)
    return service


def test_it_steps_until_it_is_stopped_in_the_middle_of_a_rest() -> None:
    recorder = Recorder()
    service = _run(recorder)

    service.stop()

    assert service.join(10)
    assert recorder.steps == 3


def test_starting_and_stopping_twice_does_no_harm() -> None:
    recorder = Recorder()
    service = _run(recorder)
    service.start()

    service.stop()
    service.stop()

    assert service.join(10)
    assert recorder.steps == 3


def test_one_that_was_never_started_has_ended() -> None:
    assert PeriodicService("s", lambda: 0.0, Telemetry()).join(0.0)


def test_it_says_when_it_has_not_ended_in_time() -> None:
    service = _run(Recorder())

    assert not service.join(0.0)

    service.stop()
    assert service.join(10)


def test_errors_are_told_and_do_not_end_it() -> None:
    for error in (LedgerUnavailable("gone for a while"), ZeroDivisionError("never thought of")):
        recorder = Recorder(error)

        service = _run(recorder)

        service.stop()
        assert service.join(10)
        assert len(recorder.told) == 2
        assert str(error) in recorder.told[0]


def test_the_end_runs_on_the_same_thread_after_the_last_step() -> None:
    recorder = Recorder()
    threads: list[str] = []
    service = _run(recorder, finish=lambda: threads.append(threading.current_thread().name))
    assert threads == []

    service.stop()
    assert service.join(10)

    assert threads == ["s"]


def test_an_error_at_the_end_is_told() -> None:
    recorder = Recorder()

    def finish() -> None:
        raise LedgerUnavailable("gone")

    service = _run(recorder, finish)
    service.stop()

    assert service.join(10)
    assert recorder.told == ["LedgerUnavailable: gone"]
