"""Consuming messages, acknowledging them and giving them back."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import pytest

from ecs_queue.broker.base import Delivery, OnDelivery, OnUndecodable
from ecs_queue.ecs.clients import Target
from ecs_queue.errors import BrokerUnavailable, ConfigError
from ecs_queue.protocol.ecs_results import RunTaskResult, RunTaskResultKind
from ecs_queue.protocol.record import Record
from ecs_queue.protocol.states import State
from ecs_queue.worker.consumer import Consumer
from ecs_queue.worker.fair_queue import Job, JobKind
from tests.worker.harness import FakeDelivery, WorkerHarness


class ScriptedBroker:
    """Delivers what a test puts into `incoming`, and records its calls."""

    def __init__(self) -> None:
        self.incoming: list[FakeDelivery | tuple[str, bytes, str]] = []
        self.calls: list[str] = []
        self.fail_at: set[str] = set()
        self.left_to_restore = 0
        self.prefetch = 0
        self.limits: Mapping[str, int] | None = None
        self.on_drain: Callable[[], None] = lambda: None
        self._on_delivery: OnDelivery = lambda delivery: None
        self._on_undecodable: OnUndecodable = lambda queue, raw, reason: None

    def consume_requests(
        self, queues: Sequence[str], prefetch: int, on_delivery: OnDelivery, on_undecodable: OnUndecodable
    ) -> ScriptedBroker:
        self._record_call("consume_requests")
        self.prefetch = prefetch
        self._on_delivery, self._on_undecodable = on_delivery, on_undecodable
        return self

    def drain(self, timeout: float, limits: Mapping[str, int] | None = None) -> int:
        self._record_call("drain")
        self.limits = limits
        self.on_drain()
        arriving, self.incoming = self.incoming, []
        for found in arriving:
            if isinstance(found, FakeDelivery):
                delivery: Delivery = found
                self._on_delivery(delivery)
            else:
                self._on_undecodable(*found)
        return len(arriving)

    def suspend(self, queue: str) -> None:
        self._record_call(f"suspend {queue}")

    def resume(self, queue: str) -> None:
        self._record_call(f"resume {queue}")

    def restore_expired(self) -> bool:
        self._record_call("restore")
        self.left_to_restore -= 1
        return self.left_to_restore > 0

    def close(self) -> None:
        self._record_call("close")

    def _record_call(self, call: str) -> None:
        self.calls.append(call)
        if call in self.fail_at:
            raise BrokerUnavailable


class ConsumerHarness:
    """A consumer over a scripted broker."""

    def __init__(self, harness: WorkerHarness, queues: Sequence[str] = ("default",)) -> None:
        self.harness = harness
        self.broker = ScriptedBroker()
        self.thread_pool = harness.worker.thread_pool
        context = harness.worker.context
        context.queues = queues
        self.consumer = Consumer(
            context,
            self.broker,  # type: ignore[arg-type]
            harness.worker.launcher,
            self.thread_pool,
        )

    def deliver(self, body: bytes, queue: str = "default") -> FakeDelivery:
        """One message arrives and is handled."""
        message = FakeDelivery(body, queue)
        self.broker.incoming.append(message)
        self.consumer.step()
        return message


def _put(harness: WorkerHarness) -> Record:
    harness.put_request()
    return harness.record()


@pytest.fixture
def harness() -> WorkerHarness:
    return WorkerHarness()


@pytest.fixture
def consumer_harness(harness: WorkerHarness) -> ConsumerHarness:
    return ConsumerHarness(harness)


def test_a_launched_request_is_acknowledged_after_its_arn_is_in_the_ledger(
    harness: WorkerHarness, consumer_harness: ConsumerHarness
) -> None:
    message = FakeDelivery(harness.new_envelope())
    acked_with: list[str] = []
    message.ack = lambda: acked_with.append(harness.record().arn)  # type: ignore[method-assign]
    consumer_harness.broker.incoming.append(message)

    consumer_harness.consumer.step()

    assert acked_with == list(harness.ecs.tasks)


def test_the_prefetch_covers_running_and_waiting_jobs(
    harness: WorkerHarness, consumer_harness: ConsumerHarness
) -> None:
    consumer_harness.consumer.step()

    assert consumer_harness.broker.prefetch == 2 * harness.config.concurrency


def test_no_more_messages_come_at_once_than_there_is_room_for(harness: WorkerHarness) -> None:
    consumer_harness = ConsumerHarness(harness, ["default", "other"])
    most = harness.config.concurrency
    for _ in range(2):
        harness.worker.thread_pool._fair_queue.add(Job(lambda: None, JobKind.MESSAGE, "other"))

    consumer_harness.consumer.step()

    assert consumer_harness.broker.limits == {"default": most, "other": most - 2}


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("operation", ["put_and_claim", "launched"])
def test_a_ledger_that_fails_gives_the_message_back_after_a_rest(
    harness: WorkerHarness, consumer_harness: ConsumerHarness, operation: str, when: str
) -> None:
    harness.ledger.fail(operation, when)

    message = consumer_harness.deliver(harness.new_envelope())

    assert (message.acked, message.released) == (False, True)
    assert 1.0 in harness.worker.waits


def test_an_unexpected_error_gives_the_message_back_too(
    harness: WorkerHarness, consumer_harness: ConsumerHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else it would stay unacknowledged for ever, and the broker would deliver one message less at a time."""

    def broken(*arguments: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(harness.worker.launcher, "handle_message", broken)

    message = consumer_harness.deliver(harness.new_envelope())

    assert (message.acked, message.released) == (False, True)
    assert 1.0 in harness.worker.waits
    assert harness.worker.emitted("service.failed")


class TestCircuits:
    def _no_region(self, queue: str) -> Target:
        raise ConfigError("no region is known")

    def test_a_queue_with_an_open_circuit_is_suspended_and_resumed(
        self, harness: WorkerHarness, consumer_harness: ConsumerHarness
    ) -> None:
        harness.worker.target_for = self._no_region
        message = consumer_harness.deliver(harness.new_envelope())
        assert (message.acked, message.released) == (False, True)

        assert consumer_harness.consumer.step() > 0
        assert consumer_harness.broker.calls[-2:] == ["suspend default", "drain"]
        harness.clock.advance(6)
        consumer_harness.consumer.step()

        assert "resume default" in consumer_harness.broker.calls

    def test_what_opens_the_circuit_is_said_without_the_queue_which_the_log_names(self) -> None:
        harness = WorkerHarness({"AIRFLOW__AWS_ECS_EXECUTOR__SUBNETS": ""})
        ConsumerHarness(harness, ["default"]).deliver(harness.new_envelope())

        (opened,) = harness.worker.emitted("circuit.opened")
        assert (opened["queue"], opened["reason"].partition(",")[0]) == (
            "default",
            "expected at least one subnet to run a task",
        )
        assert harness.worker.circuit_breakers.health() == f"default: {opened['reason']}"

    def test_other_queues_go_on(self, harness: WorkerHarness) -> None:
        consumer_harness = ConsumerHarness(harness, ["default", "gpu"])
        harness.worker.circuit_breakers.open("gpu", "no credentials")

        message = consumer_harness.deliver(harness.new_envelope())

        assert message.acked
        assert "suspend gpu" in consumer_harness.broker.calls
        assert "suspend default" not in consumer_harness.broker.calls

    def test_unusable_credentials_keep_the_message_no_longer(
        self, harness: WorkerHarness, consumer_harness: ConsumerHarness
    ) -> None:
        harness.ecs.run_task_results.append(RunTaskResult(RunTaskResultKind.UNUSABLE_PROFILE, reason="expired token"))

        assert consumer_harness.deliver(harness.new_envelope()).acked
        assert harness.state() is State.QUEUED


class TestCapacity:
    """What is not launched soon stays in the broker."""

    @staticmethod
    def _make_harness(**keys: int) -> ConsumerHarness:
        harness = WorkerHarness(None, 1, **keys)
        return ConsumerHarness(harness, ["default", "gpu"])

    def test_a_queue_with_enough_waiting_is_suspended_and_others_go_on(self) -> None:
        consumer_harness = self._make_harness(run_task_rate=2, run_task_burst=2)
        harness = consumer_harness.harness
        for index in range(5):
            consumer_harness.broker.incoming.append(FakeDelivery(harness.new_envelope(f"t{index}")))
        consumer_harness.consumer.step()

        consumer_harness.consumer.step()

        assert "suspend default" in consumer_harness.broker.calls
        assert "suspend gpu" not in consumer_harness.broker.calls
        assert (len(harness.ecs.run_task_calls), consumer_harness.thread_pool.waiting_jobs) == (1, 4)

    def test_it_is_taken_from_again_when_tokens_have_come(self) -> None:
        consumer_harness = self._make_harness(run_task_rate=2, run_task_burst=2)
        harness = consumer_harness.harness
        for index in range(4):
            consumer_harness.broker.incoming.append(FakeDelivery(harness.new_envelope(f"t{index}")))
        consumer_harness.consumer.step()
        consumer_harness.consumer.step()
        for _ in range(6):
            harness.clock.advance(0.51)
            consumer_harness.thread_pool.wake()

        consumer_harness.consumer.step()

        assert consumer_harness.thread_pool.waiting_jobs == 0
        assert "resume default" in consumer_harness.broker.calls

    @staticmethod
    def _make_full_harness() -> ConsumerHarness:
        """All room for waiting messages is taken."""
        harness = WorkerHarness(concurrency=4)
        consumer_harness = ConsumerHarness(harness)
        consumer_harness.thread_pool.is_full = True
        consumer_harness.broker.incoming += [FakeDelivery(harness.new_envelope(f"t{index}")) for index in range(4)]
        for _ in range(2):
            consumer_harness.consumer.step()
        assert consumer_harness.broker.calls[-2:] == ["suspend default", "drain"]
        return consumer_harness

    def test_it_is_taken_from_again_when_there_is_room_for_several(self) -> None:
        consumer_harness = self._make_full_harness()

        consumer_harness.thread_pool._fair_queue.pop(lambda _: True)
        consumer_harness.consumer.step()
        assert "resume default" not in consumer_harness.broker.calls

        consumer_harness.thread_pool._fair_queue.pop(lambda _: True)
        consumer_harness.consumer.step()
        assert consumer_harness.broker.calls[-2:] == ["resume default", "drain"]
        assert consumer_harness.broker.limits == {"default": 2}

    def test_an_urgent_one_need_not_wait_long_for_that(self) -> None:
        consumer_harness = self._make_full_harness()
        consumer_harness.thread_pool._fair_queue.pop(lambda _: True)

        consumer_harness.harness.clock.advance(0.06)
        consumer_harness.consumer.step()

        assert consumer_harness.broker.calls[-2:] == ["resume default", "drain"]

    def test_the_urgent_one_that_waits_here_is_launched_first(self) -> None:
        consumer_harness = self._make_harness(run_task_rate=2, run_task_burst=2)
        harness = consumer_harness.harness
        for index in range(3):
            consumer_harness.broker.incoming.append(FakeDelivery(harness.new_envelope(f"t{index}")))
        consumer_harness.broker.incoming.append(FakeDelivery(harness.new_envelope("urgent", priority=9)))
        consumer_harness.consumer.step()

        harness.clock.advance(0.51)
        consumer_harness.thread_pool.wake()

        assert harness.state("urgent") is State.LAUNCHED

    @pytest.mark.parametrize("how", ["paused", "full"])
    def test_what_may_not_be_launched_is_put_back_and_no_more_is_taken(self, how: str) -> None:
        limit = {"AIRFLOW__AWS_ECS_EXECUTOR__MAX_IN_FLIGHT": "1"} if how == "full" else {}
        harness = WorkerHarness(limit)
        consumer_harness = ConsumerHarness(harness)
        harness.worker.admission.step()
        consumer_harness.thread_pool.is_full = True
        messages = [FakeDelivery(harness.new_envelope(f"t{index}")) for index in range(3)]
        consumer_harness.broker.incoming += messages
        consumer_harness.consumer.step()
        if how == "paused":
            harness.memory_ledger.pause_queues(["default"])
        else:
            harness.launch("running")
        harness.worker.admission.step()

        assert consumer_harness.consumer.step() > 0

        assert all(message.was_put_back for message in messages)
        assert consumer_harness.broker.calls[-2:] == ["suspend default", "drain"]
        assert consumer_harness.thread_pool.waiting_jobs == 0

    def test_a_resumed_queue_is_taken_from_again(
        self, harness: WorkerHarness, consumer_harness: ConsumerHarness
    ) -> None:
        harness.memory_ledger.pause_queues(["default"])
        harness.worker.admission.step()
        consumer_harness.consumer.step()
        harness.memory_ledger.resume_queues(["default"])
        harness.worker.admission.step()

        assert consumer_harness.deliver(harness.new_envelope()).acked


class TestUndecodable:
    def test_its_dead_letter_has_its_raw_bytes(self, harness: WorkerHarness, consumer_harness: ConsumerHarness) -> None:
        consumer_harness.broker.incoming.append(("default", b"\xff", "not JSON"))

        consumer_harness.consumer.step()

        (letter,) = harness.memory_ledger.list_dead_letters(10)
        assert (letter.queue, letter.body, letter.reason) == ("default", b"\xff", "not JSON")

    def test_it_is_kept_until_the_ledger_can_be_reached(
        self, harness: WorkerHarness, consumer_harness: ConsumerHarness
    ) -> None:
        for raw in (b"1", b"2"):
            consumer_harness.broker.incoming.append(("default", raw, "not JSON"))
        for _ in range(3):
            harness.ledger.fail("add_dead_letter", "before")

        consumer_harness.consumer.step()
        assert harness.memory_ledger.list_dead_letters(10) == []
        consumer_harness.consumer.step()
        consumer_harness.consumer.step()

        assert [letter.body for letter in harness.memory_ledger.list_dead_letters(10)] == [b"2", b"1"]


class TestLostBroker:
    @pytest.mark.parametrize("where", ["drain", "restore"])
    def test_the_consumer_is_closed_and_made_anew(
        self, harness: WorkerHarness, consumer_harness: ConsumerHarness, where: str
    ) -> None:
        consumer_harness.broker.fail_at = {where}
        with pytest.raises(BrokerUnavailable):
            consumer_harness.consumer.step()
        assert consumer_harness.broker.calls[-1] == "close"

        consumer_harness.broker.fail_at = set()
        assert consumer_harness.deliver(harness.new_envelope()).acked

    def test_requests_are_swept_while_no_message_can_come(self, consumer_harness: ConsumerHarness) -> None:
        assert not consumer_harness.consumer.is_drained("default")
        consumer_harness.broker.fail_at = {"consume_requests"}

        with pytest.raises(BrokerUnavailable):
            consumer_harness.consumer.step()

        assert consumer_harness.consumer.is_drained("default")


class TestDrained:
    def test_empty_queues_are_idle(self, consumer_harness: ConsumerHarness) -> None:
        consumer_harness.consumer.step()

        assert consumer_harness.consumer.is_drained("default")

    def test_queues_with_messages_are_not(self, harness: WorkerHarness, consumer_harness: ConsumerHarness) -> None:
        consumer_harness.deliver(harness.new_envelope())

        assert not consumer_harness.consumer.is_drained("default")

    def test_it_is_not_drained_while_its_messages_wait_for_a_thread(
        self, harness: WorkerHarness, consumer_harness: ConsumerHarness
    ) -> None:
        consumer_harness.thread_pool.is_full = True
        for index in range(harness.config.concurrency):
            consumer_harness.deliver(harness.new_envelope(f"t{index}"))
        consumer_harness.broker.on_drain = (
            consumer_harness.thread_pool.resume
        )  # a thread is free again by the end of the drain

        consumer_harness.consumer.step()

        assert consumer_harness.thread_pool.free_threads > 0
        assert not consumer_harness.consumer.is_drained("default")


def test_lost_messages_of_others_are_restored_six_times_in_a_visibility_timeout(
    harness: WorkerHarness, consumer_harness: ConsumerHarness
) -> None:
    for _ in range(120):
        consumer_harness.consumer.step()
        harness.clock.advance(1)

    assert consumer_harness.broker.calls.count("restore") == 12
    harness.clock.advance(10)
    consumer_harness.broker.left_to_restore = 3
    for _ in range(5):
        consumer_harness.consumer.step()
    assert consumer_harness.broker.calls.count("restore") == 12 + 3


class TestStopping:
    def test_what_is_not_begun_is_given_back(self, harness: WorkerHarness, consumer_harness: ConsumerHarness) -> None:
        consumer_harness.thread_pool.is_full = True
        message = consumer_harness.deliver(harness.new_envelope())
        harness.worker.stopping.set()

        consumer_harness.thread_pool.resume()

        assert (message.acked, message.released) == (False, True)
        assert not harness.ecs.run_task_calls

    def test_what_waits_is_put_back_the_next_one_last(
        self, harness: WorkerHarness, consumer_harness: ConsumerHarness
    ) -> None:
        """So that it is at the head of its queue again."""
        consumer_harness.thread_pool.is_full = True
        order: list[str] = []
        for name, priority in (("low", 1), ("high", 5), ("lower", 0)):
            message = FakeDelivery(harness.new_envelope(name, priority=priority))
            message.requeue_at_front = partial(order.append, name)  # type: ignore[method-assign]
            consumer_harness.broker.incoming.append(message)
        consumer_harness.consumer.step()

        consumer_harness.consumer.shut_down(10.0)

        assert order == ["lower", "low", "high"]

    def test_nothing_more_is_taken_and_what_is_in_hand_is_waited_for(
        self, harness: WorkerHarness, consumer_harness: ConsumerHarness
    ) -> None:
        consumer_harness.thread_pool.started_jobs = []
        message = consumer_harness.deliver(harness.new_envelope())
        done = threading.Timer(0.05, consumer_harness.thread_pool.finish_started)
        done.start()

        consumer_harness.consumer.shut_down(10.0)

        done.join()
        assert message.acked
        assert "suspend default" in consumer_harness.broker.calls

    def test_the_wait_is_bounded(self, harness: WorkerHarness, consumer_harness: ConsumerHarness) -> None:
        consumer_harness.thread_pool.started_jobs = []
        consumer_harness.deliver(harness.new_envelope())

        consumer_harness.consumer.shut_down(0.05)

        assert consumer_harness.thread_pool.outstanding == 1

    @pytest.mark.parametrize("where", ["suspend default", "drain"])
    def test_calls_in_hand_are_waited_for_though_the_broker_is_lost(
        self, harness: WorkerHarness, consumer_harness: ConsumerHarness, where: str
    ) -> None:
        consumer_harness.thread_pool.started_jobs = []
        consumer_harness.deliver(harness.new_envelope())
        consumer_harness.broker.fail_at = {where}
        done = threading.Timer(0.05, consumer_harness.thread_pool.finish_started)
        done.start()

        consumer_harness.consumer.shut_down(10.0)

        done.join()
        assert consumer_harness.thread_pool.outstanding == 0
        assert harness.state() is State.LAUNCHED

    def test_calls_in_hand_are_waited_for_though_there_never_was_a_broker(
        self, harness: WorkerHarness, consumer_harness: ConsumerHarness
    ) -> None:
        consumer_harness.thread_pool.started_jobs = []
        consumer_harness.thread_pool.submit(
            Job(partial(harness.worker.launcher.launch_queued, _put(harness)), JobKind.RETRY, "default")
        )
        done = threading.Timer(0.05, consumer_harness.thread_pool.finish_started)
        done.start()

        consumer_harness.consumer.shut_down(10.0)

        done.join()
        assert harness.state() is State.LAUNCHED

    def test_a_ledger_that_is_lost_at_the_end_does_not_hinder_it(
        self, harness: WorkerHarness, consumer_harness: ConsumerHarness
    ) -> None:
        harness.ledger.fail("add_dead_letter", "before")
        harness.ledger.fail("add_dead_letter", "before")
        consumer_harness.broker.incoming.append(("default", b"1", "not JSON"))
        consumer_harness.consumer.step()

        consumer_harness.consumer.shut_down(1.0)

        assert consumer_harness.broker.calls[-1] == "close"


def test_the_error_of_a_lost_ledger_is_reported(harness: WorkerHarness, consumer_harness: ConsumerHarness) -> None:
    harness.ledger.fail("put_and_claim", "before")

    consumer_harness.deliver(harness.new_envelope())

    assert harness.worker.emitted("service.failed")[0]["service"] == "the server of ledger and broker"
