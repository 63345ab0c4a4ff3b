"""Taking messages from the broker, and what becomes of them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import pytest

from ecs_queue.broker.base import Delivery, OnDelivery, OnUndecodable
from ecs_queue.core.answers import Kind, RunAnswer
from ecs_queue.core.record import Record
from ecs_queue.core.states import State
from ecs_queue.ecs.clients import Target
from ecs_queue.errors import BrokerUnavailable, ConfigError, LedgerUnavailable
from ecs_queue.launcher.consume import Consumer
from ecs_queue.launcher.lanes import Job, JobKind
from tests.launcher.lab import Lab, Message


class ScriptedBroker:
    """Hands over what a test puts into `arriving`, and remembers what it was asked for."""

    def __init__(self) -> None:
        self.arriving: list[Message | tuple[str, bytes, str]] = []
        self.log: list[str] = []
        self.fail_at: set[str] = set()
        self.prefetch = 0
        self.most: Mapping[str, int] | None = None
        self.on_drain: Callable[[], None] = lambda: None
        self._on_delivery: OnDelivery = lambda delivery: None
        self._on_undecodable: OnUndecodable = lambda queue, raw, reason: None

    def consume(
        self, queues: Sequence[str], prefetch: int, on_delivery: OnDelivery, on_undecodable: OnUndecodable
    ) -> ScriptedBroker:
        self._do("consume")
        self.prefetch = prefetch
        self._on_delivery, self._on_undecodable = on_delivery, on_undecodable
        return self

    def drain(self, timeout: float, most: Mapping[str, int] | None = None) -> int:
        self._do("drain")
        self.most = most
        self.on_drain()
        arriving, self.arriving = self.arriving, []
        for found in arriving:
            if isinstance(found, Message):
                delivery: Delivery = found
                self._on_delivery(delivery)
            else:
                self._on_undecodable(*found)
        return len(arriving)

    def pause(self, queue: str) -> None:
        self._do(f"pause {queue}")

    def resume(self, queue: str) -> None:
        self._do(f"resume {queue}")

    def restore(self) -> None:
        self._do("restore")

    def close(self) -> None:
        self._do("close")

    def _do(self, what: str) -> None:
        self.log.append(what)
        if what in self.fail_at:
            raise BrokerUnavailable


class Bench:
    """A consumer over a scripted broker."""

    def __init__(self, lab: Lab, queues: Sequence[str] = ("default",)) -> None:
        self.lab = lab
        self.broker = ScriptedBroker()
        self.slots = lab.worker.slots
        self.consumer = Consumer(
            lab.worker.parts,
            self.broker,  # type: ignore[arg-type]
            lab.worker.launcher,
            self.slots,
            queues,
        )

    def deliver(self, body: bytes, queue: str = "default") -> Message:
        """One message arrives and is handled."""
        message = Message(body, queue)
        self.broker.arriving.append(message)
        self.consumer.step()
        return message


def _put(lab: Lab) -> Record:
    lab.put()
    return lab.record()


@pytest.fixture
def lab() -> Lab:
    return Lab()


@pytest.fixture
def bench(lab: Lab) -> Bench:
    return Bench(lab)


def test_a_launched_request_is_acknowledged_after_its_arn_is_in_the_ledger(lab: Lab, bench: Bench) -> None:
    message = Message(lab.body())
    acked_with: list[str] = []
    message.ack = lambda: acked_with.append(lab.record().arn)  # type: ignore[method-assign]
    bench.broker.arriving.append(message)

    bench.consumer.step()

    assert acked_with == list(lab.ecs.tasks)


def test_as_many_messages_are_in_hand_as_run_and_wait_for_a_slot(lab: Lab, bench: Bench) -> None:
    bench.consumer.step()

    assert bench.broker.prefetch == 2 * lab.config.concurrency


def test_no_more_messages_come_at_once_than_there_is_room_for(lab: Lab) -> None:
    bench = Bench(lab, ["default", "other"])
    most = lab.config.concurrency
    for _ in range(2):
        lab.worker.slots._lanes.add(Job(lambda: None, JobKind.MESSAGE, "other"))

    bench.consumer.step()

    assert bench.broker.most == {"default": most, "other": most - 2}


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("operation", ["admit", "launched"])
def test_a_ledger_that_fails_gives_the_message_back_after_a_rest(
    lab: Lab, bench: Bench, operation: str, when: str
) -> None:
    lab.ledger.fail(operation, when)

    message = bench.deliver(lab.body())

    assert (message.acked, message.released) == (False, True)
    assert 1.0 in lab.worker.rests


def test_an_error_nobody_thought_of_gives_the_message_back_too(
    lab: Lab, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else it would stay in hand for ever, and the broker would hand over one message less at a time."""

    def broken(*arguments: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(lab.worker.launcher, "take", broken)

    message = bench.deliver(lab.body())

    assert (message.acked, message.released) == (False, True)
    assert 1.0 in lab.worker.rests
    assert lab.worker.told("service.failed")


class TestCircuits:
    def _no_region(self, queue: str) -> Target:
        raise ConfigError("no region is known")

    def test_a_queue_with_an_open_circuit_is_paused_and_resumed(self, lab: Lab, bench: Bench) -> None:
        lab.worker.target_for = self._no_region
        message = bench.deliver(lab.body())
        assert (message.acked, message.released) == (False, True)

        assert bench.consumer.step() > 0
        assert bench.broker.log[-2:] == ["pause default", "drain"]
        lab.clock.advance(6)
        bench.consumer.step()

        assert "resume default" in bench.broker.log

    def test_other_queues_go_on(self, lab: Lab) -> None:
        bench = Bench(lab, ["default", "gpu"])
        lab.worker.circuits.open("gpu", "no credentials")

        message = bench.deliver(lab.body())

        assert message.acked
        assert "pause gpu" in bench.broker.log
        assert "pause default" not in bench.broker.log

    def test_unusable_credentials_keep_the_message_no_longer(self, lab: Lab, bench: Bench) -> None:
        lab.ecs.answers.append(RunAnswer(Kind.PROFILE, reason="expired token"))

        assert bench.deliver(lab.body()).acked
        assert lab.state() is State.QUEUED


class TestRoom:
    """What is not launched soon stays in the broker."""

    @staticmethod
    def _bench(**keys: int) -> Bench:
        lab = Lab(None, 1, **keys)
        return Bench(lab, ["default", "gpu"])

    def test_a_queue_with_enough_waiting_is_held_and_others_go_on(self) -> None:
        bench = self._bench(run_task_rate=2, run_task_burst=2)
        lab = bench.lab
        for index in range(5):
            bench.broker.arriving.append(Message(lab.body(f"t{index}")))
        bench.consumer.step()

        bench.consumer.step()

        assert "pause default" in bench.broker.log
        assert "pause gpu" not in bench.broker.log
        assert (len(lab.ecs.calls), bench.slots.kept) == (1, 4)

    def test_it_is_taken_from_again_when_tokens_have_come(self) -> None:
        bench = self._bench(run_task_rate=2, run_task_burst=2)
        lab = bench.lab
        for index in range(4):
            bench.broker.arriving.append(Message(lab.body(f"t{index}")))
        bench.consumer.step()
        bench.consumer.step()
        for _ in range(6):
            lab.clock.advance(0.51)
            bench.slots.kick()

        bench.consumer.step()

        assert bench.slots.kept == 0
        assert "resume default" in bench.broker.log

    @staticmethod
    def _full() -> Bench:
        """As many wait as there is room for."""
        lab = Lab(concurrency=4)
        bench = Bench(lab)
        bench.slots.full = True
        bench.broker.arriving += [Message(lab.body(f"t{index}")) for index in range(4)]
        for _ in range(2):
            bench.consumer.step()
        assert bench.broker.log[-2:] == ["pause default", "drain"]
        return bench

    def test_it_is_taken_from_again_when_there_is_room_for_several(self) -> None:
        bench = self._full()

        bench.slots._lanes.pop(lambda _: True)
        bench.consumer.step()
        assert "resume default" not in bench.broker.log

        bench.slots._lanes.pop(lambda _: True)
        bench.consumer.step()
        assert bench.broker.log[-2:] == ["resume default", "drain"]
        assert bench.broker.most == {"default": 2}

    def test_an_urgent_one_need_not_wait_long_for_that(self) -> None:
        bench = self._full()
        bench.slots._lanes.pop(lambda _: True)

        bench.lab.clock.advance(0.06)
        bench.consumer.step()

        assert bench.broker.log[-2:] == ["resume default", "drain"]

    def test_the_urgent_one_that_waits_here_is_launched_first(self) -> None:
        bench = self._bench(run_task_rate=2, run_task_burst=2)
        lab = bench.lab
        for index in range(3):
            bench.broker.arriving.append(Message(lab.body(f"t{index}")))
        bench.broker.arriving.append(Message(lab.body("urgent", priority=9)))
        bench.consumer.step()

        lab.clock.advance(0.51)
        bench.slots.kick()

        assert lab.state("urgent") is State.LAUNCHED

    @pytest.mark.parametrize("how", ["paused", "full"])
    def test_what_may_not_be_launched_is_put_back_and_no_more_is_taken(self, how: str) -> None:
        limit = {"AIRFLOW__AWS_ECS_EXECUTOR__MAX_IN_FLIGHT": "1"} if how == "full" else {}
        lab = Lab(limit)
        bench = Bench(lab)
        lab.worker.gates.step()
        bench.slots.full = True
        messages = [Message(lab.body(f"t{index}")) for index in range(3)]
        bench.broker.arriving += messages
        bench.consumer.step()
        if how == "paused":
            lab.memory.pause(["default"])
        else:
            lab.launched("running")
        lab.worker.gates.step()

        assert bench.consumer.step() > 0

        assert all(message.was_put_back for message in messages)
        assert bench.broker.log[-2:] == ["pause default", "drain"]
        assert bench.slots.kept == 0

    def test_a_resumed_queue_is_taken_from_again(self, lab: Lab, bench: Bench) -> None:
        lab.memory.pause(["default"])
        lab.worker.gates.step()
        bench.consumer.step()
        lab.memory.resume(["default"])
        lab.worker.gates.step()

        assert bench.deliver(lab.body()).acked


class TestUnreadable:
    def test_it_is_buried_with_its_raw_bytes(self, lab: Lab, bench: Bench) -> None:
        bench.broker.arriving.append(("default", b"\xff", "not JSON"))

        bench.consumer.step()

        (letter,) = lab.memory.dead(10)
        assert (letter.queue, letter.body, letter.reason) == ("default", b"\xff", "not JSON")

    def test_it_is_kept_until_the_ledger_can_be_reached(self, lab: Lab, bench: Bench) -> None:
        for raw in (b"1", b"2"):
            bench.broker.arriving.append(("default", raw, "not JSON"))
        for _ in range(3):
            lab.ledger.fail("bury", "before")

        bench.consumer.step()
        assert lab.memory.dead(10) == []
        bench.consumer.step()
        bench.consumer.step()

        assert [letter.body for letter in lab.memory.dead(10)] == [b"2", b"1"]


class TestALostBroker:
    @pytest.mark.parametrize("where", ["drain", "restore"])
    def test_the_consumer_is_closed_and_made_anew(self, lab: Lab, bench: Bench, where: str) -> None:
        bench.broker.fail_at = {where}
        with pytest.raises(BrokerUnavailable):
            bench.consumer.step()
        assert bench.broker.log[-1] == "close"

        bench.broker.fail_at = set()
        assert bench.deliver(lab.body()).acked

    def test_requests_are_swept_while_no_message_can_come(self, bench: Bench) -> None:
        assert not bench.consumer.idle("default")
        bench.broker.fail_at = {"consume"}

        with pytest.raises(BrokerUnavailable):
            bench.consumer.step()

        assert bench.consumer.idle("default")


class TestIdle:
    def test_empty_queues_are_idle(self, bench: Bench) -> None:
        bench.consumer.step()

        assert bench.consumer.idle("default")

    def test_queues_with_messages_are_not(self, lab: Lab, bench: Bench) -> None:
        bench.deliver(lab.body())

        assert not bench.consumer.idle("default")

    def test_nobody_knows_while_its_messages_wait_for_a_slot(self, lab: Lab, bench: Bench) -> None:
        bench.slots.full = True
        for index in range(lab.config.concurrency):
            bench.deliver(lab.body(f"t{index}"))
        bench.broker.on_drain = bench.slots.run_kept  # a slot is free again by the end of the drain

        bench.consumer.step()

        assert bench.slots.free > 0
        assert not bench.consumer.idle("default")


def test_lost_messages_of_others_are_restored_six_times_in_a_visibility_timeout(lab: Lab, bench: Bench) -> None:
    for _ in range(120):
        bench.consumer.step()
        lab.clock.advance(1)

    assert bench.broker.log.count("restore") == 12


class TestStopping:
    def test_what_is_not_begun_is_given_back(self, lab: Lab, bench: Bench) -> None:
        bench.slots.full = True
        message = bench.deliver(lab.body())
        lab.worker.stopping.set()

        bench.slots.run_kept()

        assert (message.acked, message.released) == (False, True)
        assert not lab.ecs.calls

    def test_what_waits_is_put_back_the_next_one_last(self, lab: Lab, bench: Bench) -> None:
        """So that it is at the head of its queue again."""
        bench.slots.full = True
        order: list[str] = []
        for name, priority in (("low", 1), ("high", 5), ("lower", 0)):
            message = Message(lab.body(name, priority=priority))
            message.put_back = partial(order.append, name)  # type: ignore[method-assign]
            bench.broker.arriving.append(message)
        bench.consumer.step()

        bench.consumer.settle(10.0)

        assert order == ["lower", "low", "high"]

    def test_nothing_more_is_taken_and_what_is_in_hand_is_waited_for(self, lab: Lab, bench: Bench) -> None:
        bench.slots.begun = []
        message = bench.deliver(lab.body())
        done = threading.Timer(0.05, bench.slots.finish)
        done.start()

        bench.consumer.settle(10.0)

        done.join()
        assert message.acked
        assert "pause default" in bench.broker.log

    def test_the_wait_is_bounded(self, lab: Lab, bench: Bench) -> None:
        bench.slots.begun = []
        bench.deliver(lab.body())

        bench.consumer.settle(0.05)

        assert bench.slots.in_hand == 1

    @pytest.mark.parametrize("where", ["pause default", "drain"])
    def test_calls_in_hand_are_waited_for_though_the_broker_is_lost(self, lab: Lab, bench: Bench, where: str) -> None:
        bench.slots.begun = []
        bench.deliver(lab.body())
        bench.broker.fail_at = {where}
        done = threading.Timer(0.05, bench.slots.finish)
        done.start()

        bench.consumer.settle(10.0)

        done.join()
        assert bench.slots.in_hand == 0
        assert lab.state() is State.LAUNCHED

    def test_calls_in_hand_are_waited_for_though_there_never_was_a_broker(self, lab: Lab, bench: Bench) -> None:
        bench.slots.begun = []
        bench.slots.submit(Job(partial(lab.worker.launcher.retry, _put(lab)), JobKind.RETRY, "default"))
        done = threading.Timer(0.05, bench.slots.finish)
        done.start()

        bench.consumer.settle(10.0)

        done.join()
        assert lab.state() is State.LAUNCHED

    def test_a_ledger_that_is_lost_at_the_end_does_not_hinder_it(self, lab: Lab, bench: Bench) -> None:
        lab.ledger.fail("bury", "before")
        lab.ledger.fail("bury", "before")
        bench.broker.arriving.append(("default", b"1", "not JSON"))
        bench.consumer.step()

        bench.consumer.settle(1.0)
        bench.consumer.close()

        assert bench.broker.log[-1] == "close"


def test_the_error_of_a_lost_ledger_is_told(lab: Lab, bench: Bench) -> None:
    lab.ledger.fail("admit", "before")

    bench.deliver(lab.body())

    assert LedgerUnavailable.__name__ in lab.worker.told("service.failed")[0]["reason"]
