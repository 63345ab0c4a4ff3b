"""The handles of one `submit_many`."""

from __future__ import annotations

import pytest

from ecs_queue import Batch, Request, State
from ecs_queue.client.client import EcsQueue
from ecs_queue.errors import ResultTimeout, UnknownTask, UsageError
from ecs_queue.messages import envelope
from ecs_queue.protocol.operations import ClaimRequest
from tests.client.harness import TIMEOUT, ClientHarness
from tests.wait import wait_until


@pytest.fixture
def batch(queue: EcsQueue) -> Batch:
    return queue.submit_many(Request(command=["run", name], id=name, cpu=256) for name in "abcd")


def test_it_is_a_sequence_of_handles_in_the_order_of_the_requests(batch: Batch) -> None:
    assert [handle.id for handle in batch] == ["a", "b", "c", "d"]
    assert (len(batch), batch[1].id, [handle.id for handle in batch[2:]]) == (4, "b", ["c", "d"])
    assert isinstance(batch[2:], Batch)
    assert batch[0] in batch
    assert "run" not in repr(batch)


def test_counts_are_of_now_by_state(harness: ClientHarness, batch: Batch) -> None:
    harness.finish("a")
    harness.finish("b", exit_code=1)
    harness.memory_ledger.claim("c", ClaimRequest(claim="c", worker="w", args="{}", target="{}"))

    assert batch.counts() == {State.SUCCESS: 1, State.FAILED: 1, State.LAUNCHING: 1, State.QUEUED: 1}


def test_counts_of_a_request_that_the_ledger_has_forgotten_raise(harness: ClientHarness, batch: Batch) -> None:
    batch[3].prepared_request = None  # else it is put again
    del harness.memory_ledger._records["d"]

    with pytest.raises(UnknownTask, match="no record of d"):
        batch.counts()


def test_wait_says_whether_all_have_ended_and_results_are_in_order(harness: ClientHarness, batch: Batch) -> None:
    for name in "dcb":
        harness.finish(name)
    assert not batch.wait(0.1)
    with pytest.raises(ResultTimeout, match="of 4 requests have not ended"):
        batch.results(0)

    harness.finish("a")

    assert batch.wait(TIMEOUT)
    assert [result.id for result in batch.results()] == ["a", "b", "c", "d"]


def test_a_callback_that_waits_for_a_batch_is_refused(harness: ClientHarness, queue: EcsQueue, batch: Batch) -> None:
    raised: list[Exception] = []

    def wait_for_all(handle: object) -> None:
        try:
            batch.wait(TIMEOUT)
        except UsageError as error:
            raised.append(error)

    one = queue.submit(["true"])
    one.add_done_callback(wait_for_all)
    harness.finish(one.id)

    wait_until(lambda: raised, seconds=TIMEOUT)
    assert "a callback waits for another result" in str(raised[0])


def test_as_completed_yields_the_results_as_they_end(harness: ClientHarness, batch: Batch) -> None:
    for name in "dacb":
        harness.finish(name)

    assert [result.id for result in batch.as_completed(TIMEOUT)] == ["d", "a", "c", "b"]


def test_cancel_revokes_what_is_not_launched_in_one_call(harness: ClientHarness, batch: Batch) -> None:
    harness.finish("a")
    assert batch[0].result(TIMEOUT).succeeded
    harness.memory_ledger.claim("b", ClaimRequest(claim="c", worker="w", args="{}", target="{}"))
    calls: list[str] = []
    harness.ledger.on_call = lambda operation, when: calls.append(operation) if when == "before" else None

    assert batch.cancel() == 2

    assert calls.count("stop") == 1
    assert [handle.done() for handle in batch] == [True, False, True, True]
    assert [handle.cancelled() for handle in batch] == [False, False, True, True]


def test_what_has_failed_is_submitted_again_under_ids_that_name_their_origin(
    harness: ClientHarness, batch: Batch
) -> None:
    harness.finish("a")
    harness.finish("b", exit_code=1)
    batch[2].cancel()
    batch[:3].wait(TIMEOUT)

    again = batch.retry_failed()

    (handle,) = again
    request = envelope.decode_request(harness.record(handle.id).request)
    assert (handle.id[:4], request.origin, request.command) == ("b-r-", "b", ["run", "b"])
    assert request.executor_config == {"cpu": 256}
    harness.finish(handle.id)
    assert again.results(TIMEOUT)[0].succeeded
    assert len(again.retry_failed()) == 0


def test_the_caller_says_what_a_failure_is(batch: Batch) -> None:
    batch[0].cancel()

    assert len(batch.retry_failed(frozenset({State.REVOKED}))) == 1


def test_a_request_that_the_ledger_does_not_know_any_more_is_a_failure_only_when_unknown_is(
    batch: Batch, queue: EcsQueue
) -> None:
    queue.results._finish((batch[0].id, batch[0].nonce), UnknownTask("gone"))

    assert len(batch.retry_failed()) == 0
    assert len(batch.retry_failed(frozenset({State.UNKNOWN}))) == 1


def test_a_request_of_another_process_is_not_submitted_again(harness: ClientHarness, queue: EcsQueue) -> None:
    queue.submit(["true"], id="a")
    harness.finish("a", exit_code=1)
    client = harness.make_client(owner="")

    with pytest.raises(UsageError, match="ecs-queue replay a --submit; nothing was submitted"):
        Batch(client, [client.handle("a")]).retry_failed()
