"""A handle as a `concurrent.futures.Future`."""

from __future__ import annotations

import concurrent.futures
import gc
import getpass
import os
import sys
import threading
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from ecs_queue.client import results as client_results
from ecs_queue.client.client import EcsQueue
from ecs_queue.errors import LedgerUnavailable, ResultTimeout, UnknownTask, UsageError
from ecs_queue.messages.result import TaskResult
from ecs_queue.protocol.operations import ClaimRequest
from tests.client.harness import TIMEOUT, ClientHarness
from tests.wait import wait_until


def test_it_is_done_when_the_request_has_ended_however_it_ended(harness: ClientHarness, queue: EcsQueue) -> None:
    handle = queue.submit(["false"])
    assert isinstance(handle, Future)
    assert not handle.done()

    harness.finish(handle.id, exit_code=1)

    assert handle.exception(TIMEOUT) is None
    assert (handle.done(), handle.result(0).state, handle.cancelled()) == (True, "FAILED", False)


def test_it_is_done_although_no_caller_waits(harness: ClientHarness, queue: EcsQueue) -> None:
    handle = queue.submit(["true"])
    harness.finish(handle.id)

    wait_until(handle.done, seconds=TIMEOUT)
    assert handle.result(0).state == "SUCCESS"


def test_the_standard_librarys_wait_and_as_completed_take_handles(harness: ClientHarness, queue: EcsQueue) -> None:
    first, second, third = queue.submit_many([{"id": name, "command": ["true"]} for name in "abc"])
    harness.finish("b")
    done, open_handles = concurrent.futures.wait(
        [first, second, third], TIMEOUT, return_when=concurrent.futures.FIRST_COMPLETED
    )
    assert (done, open_handles) == ({second}, {first, third})

    harness.finish("a")
    harness.finish("c")

    ended = concurrent.futures.as_completed([first, second, third], TIMEOUT)
    assert {future.result().id for future in ended} == {"a", "b", "c"}


def test_a_callback_is_called_also_when_the_program_keeps_no_handle(harness: ClientHarness, queue: EcsQueue) -> None:
    called: list[str] = []

    def note(handle: Future[TaskResult]) -> None:
        called.append(handle.result().id)

    queue.submit(["true"], id="a").add_done_callback(note)
    gc.collect()

    harness.finish("a")
    wait_until(lambda: called, seconds=TIMEOUT)
    queue.handle("a").add_done_callback(note)

    assert called == ["a", "a"]


def test_a_callback_that_ends_its_thread_ends_neither_the_reading_nor_other_callbacks(
    harness: ClientHarness, queue: EcsQueue, caplog: pytest.LogCaptureFixture
) -> None:
    called: list[str] = []
    handle, other = queue.submit_many([{"id": "a", "command": ["true"]}, {"id": "b", "command": ["true"]}])
    same = queue.handle("a")
    handle.add_done_callback(lambda _: sys.exit(3))
    handle.add_done_callback(lambda _: called.append("second"))

    harness.finish("a")

    assert handle.result(TIMEOUT).succeeded
    assert same.result(TIMEOUT).succeeded
    harness.finish("b")
    assert other.result(TIMEOUT).succeeded
    assert called == ["second"]
    assert "A callback of a ended with an error" in caplog.text


def test_a_callback_may_end_the_callers_own_thread_and_all_handles_are_done_nevertheless(
    harness: ClientHarness, queue: EcsQueue
) -> None:
    handle = queue.submit(["true"], id="a")
    same, other = queue.handle("a"), queue.submit(["true"], id="b")
    handle.add_done_callback(lambda _: sys.exit(3))

    with pytest.raises(SystemExit):
        queue.close()

    assert [one.done() for one in (handle, same, other)] == [True, True, True]
    assert queue.results._kept == set()
    with pytest.raises(UsageError, match="the client is closed"):
        queue.submit(["true"])


def test_a_callback_that_waits_for_another_result_gets_an_error(harness: ClientHarness, queue: EcsQueue) -> None:
    one, other = queue.submit_many([{"id": "one", "command": ["true"]}, {"id": "other", "command": ["true"]}])
    raised: list[Exception] = []

    def wait_for_the_other(handle: Future[TaskResult]) -> None:
        try:
            other.result()
        except UsageError as error:
            raised.append(error)

    one.add_done_callback(wait_for_the_other)
    harness.finish("one")

    wait_until(lambda: raised, seconds=TIMEOUT)
    assert "a callback waits for another result" in str(raised[0])


def test_a_cancel_before_the_launch_is_true_and_the_result_is_there_at_once(queue: EcsQueue) -> None:
    handle = queue.submit(["true"])

    assert handle.cancel()

    assert handle.result(0).state == "REVOKED"
    assert handle.cancelled()
    assert handle.cancel()


def test_a_cancel_of_what_may_run_is_false_and_its_end_comes_later(harness: ClientHarness, queue: EcsQueue) -> None:
    handle = queue.submit(["true"])
    harness.memory_ledger.claim(handle.id, ClaimRequest(claim="c", worker="w", args="{}", target="{}"))

    assert handle.running()
    assert not handle.cancel()

    assert (handle.done(), harness.record(handle.id).stop_requested_by) == (False, getpass.getuser())


def test_a_cancel_of_what_has_ended_is_false(harness: ClientHarness, queue: EcsQueue) -> None:
    handle = queue.submit(["true"])
    harness.finish(handle.id)

    assert not handle.cancel()

    assert handle.result(0).state == "SUCCESS"
    assert not handle.running()


def test_a_cancel_raises_while_the_ledger_cannot_be_reached(harness: ClientHarness, queue: EcsQueue) -> None:
    handle = queue.submit(["true"])
    harness.ledger.fail("stop", "before")

    with pytest.raises(LedgerUnavailable):
        handle.cancel()

    assert not handle.done()


def test_the_time_out_is_also_the_standard_librarys(queue: EcsQueue) -> None:
    with pytest.raises(TimeoutError) as raised:
        queue.submit(["true"]).exception(0)

    assert isinstance(raised.value, ResultTimeout)


def test_the_handle_of_a_request_that_had_ended_is_done(harness: ClientHarness, queue: EcsQueue) -> None:
    queue.submit(["true"], id="a")
    harness.finish("a")

    assert harness.make_client(owner="").handle("a").done()


def test_a_close_ends_the_handles_that_are_not_done(queue: EcsQueue) -> None:
    handle = queue.submit(["true"])
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(concurrent.futures.wait, [handle], TIMEOUT)
        queue.close()
        assert waiting.result(TIMEOUT).done == {handle}

    with pytest.raises(UsageError, match="the client was closed"):
        handle.result()


def test_a_lost_request_raises_from_every_way_to_ask(harness: ClientHarness, queue: EcsQueue) -> None:
    queue.submit(["true"], id="a")
    handle = harness.make_client().handle("a")
    del harness.memory_ledger._records["a"]

    assert isinstance(handle.exception(TIMEOUT), UnknownTask)


def test_a_client_has_one_thread_however_many_handles_and_it_ends_with_the_client(
    harness: ClientHarness, queue: EcsQueue
) -> None:
    others = set(threading.enumerate())
    handles = queue.submit_many([{"command": ["true"]}] * 300)
    for handle in handles:
        handle.add_done_callback(lambda _: None)

    started = set(threading.enumerate()) - others
    queue.close()

    assert [thread.name for thread in started] == ["ecs-queue-results"]
    (thread,) = started
    thread.join(TIMEOUT)
    assert not thread.is_alive()
    assert all(handle.done() for handle in handles)


def test_the_thread_ends_when_nothing_is_awaited_and_starts_again(
    harness: ClientHarness, queue: EcsQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_results, "_LINGER_SECONDS", 0.05)
    for name in ("a", "b"):
        handle = queue.submit(["true"], id=name)
        harness.finish(name)
        assert handle.result(TIMEOUT).succeeded
        wait_until(lambda: not queue.results._is_running, seconds=TIMEOUT)


def test_a_handle_is_watched_only_while_it_is_kept(harness: ClientHarness, queue: EcsQueue) -> None:
    kept = queue.submit(["true"], id="kept")
    for _ in range(50):
        queue.submit(["true"])
    gc.collect()

    wait_until(lambda: len(queue.results._watched) == 1, seconds=TIMEOUT)
    assert list(queue.results._watched) == [("kept", kept.nonce)]
    del kept
    gc.collect()
    wait_until(lambda: not queue.results._watched, seconds=TIMEOUT)


def test_an_error_that_is_no_outage_ends_the_waiting(harness: ClientHarness, queue: EcsQueue) -> None:
    class BrokenError(Exception):
        pass

    def get(ids: object) -> None:
        raise BrokenError

    handle = queue.submit(["true"])
    harness.memory_ledger.get = get  # type: ignore[method-assign,assignment]

    with pytest.raises(BrokenError):
        handle.result(TIMEOUT)


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_process_gets_an_error_and_needs_a_client_of_its_own(harness: ClientHarness, queue: EcsQueue) -> None:
    handle = queue.submit(["true"])
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            for call in (lambda: queue.submit(["true"]), handle.result, lambda: queue.status(handle.id)):
                try:
                    call()
                except UsageError as error:
                    os.write(writing, f"{error}\n".encode())
            queue.close()
        finally:
            os._exit(0)
    os.close(writing)
    written = b""
    while part := os.read(reading, 4096):
        written += part
    os.waitpid(child, 0)

    assert written.count(b"the client was opened before this process was forked") == 3
    harness.finish(handle.id)
    assert handle.result(TIMEOUT).succeeded
    assert harness.broker.forgotten_owners == []
