"""Tasks that a worker polls from memory."""

from __future__ import annotations

import pytest

from ecs_queue.protocol.ecs_results import EcsError, EcsErrorKind
from ecs_queue.protocol.record import Record
from ecs_queue.protocol.states import State
from ecs_queue.worker.held_tasks import HeldTasks
from tests.fake_clock import FakeClock
from tests.worker.harness import WorkerHarness

LEASE = 30.0


@pytest.fixture
def harness() -> WorkerHarness:
    return WorkerHarness()


def _leases(harness: WorkerHarness) -> list[str]:
    """The ledger's operations of the poller from now on."""
    calls: list[str] = []
    names = ("reschedule_poll", "update_tasks", "lease_due")
    harness.ledger.on_call = lambda name, when: calls.append(name) if name in names and when == "before" else None
    return calls


class TestPolls:
    def test_a_young_task_is_polled_every_second_and_leased_every_five(self, harness: WorkerHarness) -> None:
        arn = harness.launch()
        harness.ecs.mark_running(arn)
        harness.advance(1)
        calls = _leases(harness)

        harness.advance_in_steps(20)

        assert len(harness.ecs.describe_calls) == 21
        assert calls.count("reschedule_poll") == 4

    def test_an_end_is_seen_a_second_later(self, harness: WorkerHarness) -> None:
        arn = harness.launch()
        harness.ecs.mark_running(arn)
        harness.advance_in_steps(3)
        harness.ecs.finish(arn, exit_code=3)

        harness.advance(1)

        assert (harness.record().state, harness.record().exit_code) == (State.FAILED, 3)
        assert not len(harness.worker.context.held_tasks)

    def test_a_stop_is_seen_at_once_by_any_worker(self, harness: WorkerHarness) -> None:
        harness.ecs.mark_running(harness.launch())
        harness.advance(1)
        harness.memory_ledger.stop(["a"], "ann")

        harness.new_worker().poll()

        assert [reason for _, reason in harness.ecs.stop_calls] == ["ecs-queue: stopped by ann"]

    def test_after_a_stop_by_another_worker_the_end_is_revoked(self, harness: WorkerHarness) -> None:
        harness.ecs.mark_running(harness.launch())
        harness.advance(1)
        harness.memory_ledger.stop(["a"], "ann")
        harness.new_worker().poll()

        harness.advance_in_steps(3)

        assert harness.state() is State.REVOKED
        assert harness.published_results == [harness.record()]

    def test_another_worker_takes_over_from_one_that_died(self, harness: WorkerHarness) -> None:
        arn = harness.launch()
        harness.ecs.mark_running(arn)
        harness.advance(1)
        harness.worker = harness.new_worker()
        harness.ecs.finish(arn)

        harness.advance_in_steps(5)

        assert harness.state() is State.SUCCESS

    def test_a_worker_that_stops_gives_back_what_it_holds(self, harness: WorkerHarness) -> None:
        harness.launch()
        other = harness.new_worker()

        harness.worker.poller.give_back()
        harness.clock.advance(0.1)
        other.poll()

        assert len(harness.ecs.describe_calls) == 1
        assert not len(harness.worker.context.held_tasks)

    def test_what_ended_elsewhere_is_let_go(self, harness: WorkerHarness) -> None:
        arn = harness.launch()
        harness.ecs.finish(arn)
        harness.clock.advance(5)
        harness.new_worker().poll()
        assert harness.state() is State.SUCCESS

        harness.advance(1)

        assert harness.published_results == [harness.record()]
        assert not len(harness.worker.context.held_tasks)

    def test_a_failed_call_is_repeated_from_memory(self, harness: WorkerHarness) -> None:
        harness.ecs.mark_running(harness.launch())
        harness.advance(1)
        harness.ecs.describe_error = EcsError(EcsErrorKind.UNAVAILABLE, "ECS does not answer")
        calls = _leases(harness)

        harness.advance_in_steps(3)

        assert "reschedule_poll" not in calls
        assert len(harness.ecs.describe_calls) == 3


class TestWhatIsHeld:
    @pytest.mark.parametrize(
        "fields", [{"run": "a.n.1"}, {"stop_requested_by": "ann"}, {"spec_version": 0}], ids=lambda fields: min(fields)
    )
    def test_other_records_are_not(self, fields: dict[str, object]) -> None:
        record = Record(id="a", **{"spec_version": 1, **fields})  # type: ignore[arg-type]
        assert HeldTasks(FakeClock(), LEASE).ledger_wait(record, 1.0) == 1.0

    def test_nothing_is_where_events_report_changes(self) -> None:
        held = HeldTasks(FakeClock(), LEASE, is_enabled=False)
        assert held.ledger_wait(Record(id="a", spec_version=1), 1.0) == 1.0

    @pytest.mark.parametrize(
        ("wait", "lease", "expected"), [(1, 30, 5), (2, 30, 10), (5, 30, 10), (10, 30, 10), (60, 30, 60), (1, 3, 3)]
    )
    def test_the_ledger_waits_for_some_polls_and_not_for_long(self, wait: float, lease: float, expected: float) -> None:
        assert HeldTasks(FakeClock(), lease).ledger_wait(Record(id="a", spec_version=1), wait) == expected

    def test_their_number_is_limited(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("ecs_queue.worker.held_tasks._MAX_HELD", 1)
        clock = FakeClock()
        held, record = HeldTasks(clock, LEASE), Record(id="a", spec_version=1)
        held.hold(record, "here", 1.0, clock() + 5)
        assert held.ledger_wait(record, 1.0) == 1.0

    def test_the_payload_is_not(self) -> None:
        clock = FakeClock()
        held = HeldTasks(clock, LEASE)
        held.hold(Record(id="a", request=b"secret", args="secret"), "here", 1.0, clock() + 5)
        clock.advance(1)
        assert held.take_due() == {"here": [Record(id="a")]}


class TestSchedule:
    def test_a_task_is_taken_once_until_it_is_polled_again(self) -> None:
        clock = FakeClock()
        held = HeldTasks(clock, LEASE)
        held.hold(Record(id="a"), "here", 1.0, clock() + 5)
        assert held.take_due() == {}
        clock.advance(1)
        assert list(held.take_due()) == ["here"]
        assert held.take_due() == {}
        assert held.poll_again("a", 2.0)
        clock.advance(2)
        assert list(held.take_due()) == ["here"]

    def test_it_is_let_go_when_the_ledger_has_it_due_before(self) -> None:
        clock = FakeClock()
        held = HeldTasks(clock, LEASE)
        held.hold(Record(id="a"), "here", 1.0, clock() + 5)
        assert held.poll_again("a", 5.0)
        assert not held.poll_again("a", 1.0)

    def test_what_is_held_anew_is_polled_once(self) -> None:
        clock = FakeClock()
        held = HeldTasks(clock, LEASE)
        held.hold(Record(id="a", version=1), "here", 1.0, clock() + 5)
        held.hold(Record(id="a", version=2), "here", 1.0, clock() + 5)
        clock.advance(1)
        assert held.take_due() == {"here": [Record(id="a", version=2)]}

    def test_what_is_not_polled_again_is_forgotten(self) -> None:
        clock = FakeClock()
        held = HeldTasks(clock, LEASE)
        held.hold(Record(id="a"), "here", 1.0, clock() + 5)
        clock.advance(5)
        held.take_due()
        held.forget_old()
        assert not len(held)

    def test_closed_it_holds_nothing(self) -> None:
        clock = FakeClock()
        held = HeldTasks(clock, LEASE)
        held.hold(Record(id="a", spec_version=1), "here", 1.0, clock() + 5)
        assert held.close() == ["a"]
        assert held.ledger_wait(Record(id="b", spec_version=1), 1.0) == 1.0
