"""Waiting for results as a caller of the client sees it."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from ecs_queue.client.batch import Batch
from ecs_queue.client.client import EcsQueue
from ecs_queue.errors import (
    BrokerUnavailable,
    EcsQueueError,
    ResultTimeout,
    UnknownTask,
    UsageError,
)
from ecs_queue.protocol.states import State
from tests.client.harness import TIMEOUT, ClientHarness


class TestResults:
    def test_a_result_comes_by_message(self, harness: ClientHarness, queue: EcsQueue) -> None:
        handle = queue.submit(["true"])
        harness.finish(handle.id)

        result = handle.result(TIMEOUT)

        assert (result.id, result.state, result.succeeded) == (handle.id, "SUCCESS", True)

    def test_after_a_lost_message_the_result_comes_from_the_ledger_within_two_seconds(
        self, harness: ClientHarness, queue: EcsQueue
    ) -> None:
        handle = queue.submit(["true"])
        harness.finish(handle.id, publish_result=False)
        before = time.monotonic()

        assert handle.result(TIMEOUT).succeeded

        assert time.monotonic() - before < 5  # a second or two, on a machine that is busy with other tests

    def test_the_time_out_is_kept_and_the_request_goes_on(self, harness: ClientHarness, queue: EcsQueue) -> None:
        handle = queue.submit(["true"])
        before = time.monotonic()
        with pytest.raises(ResultTimeout, match=f"{handle.id} has not ended in time"):
            handle.result(0.3)
        assert 0.2 < time.monotonic() - before < 10

        harness.finish(handle.id)

        assert handle.result(TIMEOUT).succeeded

    def test_no_time_at_all_is_a_time_out_too(self, queue: EcsQueue) -> None:
        with pytest.raises(ResultTimeout):
            queue.submit(["true"]).result(0)

    @pytest.mark.parametrize("timeout", [math.inf, 1e300])
    @pytest.mark.parametrize(
        "wait",
        [
            lambda batch, timeout: batch[0].result(timeout),
            lambda batch, timeout: batch[0].exception(timeout),
            lambda batch, timeout: list(batch.as_completed(timeout)),
            lambda batch, timeout: batch.wait(timeout),
            lambda batch, timeout: batch.results(timeout),
        ],
        ids=["result", "exception", "as_completed", "wait", "results"],
    )
    def test_a_time_out_may_be_longer_than_any_clock_counts(
        self, harness: ClientHarness, queue: EcsQueue, wait: Callable[[Batch, float], Any], timeout: float
    ) -> None:
        batch = queue.submit_many([{"id": "a", "command": ["true"]}])
        ending = threading.Timer(0.1, harness.finish, ["a"])
        ending.start()

        wait(batch, timeout)

        assert batch[0].done()
        ending.join()

    def test_a_result_may_be_requested_again(self, harness: ClientHarness, queue: EcsQueue) -> None:
        handle = queue.submit(["true"])
        harness.finish(handle.id)

        assert handle.result(TIMEOUT) == handle.result(TIMEOUT)

    def test_the_submission_of_another_client_is_found_by_its_id(self, harness: ClientHarness, queue: EcsQueue) -> None:
        queue.submit(["true"], id="a")
        other = harness.make_client()
        handle = other.handle("a")
        assert handle.state() is State.QUEUED

        harness.finish("a")

        assert handle.result(TIMEOUT).succeeded
        assert handle.state() is State.SUCCESS

    def test_an_unknown_id_raises(self, queue: EcsQueue) -> None:
        with pytest.raises(UnknownTask, match="nothing-of-the-kind"):
            queue.handle("nothing-of-the-kind")

    def test_a_client_without_an_owner_reads_only_the_ledger(self, harness: ClientHarness) -> None:
        queue = harness.make_client(owner="")
        handle = queue.submit(["true"])
        assert harness.record(handle.id).owner == ""

        harness.finish(handle.id)

        assert handle.result(TIMEOUT).succeeded

    def test_an_unavailable_broker_only_delays_the_result(self, harness: ClientHarness, queue: EcsQueue) -> None:
        def gone(owner: str) -> Any:
            raise BrokerUnavailable

        harness.broker.consume_results = gone  # type: ignore[method-assign]
        handle = queue.submit(["true"])
        harness.finish(handle.id)

        assert handle.result(TIMEOUT).succeeded

    def test_a_result_waits_for_an_unavailable_ledger(self, harness: ClientHarness, queue: EcsQueue) -> None:
        handle = queue.submit(["true"])
        harness.finish(handle.id, publish_result=False)
        harness.ledger.fail("get", "before")

        assert handle.result(TIMEOUT).succeeded

    def test_garbage_among_the_results_is_skipped(self, harness: ClientHarness, queue: EcsQueue) -> None:
        handle = queue.submit(["true"])
        harness.broker.publish_results([(queue.owner, b"garbage"), (queue.owner, b"{}")])
        harness.finish(handle.id)

        assert handle.result(TIMEOUT).succeeded


class TestAsCompleted:
    def test_results_come_in_the_order_in_which_the_requests_end(self, harness: ClientHarness, queue: EcsQueue) -> None:
        handles = queue.submit_many([{"id": f"t{index}", "command": ["true"]} for index in range(5)])
        for index in (3, 1, 4, 0, 2):
            harness.finish(f"t{index}")

        assert [result.id for result in queue.as_completed(handles, TIMEOUT)] == ["t3", "t1", "t4", "t0", "t2"]

    def test_the_time_out_leaves_the_others_to_a_later_call(self, harness: ClientHarness, queue: EcsQueue) -> None:
        handles = queue.submit_many([{"id": f"t{index}", "command": ["true"]} for index in range(3)])
        harness.finish("t1")
        completed = queue.as_completed(handles, 0.4)
        assert next(completed).id == "t1"
        with pytest.raises(ResultTimeout, match="2 of the requests"):
            next(completed)

        harness.finish("t0")
        harness.finish("t2")

        assert {result.id for result in queue.as_completed([handles[0], handles[2]], TIMEOUT)} == {"t0", "t2"}

    def test_a_result_of_an_abandoned_iterator_is_not_lost(self, harness: ClientHarness, queue: EcsQueue) -> None:
        handles = queue.submit_many([{"id": f"t{index}", "command": ["true"]} for index in range(3)])
        for handle in handles:
            harness.finish(handle.id)
        given_up = queue.as_completed(handles, TIMEOUT)
        next(given_up)
        del given_up

        assert len(list(queue.as_completed(handles, TIMEOUT))) == 3

    def test_none_is_over_at_once(self, queue: EcsQueue) -> None:
        assert list(queue.as_completed([], 0)) == []

    def test_the_same_handle_twice_gives_one_result(self, harness: ClientHarness, queue: EcsQueue) -> None:
        handle = queue.submit(["true"])
        harness.finish(handle.id)

        assert len(list(queue.as_completed([handle, handle], TIMEOUT))) == 1

    def test_many_results_need_no_ledger_read_each(self, harness: ClientHarness, queue: EcsQueue) -> None:
        handles = queue.submit_many([{"id": f"t{index}", "command": ["true"]} for index in range(600)])
        for handle in handles:
            harness.finish(handle.id)
        before = time.monotonic()

        results = {handle.result(TIMEOUT).id for handle in handles}

        assert len(results) == 600
        assert time.monotonic() - before < 20

    def test_many_results_without_messages_are_found_in_turn(self, harness: ClientHarness, queue: EcsQueue) -> None:
        handles = queue.submit_many([{"id": f"t{index}", "command": ["true"]} for index in range(1200)])
        for handle in handles:
            harness.finish(handle.id, publish_result=False)

        assert len(list(queue.as_completed(handles, TIMEOUT))) == 1200


class TestLostPuts:
    def test_a_request_that_the_ledger_lost_is_put_again_as_the_same_request(
        self, harness: ClientHarness, queue: EcsQueue
    ) -> None:
        handle = queue.submit(["true"], id="a")
        before = harness.record("a")
        _lose_record(harness, "a")
        timer = threading.Timer(0.6, lambda: harness.finish("a"))
        timer.start()

        assert handle.result(TIMEOUT).succeeded

        timer.join()
        assert harness.record("a").nonce == before.nonce
        bodies = {message.body for message in harness.broker.published}
        assert (len(harness.broker.published), len(bodies)) == (2, 1)

    def test_a_lost_request_that_cannot_be_put_again_raises(self, harness: ClientHarness) -> None:
        clock = [time.time()]
        queue = EcsQueue(harness.config, harness.broker, harness.memory_ledger, clock=lambda: clock[0] - 86_399.5)
        handle = queue.submit(["true"])
        time.sleep(0.6)
        _lose_record(harness, handle.id)

        with pytest.raises(UnknownTask):
            handle.result(TIMEOUT)

    def test_a_result_whose_retention_is_over_raises(self, harness: ClientHarness, queue: EcsQueue) -> None:
        queue.submit(["true"], id="a")
        handle = harness.make_client().handle("a")
        _lose_record(harness, "a")

        with pytest.raises(UnknownTask, match="a"):
            handle.result()

    def test_an_id_that_belongs_to_another_request_by_now_raises(self, harness: ClientHarness, queue: EcsQueue) -> None:
        handle = queue.submit(["true"], id="a")
        _lose_record(harness, "a")
        harness.make_client().submit(["false"], id="a")

        with pytest.raises(UnknownTask):
            handle.result(TIMEOUT)


def _lose_record(harness: ClientHarness, record_id: str) -> None:
    """The ledger loses a record in a fail-over."""
    del harness.memory_ledger._records[record_id]
    harness.memory_ledger._due_at.pop(record_id, None)
    harness.memory_ledger._start_deadlines.pop(record_id, None)


def _in_threads(acts: Sequence[Callable[[], object]]) -> list[object]:
    """Run the functions at the same time; return what each returned or raised. Fails when one does not end."""
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
        thread.join(60)
    assert not [thread for thread in threads if thread.is_alive()]
    return results


class TestThreads:
    def test_many_threads_wait_each_for_its_own(self, harness: ClientHarness, queue: EcsQueue) -> None:
        handles = queue.submit_many([{"id": f"t{index}", "command": ["true"]} for index in range(20)])
        timer = threading.Timer(0.3, lambda: [harness.finish(handle.id) for handle in reversed(handles)])
        timer.start()

        results = _in_threads([lambda handle=handle: handle.result(TIMEOUT).id for handle in handles])  # type: ignore[misc]

        timer.join()
        assert results == [handle.id for handle in handles]

    def test_many_threads_wait_for_the_same(self, harness: ClientHarness, queue: EcsQueue) -> None:
        handle = queue.submit(["true"])
        timer = threading.Timer(0.3, lambda: harness.finish(handle.id))
        timer.start()

        results = _in_threads([lambda: handle.result(TIMEOUT).succeeded] * 10)

        timer.join()
        assert results == [True] * 10

    def test_a_close_ends_the_waiting_of_other_threads(self, queue: EcsQueue) -> None:
        handle = queue.submit(["true"])
        timer = threading.Timer(0.3, queue.close)
        timer.start()

        results = _in_threads([lambda: handle.result()] * 3)

        timer.join()
        assert [type(result) for result in results] == [UsageError] * 3
