"""The Python client, over an in-memory broker and ledger, and the launchers that a test plays itself."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from ecs_queue.broker import KombuBroker, Outgoing, open_broker
from ecs_queue.client import EcsQueue, Handle
from ecs_queue.core import envelope
from ecs_queue.core.protocol import ClaimOffer, Outcome, Refusal, RefusalKind
from ecs_queue.core.record import Record
from ecs_queue.core.states import State
from ecs_queue.errors import (
    BrokerUnavailable,
    ConfigError,
    EcsQueueError,
    IdConflict,
    InvalidRequest,
    LedgerUnavailable,
    RequestTooLate,
    ResultTimeout,
    UnknownTask,
    UsageError,
)
from ecs_queue.ledger import MemoryLedger, open_ledger
from tests.launcher.lab import FlakyLedger, config_of

SOON = 10.0


class PickyBroker(KombuBroker):
    """Remembers what it published; `fails` makes every publication fail."""

    fails = False

    def __init__(self, namespace: str) -> None:
        super().__init__("memory://", namespace, visibility_timeout=60.0, socket_timeout=1.0)
        self.published: list[Outgoing] = []
        self.drops_results = False
        self.forgotten: list[str] = []

    def publish_requests(self, messages: Sequence[Outgoing]) -> None:
        if self.fails:
            raise BrokerUnavailable
        self.published.extend(messages)
        super().publish_requests(messages)

    def publish_results(self, messages: Sequence[tuple[str, bytes]]) -> None:
        if self.fails:
            raise BrokerUnavailable
        if not self.drops_results:
            super().publish_results(messages)

    def forget_results(self, owner: str) -> None:
        if self.fails:
            raise BrokerUnavailable
        self.forgotten.append(owner)
        super().forget_results(owner)


class Site:
    """One namespace, its clients, and a launcher that ends requests as it is told."""

    def __init__(self) -> None:
        self.config = config_of(namespace=f"t{uuid.uuid4().hex[:12]}")
        ledger = open_ledger(self.config)
        assert isinstance(ledger, MemoryLedger)
        self.memory = ledger
        self.ledger = FlakyLedger(ledger)
        self.broker = PickyBroker(self.config.namespace)
        self.clients: list[EcsQueue] = []

    def client(self, owner: str | None = None) -> EcsQueue:
        self.clients.append(EcsQueue(self.config, self.broker, self.ledger, owner=owner))
        return self.clients[-1]

    def end(self, record_id: str, exit_code: int = 0, announce: bool = True) -> Record:
        """A launcher runs it to its end."""
        offer = ClaimOffer(claim="c", worker="w", args="{}", target="{}")
        claimed = self.memory.claim(record_id, offer).record
        assert claimed is not None
        arn = f"arn:{record_id}"
        self.memory.launched(record_id, claimed.nonce, claimed.launch, arn, 1.0)
        end = State.FAILED if exit_code else State.SUCCESS
        outcome = Outcome(
            id=record_id, launch=claimed.launch, arn=arn, version=1, last_status="STOPPED", wait=1.0, end=end
        )
        record = self.memory.outcomes([outcome])[0].record
        assert record is not None
        if announce and record.owner:
            self.broker.publish_results([(record.owner, envelope.encode(envelope.result_of(record)))])
        return record

    def record(self, record_id: str) -> Record:
        record = self.memory.get([record_id])[0]
        assert record is not None
        return record


@pytest.fixture
def site() -> Iterator[Site]:
    made = Site()
    yield made
    made.broker.fails = False
    for client in made.clients:
        client.close()


@pytest.fixture
def queue(site: Site) -> EcsQueue:
    return site.client()


class TestSubmit:
    def test_the_record_is_in_the_ledger_and_its_message_on_the_broker(self, site: Site, queue: EcsQueue) -> None:
        handle = queue.submit(["echo", "hello"], queue="gpu", priority=7)

        record = site.record(handle.id)
        assert (record.state, record.queue, record.owner) == (State.QUEUED, "gpu", queue.owner)
        (message,) = site.broker.published
        assert (message.queue, message.priority) == ("gpu", 7)
        assert message.body == record.request
        assert handle.nonce == record.nonce == envelope.nonce_of(site.config.namespace, message.body)

    def test_a_batch_is_written_and_published_at_once(self, site: Site, queue: EcsQueue) -> None:
        calls: list[str] = []
        site.ledger.on_call = lambda operation, when: calls.append(operation) if when == "before" else None

        queue.submit_many([{"command": ["true"]}] * 50)

        assert calls == ["put"]
        assert len(site.broker.published) == 50

    def test_nothing_is_queued_when_one_of_many_is_bad(self, site: Site, queue: EcsQueue) -> None:
        tasks: list[dict[str, Any]] = [{"command": ["true"]}, {"command": []}, {"command": ["true"]}]

        with pytest.raises(InvalidRequest):
            queue.submit_many(tasks)

        assert site.memory.page("", 10)[0] == []
        assert site.broker.published == []

    @pytest.mark.parametrize(
        ("task", "named"),
        [
            ({"command": "echo hello"}, "command"),
            ({"command": []}, "command"),
            ({"command": [1]}, "command"),
            ({}, "command"),
            ({"command": ["true"], "colour": "red"}, "colour"),
            ({"command": ["true"], "id": "with space"}, "id"),
            ({"command": ["true"], "priority": 10}, "priority"),
            ({"command": ["true"], "relaunch": "always"}, "relaunch"),
            ({"command": ["true"], "expires_in": 0}, "expires_in"),
            ({"command": ["true"], "executor_config": {"no_such_key": 1}}, "no_such_key"),
            ({"command": ["x" * 9000]}, "8192"),
            ({"command": ["true"], "executor_config": {"environment": [{"name": "A", "value": "\ud800"}]}}, "JSON"),
        ],
    )
    def test_a_bad_request_is_refused_with_the_name_of_what_is_wrong(
        self, site: Site, queue: EcsQueue, task: dict[str, Any], named: str
    ) -> None:
        with pytest.raises(InvalidRequest, match=named):
            queue.submit_many([task])

        assert site.broker.published == []

    def test_a_client_whose_queue_cannot_launch_is_told_what_to_set(self) -> None:
        config = config_of({"AIRFLOW__AWS_ECS_EXECUTOR__CLUSTER": ""})
        queue = EcsQueue(config, open_broker(config), open_ledger(config))

        with pytest.raises(ConfigError, match="cluster"):
            queue.submit(["true"])

    def test_a_ledger_that_fails_is_told_and_nothing_is_published(self, site: Site, queue: EcsQueue) -> None:
        site.ledger.fail("put", "before")

        with pytest.raises(LedgerUnavailable):
            queue.submit(["true"])

        assert site.broker.published == []

    def test_it_may_be_repeated_when_nobody_knows_whether_it_was_accepted(self, site: Site, queue: EcsQueue) -> None:
        site.ledger.fail("put", "after")
        with pytest.raises(LedgerUnavailable):
            queue.submit(["true"], id="a")
        first = site.record("a")

        handle = queue.submit(["true"], id="a")

        assert site.record("a") == first
        assert handle.nonce == first.nonce

    def test_a_broker_that_fails_only_delays_it(self, site: Site, queue: EcsQueue) -> None:
        site.broker.fails = True

        handle = queue.submit(["true"])

        assert site.record(handle.id).state is State.QUEUED

    def test_an_id_and_a_broker_are_not_needed_to_be_told_apart(self, queue: EcsQueue) -> None:
        handles = queue.submit_many([{"command": ["true"]}] * 10)

        assert len({handle.id for handle in handles}) == 10


class TestTheSameId:
    def test_the_same_request_is_the_same_and_published_once(self, site: Site, queue: EcsQueue) -> None:
        first = queue.submit(["true"], id="a")

        again = site.client().submit(["true"], id="a")

        assert again.nonce == first.nonce
        assert len(site.broker.published) == 1

    def test_another_request_is_a_conflict(self, site: Site, queue: EcsQueue) -> None:
        queue.submit(["true"], id="a")

        with pytest.raises(IdConflict, match="a"):
            queue.submit(["false"], id="a")

        assert envelope.decode_request(site.record("a").request).command == ["true"]

    def test_two_requests_of_one_call_are_a_conflict_before_anything_is_queued(
        self, site: Site, queue: EcsQueue
    ) -> None:
        with pytest.raises(IdConflict):
            queue.submit_many([{"id": "a", "command": ["one"]}, {"id": "a", "command": ["two"]}])

        assert site.memory.get(["a"]) == [None]

    def test_the_same_request_twice_in_one_call_is_one(self, site: Site, queue: EcsQueue) -> None:
        one, other = queue.submit_many([{"id": "a", "command": ["one"]}] * 2)

        assert one.nonce == other.nonce
        assert len(site.broker.published) == 1

    def test_a_conflict_keeps_no_other_request_of_its_batch_from_being_announced(
        self, site: Site, queue: EcsQueue
    ) -> None:
        queue.submit(["true"], id="a")
        site.broker.published.clear()

        with pytest.raises(IdConflict):
            queue.submit_many([{"id": "a", "command": ["x"]}, {"id": "b", "command": ["y"]}])

        assert [envelope.decode_request(message.body).id for message in site.broker.published] == ["b"]

    def test_a_clock_that_is_far_behind_is_told(self, site: Site) -> None:
        late = EcsQueue(site.config, site.broker, site.memory, clock=lambda: time.time() - 100_000)

        with pytest.raises(RequestTooLate, match="clock"):
            late.submit(["true"])

    def test_a_stop_that_came_first_revokes_it_at_once(self, site: Site, queue: EcsQueue) -> None:
        site.memory.stop(["a"], "alice")

        result = queue.submit(["true"], id="a").result(SOON)

        assert result.state == State.REVOKED
        assert site.broker.published == []


class TestResults:
    def test_a_result_comes_by_message(self, site: Site, queue: EcsQueue) -> None:
        handle = queue.submit(["true"])
        site.end(handle.id)

        result = handle.result(SOON)

        assert (result.id, result.state, result.succeeded) == (handle.id, "SUCCESS", True)

    def test_a_lost_message_is_made_up_for_by_the_ledger_within_two_seconds(self, site: Site, queue: EcsQueue) -> None:
        handle = queue.submit(["true"])
        site.end(handle.id, announce=False)
        before = time.monotonic()

        assert handle.result(SOON).succeeded

        assert time.monotonic() - before < 2.5

    def test_the_time_out_is_kept_and_the_request_goes_on(self, site: Site, queue: EcsQueue) -> None:
        handle = queue.submit(["true"])
        before = time.monotonic()
        with pytest.raises(ResultTimeout, match="1 of the requests"):
            handle.result(0.3)
        assert 0.2 < time.monotonic() - before < 2

        site.end(handle.id)

        assert handle.result(SOON).succeeded

    def test_no_time_at_all_is_a_time_out_too(self, queue: EcsQueue) -> None:
        with pytest.raises(ResultTimeout):
            queue.submit(["true"]).result(0)

    def test_it_may_be_asked_for_again(self, site: Site, queue: EcsQueue) -> None:
        handle = queue.submit(["true"])
        site.end(handle.id)

        assert handle.result(SOON) == handle.result(SOON)

    def test_an_earlier_submission_of_anybody_is_found_by_its_id(self, site: Site, queue: EcsQueue) -> None:
        queue.submit(["true"], id="a")
        other = site.client()
        handle = other.handle("a")
        assert handle.state() is State.QUEUED

        site.end("a")

        assert handle.result(SOON).succeeded
        assert handle.state() is State.SUCCESS

    def test_an_unknown_id_is_said(self, queue: EcsQueue) -> None:
        with pytest.raises(UnknownTask, match="nothing-of-the-kind"):
            queue.handle("nothing-of-the-kind")

    def test_a_client_without_an_owner_asks_the_ledger_alone(self, site: Site) -> None:
        queue = site.client(owner="")
        handle = queue.submit(["true"])
        assert site.record(handle.id).owner == ""

        site.end(handle.id)

        assert handle.result(SOON).succeeded

    def test_a_broker_that_is_gone_delays_the_result_only(self, site: Site, queue: EcsQueue) -> None:
        def gone(owner: str) -> Any:
            raise BrokerUnavailable

        site.broker.results = gone  # type: ignore[method-assign]
        handle = queue.submit(["true"])
        site.end(handle.id)

        assert handle.result(SOON).succeeded

    def test_a_ledger_that_is_gone_for_a_while_is_waited_for(self, site: Site, queue: EcsQueue) -> None:
        handle = queue.submit(["true"])
        site.end(handle.id, announce=False)
        site.ledger.fail("get", "before")

        assert handle.result(SOON).succeeded

    def test_garbage_among_the_results_is_passed_over(self, site: Site, queue: EcsQueue) -> None:
        handle = queue.submit(["true"])
        site.broker.publish_results([(queue.owner, b"garbage"), (queue.owner, b"{}")])
        site.end(handle.id)

        assert handle.result(SOON).succeeded


class TestAsCompleted:
    def test_results_come_in_the_order_in_which_the_requests_end(self, site: Site, queue: EcsQueue) -> None:
        handles = queue.submit_many([{"id": f"t{index}", "command": ["true"]} for index in range(5)])
        for index in (3, 1, 4, 0, 2):
            site.end(f"t{index}")

        assert [result.id for result in queue.as_completed(handles, SOON)] == ["t3", "t1", "t4", "t0", "t2"]

    def test_the_time_out_leaves_the_others_to_a_later_call(self, site: Site, queue: EcsQueue) -> None:
        handles = queue.submit_many([{"id": f"t{index}", "command": ["true"]} for index in range(3)])
        site.end("t1")
        completed = queue.as_completed(handles, 0.4)
        assert next(completed).id == "t1"
        with pytest.raises(ResultTimeout, match="2 of the requests"):
            next(completed)

        site.end("t0")
        site.end("t2")

        assert {result.id for result in queue.as_completed([handles[0], handles[2]], SOON)} == {"t0", "t2"}

    def test_a_result_taken_by_one_that_was_given_up_is_not_lost(self, site: Site, queue: EcsQueue) -> None:
        handles = queue.submit_many([{"id": f"t{index}", "command": ["true"]} for index in range(3)])
        for handle in handles:
            site.end(handle.id)
        given_up = queue.as_completed(handles, SOON)
        next(given_up)
        del given_up

        assert len(list(queue.as_completed(handles, SOON))) == 3

    def test_none_is_over_at_once(self, queue: EcsQueue) -> None:
        assert list(queue.as_completed([], 0)) == []

    def test_the_same_handle_twice_gives_one_result(self, site: Site, queue: EcsQueue) -> None:
        handle = queue.submit(["true"])
        site.end(handle.id)

        assert len(list(queue.as_completed([handle, handle], SOON))) == 1

    def test_many_are_waited_for_without_one_look_each(self, site: Site, queue: EcsQueue) -> None:
        handles = queue.submit_many([{"id": f"t{index}", "command": ["true"]} for index in range(600)])
        for handle in handles:
            site.end(handle.id)
        before = time.monotonic()

        results = {handle.result(SOON).id for handle in handles}

        assert len(results) == 600
        assert time.monotonic() - before < 10

    def test_many_whose_messages_were_lost_are_found_in_turn(self, site: Site, queue: EcsQueue) -> None:
        handles = queue.submit_many([{"id": f"t{index}", "command": ["true"]} for index in range(1200)])
        for handle in handles:
            site.end(handle.id, announce=False)

        assert len(list(queue.as_completed(handles, SOON))) == 1200


class TestLostPuts:
    def test_what_the_ledger_lost_is_put_again_as_the_very_same_request(self, site: Site, queue: EcsQueue) -> None:
        handle = queue.submit(["true"], id="a")
        before = site.record("a")
        _lose(site, "a")
        timer = threading.Timer(0.6, lambda: site.end("a"))
        timer.start()

        assert handle.result(SOON).succeeded

        timer.join()
        assert site.record("a").nonce == before.nonce
        bodies = {message.body for message in site.broker.published}
        assert (len(site.broker.published), len(bodies)) == (2, 1)

    def test_what_cannot_be_put_any_more_is_said_instead_of_waited_for(self, site: Site) -> None:
        clock = [time.time()]
        queue = EcsQueue(site.config, site.broker, site.memory, clock=lambda: clock[0] - 86_399.5)
        handle = queue.submit(["true"])
        time.sleep(0.6)
        _lose(site, handle.id)

        with pytest.raises(UnknownTask):
            handle.result(SOON)

    def test_a_result_whose_retention_is_over_is_said_instead_of_waited_for(self, site: Site, queue: EcsQueue) -> None:
        queue.submit(["true"], id="a")
        handle = site.client().handle("a")
        _lose(site, "a")

        with pytest.raises(UnknownTask, match="a"):
            handle.result()

    def test_an_id_that_is_another_requests_by_now_is_said(self, site: Site, queue: EcsQueue) -> None:
        handle = queue.submit(["true"], id="a")
        _lose(site, "a")
        site.client().submit(["false"], id="a")

        with pytest.raises(UnknownTask):
            handle.result(SOON)


def _lose(site: Site, record_id: str) -> None:
    """The ledger loses its last second."""
    del site.memory._records[record_id]
    site.memory._look_at.pop(record_id, None)
    site.memory._expiry.pop(record_id, None)


def _in_threads(acts: Sequence[Callable[[], object]]) -> list[object]:
    """What each returned, or raised, run at the same time; fails when one does not end."""
    results: list[object] = [None] * len(acts)

    def run(position: int) -> None:
        try:
            results[position] = acts[position]()
        except EcsQueueError as error:
            results[position] = error

    threads = [threading.Thread(target=run, args=(position,), daemon=True) for position in range(len(acts))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert not [thread for thread in threads if thread.is_alive()]
    return results


class TestThreads:
    def test_many_threads_wait_each_for_its_own(self, site: Site, queue: EcsQueue) -> None:
        handles = queue.submit_many([{"id": f"t{index}", "command": ["true"]} for index in range(20)])
        timer = threading.Timer(0.3, lambda: [site.end(handle.id) for handle in reversed(handles)])
        timer.start()

        results = _in_threads([lambda handle=handle: handle.result(SOON).id for handle in handles])  # type: ignore[misc]

        timer.join()
        assert results == [handle.id for handle in handles]

    def test_many_threads_wait_for_the_same(self, site: Site, queue: EcsQueue) -> None:
        handle = queue.submit(["true"])
        timer = threading.Timer(0.3, lambda: site.end(handle.id))
        timer.start()

        results = _in_threads([lambda: handle.result(SOON).succeeded] * 10)

        timer.join()
        assert results == [True] * 10

    def test_a_lost_message_of_one_is_found_while_another_waits_for_long(self, site: Site, queue: EcsQueue) -> None:
        """The thread that reads for all must not ask the ledger for its own request alone."""
        long, short = queue.submit_many([{"id": "long", "command": ["true"]}, {"id": "short", "command": ["true"]}])
        taken: list[float] = []

        def wait_long() -> object:
            with pytest.raises(ResultTimeout):
                long.result(4.0)
            return None

        def wait_short() -> object:
            time.sleep(0.3)
            site.end("short", announce=False)
            before = time.monotonic()
            short.result(SOON)
            taken.append(time.monotonic() - before)
            return None

        assert _in_threads([wait_long, wait_short]) == [None, None]
        assert taken[0] < 2.5

    def test_a_close_ends_the_waiting_of_other_threads(self, queue: EcsQueue) -> None:
        handle = queue.submit(["true"])
        timer = threading.Timer(0.3, queue.close)
        timer.start()

        results = _in_threads([lambda: handle.result()] * 3)

        timer.join()
        assert [type(result) for result in results] == [UsageError] * 3


class TestConfirmation:
    def test_what_was_handed_out_is_confirmed_when_the_next_is_asked_for(self, site: Site, queue: EcsQueue) -> None:
        one, other = queue.submit_many([{"id": "a", "command": ["true"]}, {"id": "b", "command": ["true"]}])
        site.end("a")
        completed = queue.as_completed([one, other], SOON)
        next(completed)
        assert site.record("a").undelivered

        site.end("b")
        next(completed)

        assert not site.record("a").undelivered
        assert list(completed) == []
        assert not site.record("b").undelivered

    def test_a_close_confirms(self, site: Site, queue: EcsQueue) -> None:
        handle = queue.submit(["true"])
        site.end(handle.id)
        handle.result(SOON)

        queue.close()

        assert not site.record(handle.id).undelivered

    @pytest.mark.parametrize("when", ["before", "after"])
    def test_a_ledger_that_fails_then_is_told_later_and_never_raises(
        self, site: Site, queue: EcsQueue, when: str
    ) -> None:
        handle = queue.submit(["true"])
        site.end(handle.id)
        site.ledger.fail("confirm", when)

        assert [result.id for result in queue.as_completed([handle], SOON)] == [handle.id]
        queue.close()

        assert not site.record(handle.id).undelivered

    def test_a_result_of_another_owner_stays_theirs(self, site: Site, queue: EcsQueue) -> None:
        queue.submit(["true"], id="a")
        other = site.client()
        site.end("a")

        list(other.as_completed([other.handle("a")], SOON))
        other.close()

        assert site.record("a").undelivered


class TestStop:
    def test_before_the_launch_it_ends_at_once_and_its_owner_is_told(self, site: Site, queue: EcsQueue) -> None:
        handle = queue.submit(["true"])
        before = time.monotonic()

        assert handle.stop(by="alice") is State.REVOKED

        result = handle.result(SOON)
        assert (result.state, result.reason) == ("REVOKED", "stopped by alice")
        assert time.monotonic() - before < SOON

    def test_after_the_launch_it_is_marked(self, site: Site, queue: EcsQueue) -> None:
        handle = queue.submit(["true"])
        site.memory.claim(handle.id, ClaimOffer(claim="c", worker="w", args="{}", target="{}"))

        assert handle.stop() is State.LAUNCHING
        assert site.record(handle.id).stop_by == "client"

    def test_what_has_ended_stays_as_it_is(self, site: Site, queue: EcsQueue) -> None:
        handle = queue.submit(["true"])
        site.end(handle.id)

        assert handle.stop() is State.SUCCESS

    def test_an_id_that_is_not_known_yet_is_revoked_when_it_arrives(self, queue: EcsQueue) -> None:
        assert queue.stop("later") is State.REVOKED
        assert queue.submit(["true"], id="later").state() is State.REVOKED

    def test_many_are_stopped_in_order_though_the_broker_is_gone(self, site: Site, queue: EcsQueue) -> None:
        queue.submit_many([{"id": "a", "command": ["true"]}, {"id": "b", "command": ["true"]}])
        site.end("a")
        site.broker.fails = True

        assert [(record.id, record.state) for record in queue.stop_many(["a", "b"])] == [
            ("a", State.SUCCESS),
            ("b", State.REVOKED),
        ]


class TestClose:
    def test_a_queue_of_results_of_its_own_is_forgotten_if_it_was_used(self, site: Site, queue: EcsQueue) -> None:
        handle = queue.submit(["true"])
        site.end(handle.id)
        handle.result(SOON)

        queue.close()

        assert site.broker.forgotten == [queue.owner]

    def test_one_that_was_never_read_or_is_shared_is_not(self, site: Site, queue: EcsQueue) -> None:
        queue.submit(["true"])
        queue.close()
        shared = site.client(owner="airflow")
        handle = shared.submit(["true"])
        site.end(handle.id)
        handle.result(SOON)
        shared.close()

        assert site.broker.forgotten == []

    def test_a_broker_that_is_gone_does_not_hinder_it(self, site: Site, queue: EcsQueue) -> None:
        handle = queue.submit(["true"])
        site.end(handle.id)
        handle.result(SOON)
        site.broker.fails = True

        queue.close()

        assert not site.record(handle.id).undelivered

    def test_closing_twice_does_no_harm(self, queue: EcsQueue) -> None:
        queue.close()
        queue.close()


def test_clients_have_owners_of_their_own(site: Site) -> None:
    assert site.client().owner != site.client().owner


def test_the_backlog_is_the_brokers(queue: EcsQueue) -> None:
    queue.submit_many([{"command": ["true"]}] * 3)

    assert queue.backlog("default") == 3


def test_the_check_needs_both_broker_and_ledger(site: Site, queue: EcsQueue) -> None:
    queue.check()
    site.ledger.fail("now", "before")

    with pytest.raises(LedgerUnavailable):
        queue.check()


def test_no_representation_shows_the_command(queue: EcsQueue) -> None:
    handle = queue.submit(["psql", "hunter2"])

    assert isinstance(handle, Handle)
    assert "hunter2" not in repr(handle)
    assert "hunter2" not in repr(handle.draft)


def test_a_failed_request_says_so(site: Site, queue: EcsQueue) -> None:
    handle = queue.submit(["true"])
    site.memory.claim(handle.id, ClaimOffer(claim="c", worker="w", args="{}", target="{}"))
    no = Refusal(kind=RefusalKind.PERMANENT, reason="not authorized", wait=2.0, max_attempts=3)
    site.memory.refused(handle.id, "c", no)

    result = handle.result(SOON)

    assert (result.state, result.succeeded, result.reason) == ("FAILED", False, "not authorized")
