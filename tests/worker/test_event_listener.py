"""Events beside polls: the same path to the ledger, whatever order, number and delay they come in."""

from __future__ import annotations

import itertools
import json
import random
from typing import Any

import pytest

from ecs_queue.ecs.event_queue import MAX_BATCH_SIZE, EventMessage
from ecs_queue.errors import LedgerUnavailable
from ecs_queue.journal import JournalEvent
from ecs_queue.journal.codec import encode_event
from ecs_queue.protocol import decisions
from ecs_queue.protocol.ecs_results import StopTaskResult
from ecs_queue.protocol.event_health import (
    DISTRUST_SECONDS,
    LATE_AFTER,
    UNREAD_AFTER,
    EventFact,
    EventFactKind,
)
from ecs_queue.protocol.polling import FIRST_POLL_DELAY, TRUSTED_POLL_INTERVAL
from ecs_queue.protocol.record import Record
from ecs_queue.protocol.record_defects import find_record_defect
from ecs_queue.protocol.runs import RunEnd
from ecs_queue.protocol.states import State
from ecs_queue.replay.decisions import compare_decision
from ecs_queue.worker.event_listener import find_event_queues
from ecs_queue.worker.poll_schedule import EventAwareSchedule
from tests.fake_ecs import LostResult
from tests.fake_event_queue import build_event_message
from tests.worker.event_listener_harness import SOURCE, URL, EventListenerHarness
from tests.worker.harness import TARGET, WorkerHarness
from tests.worker.warm_harness import WARM, settle, start


@pytest.fixture
def harness() -> EventListenerHarness:
    return EventListenerHarness()


class TestEnds:
    def test_an_event_ends_a_request_without_a_describe(self, harness: EventListenerHarness) -> None:
        arn = harness.launch()
        harness.ecs.mark_running(arn)
        harness.ecs.finish(arn, exit_code=3)

        harness.deliver_events()

        record = harness.record()
        assert (record.state, record.exit_code) == (State.FAILED, 3)
        assert harness.published_results == [record]
        assert harness.ecs.describe_calls == []
        assert len(harness.event_queue) == 0

    def test_doubled_and_reordered_events_give_the_same_end_once(self) -> None:
        rng = random.Random(4)
        for _ in range(30):
            harness = EventListenerHarness()
            arn = harness.launch()
            harness.ecs.mark_running(arn)
            harness.ecs.finish(arn, exit_code=3)
            harness.pending_events *= rng.choice((1, 2, 3))
            rng.shuffle(harness.pending_events)
            for message in [harness.pending_events.pop() for _ in range(len(harness.pending_events))]:
                harness.event_queue.send(message)
                harness.listen()

            assert (harness.state(), harness.record().exit_code) == (State.FAILED, 3)
            assert len(harness.published_results) == 1
            assert harness.record().started_at > 0

    def test_an_old_event_changes_nothing_after_a_newer_poll(self, harness: EventListenerHarness) -> None:
        arn = harness.launch()
        harness.ecs.mark_running(arn)
        harness.ecs._update_task(arn, lastStatus="DEPROVISIONING", desiredStatus="STOPPED")
        harness.advance(1)
        before = harness.record()

        harness.deliver_events()

        assert harness.record() == before

    def test_an_event_of_an_earlier_launch_is_none_of_the_present_one(self, harness: EventListenerHarness) -> None:
        arn = harness.launch(relaunch="any_failure")
        harness.ecs.finish(arn, exit_code=1)
        late = list(harness.pending_events)
        harness.deliver_events()
        harness.advance_in_steps(120)
        assert (harness.state(), harness.record().launch) == (State.LAUNCHED, 2)
        before = harness.record()

        harness.event_queue.send(*late)
        harness.listen()

        assert harness.record() == before
        assert len(harness.ecs.run_task_calls) == 2

    def test_a_retry_follows_from_an_event_as_from_a_poll(self, harness: EventListenerHarness) -> None:
        harness.ecs.fail_to_start(harness.launch())

        harness.deliver_events()

        record = harness.record()
        assert (record.state, record.launch, record.attempt) == (State.QUEUED, 2, 2)


class TestBeforeLaunchIsRecorded:
    def test_an_event_reports_a_launch_whose_result_was_lost(self, harness: EventListenerHarness) -> None:
        harness.ecs.run_task_results.append(LostResult.IMMEDIATE)
        harness.worker.handle_message(harness.new_envelope())
        assert harness.state() is State.LAUNCHING
        (arn,) = harness.ecs.tasks
        harness.ecs.mark_running(arn)

        harness.deliver_events()

        record = harness.record()
        assert (record.state, record.arn, record.last_status) == (State.LAUNCHED, arn, "RUNNING")
        assert harness.worker.emitted("launch.task_found") == [{"id": "a", "launch": 1, "arn": arn}]
        assert harness.ecs.list_calls == []

    def test_an_end_that_comes_before_the_result_of_run_task_counts(self, harness: EventListenerHarness) -> None:
        def event_first(*_: object) -> None:
            harness.ecs.finish(next(iter(harness.ecs.tasks)))
            harness.deliver_events()

        def hook(operation: str, when: str) -> None:
            if (operation, when) == ("launched", "before") and harness.ecs.tasks and not harness.published_results:
                harness.ledger.on_call = lambda operation, when: None
                event_first()

        harness.ledger.on_call = hook
        harness.worker.handle_message(harness.new_envelope())

        assert harness.state() is State.SUCCESS
        assert harness.published_results == [harness.record()]
        assert harness.ecs.stop_calls == []
        assert harness.worker.emitted("launch.unwanted") == []

    @pytest.mark.parametrize(
        "changes",
        [
            {"startedBy": "ecs-queue/a/00000000/1"},
            {"startedBy": "ecs-queue/a/NONCE/2"},
            {"startedBy": "ecs-queue/unknown/NONCE/1"},
            {"taskArn": "arn:aws:ecs:us-east-1:123456789012:task/others/1"},
            {"taskArn": "arn:aws:ecs:eu-west-1:123456789012:task/jobs/1"},
            {"taskArn": "no arn"},
        ],
    )
    def test_only_what_was_launched_there_under_this_number_is_adopted(
        self, harness: EventListenerHarness, changes: dict[str, str]
    ) -> None:
        harness.ecs.run_task_results.append(LostResult.NO_EFFECT)
        harness.worker.handle_message(harness.new_envelope())
        before = harness.record()
        nonce = before.nonce
        task = {
            "taskArn": "arn:aws:ecs:us-east-1:123456789012:task/jobs/1",
            "startedBy": f"ecs-queue/a/{nonce}/1",
            "lastStatus": "RUNNING",
            "version": 3,
            **{name: value.replace("NONCE", nonce) for name, value in changes.items()},
        }

        harness.event_queue.send(build_event_message(task, harness.clock()))
        harness.listen()

        assert harness.record() == before
        assert len(harness.event_queue) == 0

    def test_an_event_for_a_request_that_was_never_claimed_is_not_believed(self, harness: EventListenerHarness) -> None:
        harness.put_request()
        nonce = harness.record().nonce
        task = {"taskArn": "arn:aws:ecs:us-east-1:123456789012:task/jobs/1", "startedBy": f"ecs-queue/a/{nonce}/1"}

        harness.event_queue.send(build_event_message({**task, "lastStatus": "RUNNING", "version": 3}, harness.clock()))
        harness.listen()

        assert harness.state() is State.QUEUED


class TestMessages:
    def test_foreign_and_undecodable_messages_are_deleted_and_hide_no_other(
        self, harness: EventListenerHarness
    ) -> None:
        arn = harness.launch()
        harness.ecs.finish(arn)
        foreign = {"taskArn": arn, "startedBy": "elsewhere/a/x/1", "lastStatus": "STOPPED", "version": 9}
        harness.event_queue.send(
            "{", json.dumps({"source": "aws.s3", "detail-type": "x"}), build_event_message(foreign, harness.clock())
        )

        harness.deliver_events()

        assert harness.state() is State.SUCCESS
        assert len(harness.event_queue) == 0
        assert harness.worker.emitted("ecs_events.foreign") == [{"events": 2}]
        assert len(harness.worker.emitted("ecs_events.skipped")) == 1

    def test_an_event_whose_task_cannot_be_read_hides_no_other(self, harness: EventListenerHarness) -> None:
        bad, good = harness.launch("bad"), harness.launch("good")
        harness.ecs._update_task(bad, containers=7, lastStatus="STOPPED")
        harness.ecs.finish(good)

        harness.deliver_events()

        assert (harness.state("bad"), harness.state("good")) == (State.LAUNCHED, State.SUCCESS)
        assert len(harness.worker.emitted("ecs_events.skipped")) == 1

    @pytest.mark.parametrize("when", ["before", "after"])
    @pytest.mark.parametrize("operation", ["get_with_payload", "update_tasks"])
    def test_nothing_is_deleted_that_the_ledger_has_not(
        self, harness: EventListenerHarness, operation: str, when: str
    ) -> None:
        harness.ecs.finish(harness.launch())
        harness.event_queue.send(*harness.pending_events)
        harness.ledger.fail(operation, when)
        with pytest.raises(LedgerUnavailable):
            harness.listener.step()
        assert len(harness.event_queue) == 1

        harness.clock.advance(30)
        harness.listen()

        assert harness.state() is State.SUCCESS
        assert len(harness.event_queue) == 0

    def test_a_worker_that_dies_before_the_delete_leaves_the_message_to_another(
        self, harness: EventListenerHarness
    ) -> None:
        harness.ecs.finish(harness.launch())
        harness.event_queue.send(*harness.pending_events)
        harness.event_queue.can_delete = False
        assert harness.listener.step() > 0
        assert harness.state() is State.SUCCESS
        harness.event_queue.can_delete = True
        assert harness.event_queue.receive() == []

        harness.clock.advance(30)
        harness.make_listener(harness.new_worker()).step()

        assert len(harness.event_queue) == 0
        assert len(harness.published_results) == 1

    def test_several_readers_share_the_events_of_many_tasks(self, harness: EventListenerHarness) -> None:
        arns = [harness.launch(f"t{number}") for number in range(40)]
        for arn in arns:
            harness.ecs.mark_running(arn)
            harness.ecs.finish(arn)
        random.Random(1).shuffle(harness.pending_events)
        harness.event_queue.send(*harness.pending_events, *harness.pending_events[:30])
        readers = [
            harness.make_listener(worker) for worker in (harness.worker, harness.new_worker(), harness.new_worker())
        ]

        for reader in itertools.islice(itertools.cycle(readers), 12):
            reader.step()

        assert len(harness.event_queue) == 0
        assert {harness.state(f"t{number}") for number in range(40)} == {State.SUCCESS}
        assert sorted(record.id for record in harness.published_results) == sorted(f"t{number}" for number in range(40))

    def test_an_error_of_the_queue_is_reported_and_retried_with_growing_waits(
        self, harness: EventListenerHarness
    ) -> None:
        harness.event_queue.is_unavailable = True
        rests = [harness.listener.step() for _ in range(9)]
        assert rests == [1, 2, 4, 8, 16, 32, 60, 60, 60]
        assert len(harness.worker.emitted("ecs_events.receive_failed")) == 9

        harness.event_queue.is_unavailable = False
        assert harness.listener.step() < 1
        harness.event_queue.is_unavailable = True
        assert harness.listener.step() == 1

    def test_a_queue_that_returns_at_once_is_not_read_without_a_delay(self, harness: EventListenerHarness) -> None:
        assert harness.listener.step() == 0.5

    def test_a_receipt_that_was_not_full_is_followed_by_a_rest_and_a_full_one_by_the_next(
        self, harness: EventListenerHarness
    ) -> None:
        for number in range(MAX_BATCH_SIZE + 2):
            harness.ecs.mark_running(harness.launch(f"t{number}"))
        assert len(harness.pending_events) == MAX_BATCH_SIZE + 2
        harness.event_queue.send(*harness.pending_events)

        assert harness.listener.step() == 0.0
        assert 0.0 < harness.listener.step() < 1.0
        assert len(harness.event_queue) == 0

    def test_after_a_long_wait_for_its_messages_the_next_receipt_comes_at_once(
        self, harness: EventListenerHarness, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        arn = harness.launch("t1")
        harness.ecs.mark_running(arn)
        harness.event_queue.send(*harness.pending_events)
        receive = harness.event_queue.receive

        def wait_and_receive() -> list[EventMessage]:
            harness.clock.advance(3.0)
            return receive()

        monkeypatch.setattr(harness.event_queue, "receive", wait_and_receive)
        assert harness.listener.step() == 0.0

    def test_the_number_of_tasks_in_flight_is_known_though_no_poll_is_due(self, harness: EventListenerHarness) -> None:
        harness.trust_events()
        for number in range(3):
            harness.launch(f"t{number}")
        harness.clock.advance(6.0)
        assert harness.memory_ledger.lease_due(10) == []

        harness.worker.poller.step()

        assert harness.poll_schedule.in_flight == 3


class TestStops:
    def test_a_stop_that_is_marked_is_ordered_at_an_event_too(self, harness: EventListenerHarness) -> None:
        arn = harness.launch()
        harness.ecs.stop_task_results.append(StopTaskResult())
        harness.memory_ledger.stop(["a"], "ann")
        harness.ecs.mark_running(arn)

        harness.deliver_events()

        assert [stopped for stopped, _ in harness.ecs.stop_calls] == [arn]

    def test_a_time_limit_holds_though_polls_are_rare(self, harness: EventListenerHarness) -> None:
        harness.trust_events()
        arn = harness.launch(time_limit=40)
        harness.ecs.mark_running(arn)
        harness.deliver_events()
        harness.advance_in_steps(39)
        assert harness.ecs.stop_calls == []

        harness.advance_in_steps(3)

        assert [stopped for stopped, _ in harness.ecs.stop_calls] == [arn]
        assert len(harness.ecs.describe_calls) <= 2

    def test_a_task_that_has_not_started_is_stopped_when_it_expires(self, harness: EventListenerHarness) -> None:
        harness.trust_events()
        arn = harness.launch(expires_in=70)
        harness.ecs._update_task(arn, lastStatus="PENDING")
        harness.deliver_events()

        harness.advance_in_steps(72)

        assert [stopped for stopped, _ in harness.ecs.stop_calls] == [arn]
        assert len(harness.ecs.describe_calls) <= 2


class TestPolls:
    def test_without_events_a_task_is_polled_as_ever(self, harness: EventListenerHarness) -> None:
        harness.launch()
        harness.advance_in_steps(20)
        assert len(harness.ecs.describe_calls) == 20

    def test_a_task_whose_events_arrive_is_hardly_ever_polled(self, harness: EventListenerHarness) -> None:
        harness.trust_events()
        arn = harness.launch()
        harness.ecs.mark_running(arn)
        harness.deliver_events()
        for _ in range(20):
            harness.advance_in_steps(60, step=2)
            harness.trust_events()
        assert 3 <= len(harness.ecs.describe_calls) <= 1200 / TRUSTED_POLL_INTERVAL + 1

    def test_tasks_that_run_side_by_side_are_polled_together(self, harness: EventListenerHarness) -> None:
        harness.trust_events()
        for number in range(20):
            harness.ecs.mark_running(harness.launch(f"t{number}"))
            harness.deliver_events()
            harness.clock.advance(1)
        harness.advance_in_steps(TRUSTED_POLL_INTERVAL, step=2)
        assert [len(arns) for arns in harness.ecs.describe_calls] == [20]

    def test_the_first_poll_waits_for_events_only_while_they_are_trusted(self, harness: EventListenerHarness) -> None:
        record = Record(id="a", queue="default")
        arn = "arn:aws:ecs:us-east-1:123456789012:task/jobs/1"
        assert harness.poll_schedule.first_poll_delay(record, arn) == FIRST_POLL_DELAY
        harness.trust_events()
        assert harness.poll_schedule.first_poll_delay(record, arn) > FIRST_POLL_DELAY
        assert harness.poll_schedule.first_poll_delay(record, arn.replace("/jobs/", "/others/")) == FIRST_POLL_DELAY

    def test_an_end_that_only_a_poll_has_seen_ends_the_trust_of_all_workers(
        self, harness: EventListenerHarness
    ) -> None:
        harness.trust_events()
        arns = [harness.launch(f"t{number}") for number in range(3)]
        for arn in arns:
            harness.ecs.mark_running(arn)
        harness.deliver_events()
        other = harness.new_worker()
        assert isinstance(other.poll_schedule, EventAwareSchedule)
        other.poll_schedule.step()
        harness.ecs.finish(arns[0])
        harness.pending_events.clear()  # the event is lost
        harness.clock.advance(LATE_AFTER)

        waited = 0
        while harness.state("t0") is State.LAUNCHED:
            harness.advance(2)
            waited += 2
        assert waited <= TRUSTED_POLL_INTERVAL + 2

        harness.ecs.finish(arns[1])
        other.poll_schedule.step()
        harness.advance_in_steps(15)
        assert harness.state("t1") is State.SUCCESS
        assert (
            harness.worker.emitted("ecs_events.distrusted")
            == other.emitted("ecs_events.distrusted")
            == [{"source": SOURCE}]
        )

    def test_when_no_worker_reads_the_queue_any_more_tasks_are_polled(self, harness: EventListenerHarness) -> None:
        harness.trust_events()
        arn = harness.launch()
        harness.ecs.mark_running(arn)
        harness.deliver_events()
        harness.event_queue.is_unavailable = True
        harness.advance_in_steps(UNREAD_AFTER - 2, step=2)
        assert harness.ecs.describe_calls == []
        harness.ecs.finish(arn)

        harness.advance_in_steps(20, step=2)

        assert harness.state() is State.SUCCESS
        assert harness.worker.emitted("ecs_events.distrusted") == [{"source": SOURCE}]

    def test_trust_comes_back_with_events_in_time(self, harness: EventListenerHarness) -> None:
        harness.memory_ledger.record_event_facts([EventFact(SOURCE, EventFactKind.MISSED, harness.clock())])
        arn = harness.launch()
        harness.clock.advance(DISTRUST_SECONDS - 1)
        harness.ecs.mark_running(arn)
        harness.deliver_events()
        assert harness.worker.emitted("ecs_events.trusted") == []

        harness.clock.advance(1)
        harness.poll_schedule.step()
        assert harness.worker.emitted("ecs_events.trusted") == [{"source": SOURCE}]

    def test_late_events_are_not_trusted_and_a_repeated_old_event_does_no_harm(
        self, harness: EventListenerHarness
    ) -> None:
        harness.trust_events()
        arn = harness.launch()
        harness.ecs.mark_running(arn)
        late = list(harness.pending_events)
        harness.clock.advance(LATE_AFTER + 1)
        harness.deliver_events()
        assert len(harness.worker.emitted("ecs_events.distrusted")) == 1
        before = harness.memory_ledger.get_event_health()[SOURCE]

        harness.clock.advance(100)
        harness.event_queue.send(*late)
        harness.listen()
        assert harness.memory_ledger.get_event_health()[SOURCE] == before


class TestLost:
    def test_a_lost_task_is_unknown_only_after_the_events_queue_was_drained(
        self, harness: EventListenerHarness
    ) -> None:
        harness.is_listening = False
        arn = harness.launch()
        harness.ecs.hidden_arns.add(arn)
        harness.advance_in_steps(1000, step=5)
        assert harness.state() is State.LAUNCHED

        harness.listener.step()  # nothing there
        harness.poll_schedule.step()
        harness.advance_in_steps(20, step=5)
        assert harness.state() is State.UNKNOWN

    def test_an_end_that_waits_in_the_queue_wins(self, harness: EventListenerHarness) -> None:
        harness.is_listening = False
        arn = harness.launch()
        harness.ecs.hidden_arns.add(arn)
        harness.ecs.finish(arn, exit_code=3)
        harness.advance_in_steps(1000, step=5)

        harness.deliver_events()

        assert (harness.state(), harness.record().exit_code) == (State.FAILED, 3)

    def test_a_queue_that_was_empty_before_proves_nothing(self, harness: EventListenerHarness) -> None:
        harness.is_listening = False
        arn = harness.launch()
        harness.listener.step()
        harness.poll_schedule.step()
        harness.ecs.hidden_arns.add(arn)
        harness.advance_in_steps(1000, step=5)
        assert harness.state() is State.LAUNCHED

    def test_after_a_day_no_worker_waits_for_an_event_any_more(self, harness: EventListenerHarness) -> None:
        harness.is_listening = False
        arn = harness.launch()
        harness.ecs.hidden_arns.add(arn)
        harness.advance_in_steps(90_000, step=30)
        assert harness.state() is State.UNKNOWN


def test_each_queue_of_the_configuration_is_read_with_its_own_profile() -> None:
    other = URL.replace("us-east-1", "eu-west-1")
    environ = {
        "AIRFLOW__AWS_ECS_EXECUTOR_THERE__EVENT_QUEUE_URL": other,
        "AIRFLOW__AWS_ECS_EXECUTOR_HERE__WEIGHT": "2",
    }
    harness = WorkerHarness(environ, event_queue_url=URL)
    asked: list[str] = []

    def target_for(queue: str) -> Any:
        asked.append(queue)
        return TARGET

    harness.worker.target_for = target_for
    assert find_event_queues(harness.worker.context, ["default"]) == {URL: TARGET, other: TARGET}
    assert asked == ["default", "there"]


def test_the_end_of_a_runners_task_ends_the_request_that_it_serves_by_then_at_once() -> None:
    harness = EventListenerHarness(WARM)
    runner = start(harness)
    runner.next(RunEnd(turn=1, exit_code=0))
    settle(harness)
    harness.launch("b")
    runner.next(RunEnd(turn=1, exit_code=0))
    harness.ecs.finish(runner.arn, exit_code=0)

    harness.deliver_events()
    assert harness.state("b") is State.FAILED
    assert "the runner stopped before it reported" in harness.record("b").reason
    assert harness.ecs.describe_calls == []


def test_the_end_of_an_idle_runners_task_ends_nothing() -> None:
    harness = EventListenerHarness(WARM)
    runner = start(harness)
    runner.next(RunEnd(turn=1, exit_code=0))
    settle(harness)
    harness.ecs.finish(runner.arn, exit_code=1)

    harness.deliver_events()
    assert harness.state() is State.SUCCESS


def test_without_an_events_queue_nothing_is_read() -> None:
    assert find_event_queues(WorkerHarness().worker.context, ["default"]) == {}


def test_a_decision_made_while_events_are_trusted_is_decided_again_just_the_same(
    harness: EventListenerHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    harness.trust_events()
    harness.ecs.mark_running(harness.launch())
    harness.deliver_events()
    (fields,) = harness.worker.emitted("decision.poll")
    assert fields["poll_input"].event_health is not None
    data = json.loads(encode_event(1.0, "decision.poll", fields))["data"]
    recorded = JournalEvent(v=1, seq="1-0.0", at=1.0, name="decision.poll", id="a", data=data)

    assert compare_decision(recorded) is None
    monkeypatch.setattr(decisions, "trusted_poll_wait", lambda *inputs: 1.0)
    found = compare_decision(recorded)
    assert found is not None
    assert found.rule.endswith("trusted_poll_wait")


@pytest.mark.parametrize(
    "changes",
    [{"version": 10**13}, {"containers": 5}, {"startedAt": 10**400}, {"updatedAt": 10**400}, {"stoppedAt": -1}],
    ids=["version", "containers", "start", "time of the event", "end"],
)
def test_an_event_that_no_record_can_hold_stops_no_other_and_breaks_no_record(
    harness: EventListenerHarness, changes: dict[str, Any]
) -> None:
    arn = harness.launch()
    harness.ecs.finish(arn, exit_code=3)
    (message,) = harness.pending_events
    changed = json.loads(message)
    changed["detail"] |= changes
    harness.pending_events = [json.dumps(changed), message, json.dumps(changed)]

    harness.deliver_events()

    assert len(harness.event_queue) == 0
    record = harness.record()
    assert find_record_defect(record) == ""
    assert (record.state, record.exit_code) == (State.FAILED, 3)
