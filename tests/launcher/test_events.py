"""Events beside polls: the same path to the ledger, whatever order, number and delay they come in."""

from __future__ import annotations

import itertools
import json
import random
from typing import Any

import pytest

from ecs_queue.core import decide
from ecs_queue.core.answers import StopAnswer, StopKind
from ecs_queue.core.flow import HOLD, LATE_AFTER, SLOW, UNREAD, Fact, Note, queue_source
from ecs_queue.core.record import Record
from ecs_queue.core.states import State
from ecs_queue.ecs.event_queue import BATCH, EventMessage
from ecs_queue.errors import LedgerUnavailable
from ecs_queue.journal import JournalEvent
from ecs_queue.journal.encode import encode_event
from ecs_queue.journal.offline import compare
from ecs_queue.launcher.events import EventReader, event_queues
from ecs_queue.launcher.pace import FIRST_LOOK, EventPace
from tests.launcher.fake_ecs import Lost
from tests.launcher.fake_events import FakeEventQueue, message_of
from tests.launcher.lab import TARGET, Lab, Worker

URL = "https://sqs.us-east-1.amazonaws.com/123456789012/events"
SOURCE = f"us-east-1/123456789012/jobs@{queue_source(URL)}"


class EventLab(Lab):
    """A lab whose tasks tell of each change of theirs to `heard`, and whose worker reads a queue."""

    def __init__(self) -> None:
        super().__init__(event_queue_url=URL)
        self.events = FakeEventQueue(self.clock)
        self.reader = self.reader_of(self.worker)
        self.heard: list[str] = []
        self.reads = True
        moved = self.ecs._move

        def move(arn: str, **what: Any) -> None:
            moved(arn, **what)
            self.heard.append(message_of(self.ecs.tasks[arn], self.clock()))

        self.ecs._move = move  # type: ignore[method-assign]

    def reader_of(self, worker: Worker) -> EventReader:
        assert isinstance(worker.pace, EventPace)
        return EventReader(worker.parts, worker.tracker.judge, worker.pace, self.events, queue_source(URL))

    @property
    def pace(self) -> EventPace:
        assert isinstance(self.worker.pace, EventPace)
        return self.worker.pace

    def deliver(self) -> None:
        """What was heard comes into the queue, and is read."""
        self.events.send(*self.heard)
        self.heard.clear()
        self.read()

    def read(self) -> None:
        while len(self.events) and self.reader.step() == 0.0 and self.reader_of(self.worker).step() == 0.0:
            pass
        self.pace.step()

    def later(self, seconds: float) -> None:
        """The worker reads its events, too."""
        super().later(seconds)
        if self.reads:
            self.reader.step()
            self.pace.step()

    def trusted(self) -> None:
        """Events have come lately."""
        self.memory.note_events([Note(SOURCE, Fact.TIMELY, self.clock())])
        self.pace.step()


@pytest.fixture
def lab() -> EventLab:
    return EventLab()


class TestEnds:
    def test_an_event_ends_a_request_without_a_describe(self, lab: EventLab) -> None:
        arn = lab.launched()
        lab.ecs.run(arn)
        lab.ecs.end(arn, exit_code=3)

        lab.deliver()

        record = lab.record()
        assert (record.state, record.exit_code) == (State.FAILED, 3)
        assert lab.published == [record]
        assert lab.ecs.described == []
        assert len(lab.events) == 0
        assert len(lab.worker.parts.in_flight) == 0

    def test_doubled_and_reordered_events_give_the_same_end_once(self) -> None:
        rng = random.Random(4)
        for _ in range(30):
            lab = EventLab()
            arn = lab.launched()
            lab.ecs.run(arn)
            lab.ecs.end(arn, exit_code=3)
            lab.heard *= rng.choice((1, 2, 3))
            rng.shuffle(lab.heard)
            for message in [lab.heard.pop() for _ in range(len(lab.heard))]:
                lab.events.send(message)
                lab.read()

            assert (lab.state(), lab.record().exit_code) == (State.FAILED, 3)
            assert len(lab.published) == 1
            assert lab.record().started_at > 0

    def test_an_old_event_changes_nothing_after_a_newer_poll(self, lab: EventLab) -> None:
        arn = lab.launched()
        lab.ecs.run(arn)
        lab.ecs._move(arn, lastStatus="DEPROVISIONING", desiredStatus="STOPPED")
        lab.later(1)
        before = lab.record()

        lab.deliver()

        assert lab.record() == before

    def test_an_event_of_an_earlier_launch_is_none_of_the_present_one(self, lab: EventLab) -> None:
        arn = lab.launched(relaunch="any_failure")
        lab.ecs.end(arn, exit_code=1)
        late = list(lab.heard)
        lab.deliver()
        lab.pass_time(120)
        assert (lab.state(), lab.record().launch) == (State.LAUNCHED, 2)
        before = lab.record()

        lab.events.send(*late)
        lab.read()

        assert lab.record() == before
        assert len(lab.ecs.calls) == 2

    def test_a_retry_follows_from_an_event_as_from_a_poll(self, lab: EventLab) -> None:
        lab.ecs.fail_to_start(lab.launched())

        lab.deliver()

        record = lab.record()
        assert (record.state, record.launch, record.attempt) == (State.QUEUED, 2, 2)


class TestBeforeLaunched:
    def test_an_event_tells_of_a_launch_whose_answer_was_lost(self, lab: EventLab) -> None:
        lab.ecs.answers.append(Lost.AFTER)
        lab.worker.take(lab.body())
        assert lab.state() is State.LAUNCHING
        (arn,) = lab.ecs.tasks
        lab.ecs.run(arn)

        lab.deliver()

        record = lab.record()
        assert (record.state, record.arn, record.last_status) == (State.LAUNCHED, arn, "RUNNING")
        assert lab.worker.told("launch.found") == [{"id": "a", "launch": 1, "arn": arn}]
        assert lab.ecs.listed == []

    def test_an_end_that_comes_before_the_answer_of_run_task_counts(self, lab: EventLab) -> None:
        def event_first(*_: object) -> None:
            lab.ecs.end(next(iter(lab.ecs.tasks)))
            lab.deliver()

        def hook(operation: str, when: str) -> None:
            if (operation, when) == ("launched", "before") and lab.ecs.tasks and not lab.published:
                lab.ledger.on_call = lambda operation, when: None
                event_first()

        lab.ledger.on_call = hook
        lab.worker.take(lab.body())

        assert lab.state() is State.SUCCESS
        assert lab.published == [lab.record()]
        assert lab.ecs.stopped == []
        assert lab.worker.told("launch.stray") == []

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
        self, lab: EventLab, changes: dict[str, str]
    ) -> None:
        lab.ecs.answers.append(Lost.BEFORE)
        lab.worker.take(lab.body())
        before = lab.record()
        nonce = before.nonce
        task = {
            "taskArn": "arn:aws:ecs:us-east-1:123456789012:task/jobs/1",
            "startedBy": f"ecs-queue/a/{nonce}/1",
            "lastStatus": "RUNNING",
            "version": 3,
            **{name: value.replace("NONCE", nonce) for name, value in changes.items()},
        }

        lab.events.send(message_of(task, lab.clock()))
        lab.read()

        assert lab.record() == before
        assert len(lab.events) == 0

    def test_an_event_for_a_request_that_was_never_claimed_is_not_believed(self, lab: EventLab) -> None:
        lab.put()
        nonce = lab.record().nonce
        task = {"taskArn": "arn:aws:ecs:us-east-1:123456789012:task/jobs/1", "startedBy": f"ecs-queue/a/{nonce}/1"}

        lab.events.send(message_of({**task, "lastStatus": "RUNNING", "version": 3}, lab.clock()))
        lab.read()

        assert lab.state() is State.QUEUED


class TestMessages:
    def test_foreign_and_undecodable_messages_are_deleted_and_hide_no_other(self, lab: EventLab) -> None:
        arn = lab.launched()
        lab.ecs.end(arn)
        foreign = {"taskArn": arn, "startedBy": "elsewhere/a/x/1", "lastStatus": "STOPPED", "version": 9}
        lab.events.send("{", json.dumps({"source": "aws.s3", "detail-type": "x"}), message_of(foreign, lab.clock()))

        lab.deliver()

        assert lab.state() is State.SUCCESS
        assert len(lab.events) == 0
        assert lab.worker.told("event.foreign") == [{"events": 2}]
        assert len(lab.worker.told("event.unusable")) == 1

    def test_an_event_whose_task_nobody_can_read_hides_no_other(self, lab: EventLab) -> None:
        bad, good = lab.launched("bad"), lab.launched("good")
        lab.ecs._move(bad, containers=7, lastStatus="STOPPED")
        lab.ecs.end(good)

        lab.deliver()

        assert (lab.state("bad"), lab.state("good")) == (State.LAUNCHED, State.SUCCESS)
        assert len(lab.worker.told("event.unusable")) == 1

    @pytest.mark.parametrize("when", ["before", "after"])
    @pytest.mark.parametrize("operation", ["get", "outcomes"])
    def test_nothing_is_deleted_that_the_ledger_has_not(self, lab: EventLab, operation: str, when: str) -> None:
        lab.ecs.end(lab.launched())
        lab.events.send(*lab.heard)
        lab.ledger.fail(operation, when)
        with pytest.raises(LedgerUnavailable):
            lab.reader.step()
        assert len(lab.events) == 1

        lab.clock.advance(30)
        lab.read()

        assert lab.state() is State.SUCCESS
        assert len(lab.events) == 0

    def test_a_worker_that_dies_before_the_delete_leaves_the_message_to_another(self, lab: EventLab) -> None:
        lab.ecs.end(lab.launched())
        lab.events.send(*lab.heard)
        lab.events.deletes = False
        assert lab.reader.step() > 0
        assert lab.state() is State.SUCCESS
        lab.events.deletes = True
        assert lab.events.receive() == []

        lab.clock.advance(30)
        lab.reader_of(lab.new_worker()).step()

        assert len(lab.events) == 0
        assert len(lab.published) == 1

    def test_several_readers_share_the_events_of_many_tasks(self, lab: EventLab) -> None:
        arns = [lab.launched(f"t{number}") for number in range(40)]
        for arn in arns:
            lab.ecs.run(arn)
            lab.ecs.end(arn)
        random.Random(1).shuffle(lab.heard)
        lab.events.send(*lab.heard, *lab.heard[:30])
        readers = [lab.reader_of(worker) for worker in (lab.worker, lab.new_worker(), lab.new_worker())]

        for reader in itertools.islice(itertools.cycle(readers), 12):
            reader.step()

        assert len(lab.events) == 0
        assert {lab.state(f"t{number}") for number in range(40)} == {State.SUCCESS}
        assert sorted(record.id for record in lab.published) == sorted(f"t{number}" for number in range(40))

    def test_trouble_with_the_queue_is_told_and_rested_from_longer_and_longer(self, lab: EventLab) -> None:
        lab.events.down = True
        rests = [lab.reader.step() for _ in range(9)]
        assert rests == [1, 2, 4, 8, 16, 32, 60, 60, 60]
        assert len(lab.worker.told("events.trouble")) == 9

        lab.events.down = False
        assert lab.reader.step() < 1
        lab.events.down = True
        assert lab.reader.step() == 1

    def test_a_queue_that_answers_at_once_is_not_asked_without_a_rest(self, lab: EventLab) -> None:
        assert lab.reader.step() == 0.5

    def test_a_receipt_that_was_not_full_is_followed_by_a_rest_and_a_full_one_by_the_next(self, lab: EventLab) -> None:
        for number in range(BATCH + 2):
            lab.ecs.run(lab.launched(f"t{number}"))
        assert len(lab.heard) == BATCH + 2
        lab.events.send(*lab.heard)

        assert lab.reader.step() == 0.0
        assert 0.0 < lab.reader.step() < 1.0
        assert len(lab.events) == 0

    def test_after_a_long_wait_for_its_messages_the_next_receipt_comes_at_once(
        self, lab: EventLab, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        arn = lab.launched("t1")
        lab.ecs.run(arn)
        lab.events.send(*lab.heard)
        receive = lab.events.receive

        def wait_and_receive() -> list[EventMessage]:
            lab.clock.advance(3.0)
            return receive()

        monkeypatch.setattr(lab.events, "receive", wait_and_receive)
        assert lab.reader.step() == 0.0

    def test_how_many_tasks_are_followed_is_known_though_no_look_is_due(self, lab: EventLab) -> None:
        lab.trusted()
        for number in range(3):
            lab.launched(f"t{number}")
        lab.clock.advance(6.0)
        assert lab.memory.due(10) == []

        lab.worker.tracker.step()

        assert lab.pace.in_flight == 3


class TestStops:
    def test_a_stop_that_is_marked_is_ordered_at_an_event_too(self, lab: EventLab) -> None:
        arn = lab.launched()
        lab.ecs.stop_answers.append(StopAnswer(StopKind.OK))
        lab.memory.stop(["a"], "ann")
        lab.ecs.run(arn)

        lab.deliver()

        assert [stopped for stopped, _ in lab.ecs.stopped] == [arn]

    def test_a_time_limit_holds_though_looks_are_rare(self, lab: EventLab) -> None:
        lab.trusted()
        arn = lab.launched(time_limit=40)
        lab.ecs.run(arn)
        lab.deliver()
        lab.pass_time(39)
        assert lab.ecs.stopped == []

        lab.pass_time(3)

        assert [stopped for stopped, _ in lab.ecs.stopped] == [arn]
        assert len(lab.ecs.described) <= 2

    def test_a_task_that_has_not_started_is_stopped_when_it_expires(self, lab: EventLab) -> None:
        lab.trusted()
        arn = lab.launched(expires_in=70)
        lab.ecs._move(arn, lastStatus="PENDING")
        lab.deliver()

        lab.pass_time(72)

        assert [stopped for stopped, _ in lab.ecs.stopped] == [arn]
        assert len(lab.ecs.described) <= 2


class TestPolls:
    def test_without_events_a_task_is_polled_as_ever(self, lab: EventLab) -> None:
        lab.launched()
        lab.pass_time(20)
        assert len(lab.ecs.described) == 20

    def test_a_task_whose_events_flow_is_hardly_ever_polled(self, lab: EventLab) -> None:
        lab.trusted()
        arn = lab.launched()
        lab.ecs.run(arn)
        lab.deliver()
        for _ in range(20):
            lab.pass_time(60, step=2)
            lab.trusted()
        assert 3 <= len(lab.ecs.described) <= 1200 / SLOW + 1

    def test_tasks_that_run_side_by_side_are_polled_together(self, lab: EventLab) -> None:
        lab.trusted()
        for number in range(20):
            lab.ecs.run(lab.launched(f"t{number}"))
            lab.deliver()
            lab.clock.advance(1)
        lab.pass_time(SLOW, step=2)
        assert [len(arns) for arns in lab.ecs.described] == [20]

    def test_the_first_look_waits_for_events_only_while_they_are_trusted(self, lab: EventLab) -> None:
        record = Record(id="a", queue="default")
        arn = "arn:aws:ecs:us-east-1:123456789012:task/jobs/1"
        assert lab.pace.first_look(record, arn) == FIRST_LOOK
        lab.trusted()
        assert lab.pace.first_look(record, arn) > FIRST_LOOK
        assert lab.pace.first_look(record, arn.replace("/jobs/", "/others/")) == FIRST_LOOK

    def test_an_end_that_only_a_poll_has_seen_ends_the_trust_of_all_workers(self, lab: EventLab) -> None:
        lab.trusted()
        arns = [lab.launched(f"t{number}") for number in range(3)]
        for arn in arns:
            lab.ecs.run(arn)
        lab.deliver()
        other = lab.new_worker()
        assert isinstance(other.pace, EventPace)
        other.pace.step()
        lab.ecs.end(arns[0])
        lab.heard.clear()  # the event is lost
        lab.clock.advance(LATE_AFTER)

        waited = 0
        while lab.state("t0") is State.LAUNCHED:
            lab.later(2)
            waited += 2
        assert waited <= SLOW + 2

        lab.ecs.end(arns[1])
        other.pace.step()
        lab.pass_time(15)
        assert lab.state("t1") is State.SUCCESS
        assert lab.worker.told("events.doubted") == other.told("events.doubted") == [{"source": SOURCE}]

    def test_when_nobody_reads_the_queue_any_more_tasks_are_polled(self, lab: EventLab) -> None:
        lab.trusted()
        arn = lab.launched()
        lab.ecs.run(arn)
        lab.deliver()
        lab.events.down = True
        lab.pass_time(UNREAD - 2, step=2)
        assert lab.ecs.described == []
        lab.ecs.end(arn)

        lab.pass_time(20, step=2)

        assert lab.state() is State.SUCCESS
        assert lab.worker.told("events.doubted") == [{"source": SOURCE}]

    def test_trust_comes_back_with_events_in_time(self, lab: EventLab) -> None:
        lab.memory.note_events([Note(SOURCE, Fact.MISSED, lab.clock())])
        arn = lab.launched()
        lab.clock.advance(HOLD - 1)
        lab.ecs.run(arn)
        lab.deliver()
        assert lab.worker.told("events.trusted") == []

        lab.clock.advance(1)
        lab.pace.step()
        assert lab.worker.told("events.trusted") == [{"source": SOURCE}]

    def test_old_news_is_not_trusted_and_an_old_event_that_is_no_news_does_no_harm(self, lab: EventLab) -> None:
        lab.trusted()
        arn = lab.launched()
        lab.ecs.run(arn)
        late = list(lab.heard)
        lab.clock.advance(LATE_AFTER + 1)
        lab.deliver()
        assert len(lab.worker.told("events.doubted")) == 1
        before = lab.memory.event_flows()[SOURCE]

        lab.clock.advance(100)
        lab.events.send(*late)
        lab.read()
        assert lab.memory.event_flows()[SOURCE] == before


class TestLost:
    def test_a_lost_task_is_unknown_only_after_the_events_queue_was_drained(self, lab: EventLab) -> None:
        lab.reads = False
        arn = lab.launched()
        lab.ecs.hidden.add(arn)
        lab.pass_time(1000, step=5)
        assert lab.state() is State.LAUNCHED

        lab.reader.step()  # nothing there
        lab.pace.step()
        lab.pass_time(20, step=5)
        assert lab.state() is State.UNKNOWN

    def test_an_end_that_waits_in_the_queue_wins(self, lab: EventLab) -> None:
        lab.reads = False
        arn = lab.launched()
        lab.ecs.hidden.add(arn)
        lab.ecs.end(arn, exit_code=3)
        lab.pass_time(1000, step=5)

        lab.deliver()

        assert (lab.state(), lab.record().exit_code) == (State.FAILED, 3)

    def test_a_queue_that_was_empty_before_proves_nothing(self, lab: EventLab) -> None:
        lab.reads = False
        arn = lab.launched()
        lab.reader.step()
        lab.pace.step()
        lab.ecs.hidden.add(arn)
        lab.pass_time(1000, step=5)
        assert lab.state() is State.LAUNCHED

    def test_after_a_day_nobody_waits_for_an_event_any_more(self, lab: EventLab) -> None:
        lab.reads = False
        arn = lab.launched()
        lab.ecs.hidden.add(arn)
        lab.pass_time(90_000, step=30)
        assert lab.state() is State.UNKNOWN


def test_each_queue_of_the_configuration_is_read_with_its_own_profile() -> None:
    other = URL.replace("us-east-1", "eu-west-1")
    environ = {
        "AIRFLOW__AWS_ECS_EXECUTOR_THERE__EVENT_QUEUE_URL": other,
        "AIRFLOW__AWS_ECS_EXECUTOR_HERE__WEIGHT": "2",
    }
    lab = Lab(environ, event_queue_url=URL)
    asked: list[str] = []

    def target_for(queue: str) -> Any:
        asked.append(queue)
        return TARGET

    lab.worker.target_for = target_for
    assert event_queues(lab.worker.parts, ["default"]) == {URL: TARGET, other: TARGET}
    assert asked == ["default", "there"]


def test_without_an_events_queue_nothing_is_read() -> None:
    assert event_queues(Lab().worker.parts, ["default"]) == {}


def test_a_decision_made_while_events_are_trusted_is_decided_again_just_the_same(
    lab: EventLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab.trusted()
    lab.ecs.run(lab.launched())
    lab.deliver()
    (told,) = lab.worker.told("decision.look")
    assert told["look"].flow is not None
    data = json.loads(encode_event(1.0, "decision.look", told))["data"]
    recorded = JournalEvent(v=1, seq="1-0.0", at=1.0, name="decision.look", id="a", data=data)

    assert compare(recorded) is None
    monkeypatch.setattr(decide, "next_look", lambda *inputs: 1.0)
    found = compare(recorded)
    assert found is not None
    assert found.rule.endswith("next_look")
