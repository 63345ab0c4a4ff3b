"""Waiting for a call: where it would last for ever (in callbacks, in a forked process) there is an error."""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from contextlib import suppress
from typing import Any

import pytest

from ecs_queue import CallFailed, EcsExecutor
from ecs_queue.calls.executor import CallFuture
from ecs_queue.calls.store import MemoryCallStore
from ecs_queue.client.client import EcsQueue
from ecs_queue.errors import UsageError
from tests.calls.functions import add
from tests.client.conftest import harness as harness
from tests.client.conftest import queue as queue
from tests.client.harness import TIMEOUT, ClientHarness
from tests.wait import wait_until

WAITS: dict[str, Callable[[EcsExecutor, CallFuture[int]], object]] = {
    "result": lambda executor, other: other.result(TIMEOUT),
    "exception": lambda executor, other: other.exception(TIMEOUT),
    "shutdown": lambda executor, other: executor.shutdown(),
}


def _end_normally(harness: ClientHarness, call: CallFuture[int]) -> None:
    harness.finish(call.handle.id, exit_code=1)


def _stop_from_elsewhere(harness: ClientHarness, call: CallFuture[int]) -> None:
    harness.make_client().stop(call.handle.id)


@pytest.mark.parametrize("end", [_end_normally, _stop_from_elsewhere])
@pytest.mark.parametrize("wait", WAITS)
def test_one_that_waits_for_another_call_gets_an_error(
    harness: ClientHarness, queue: EcsQueue, end: Callable[[ClientHarness, CallFuture[int]], None], wait: str
) -> None:
    executor = EcsExecutor(queue, store=MemoryCallStore())
    call, other = executor.submit(add, 1, 1), executor.submit(add, 2, 2)
    raised: list[Exception] = []

    def wait_for_the_other(future: Future[Any]) -> None:
        try:
            WAITS[wait](executor, other)
        except (UsageError, TimeoutError) as error:
            raised.append(error)

    call.add_done_callback(wait_for_the_other)
    end(harness, call)

    wait_until(lambda: raised, seconds=TIMEOUT)
    assert isinstance(raised[0], UsageError)
    assert "a callback of a call waits for another one" in str(raised[0])
    other.cancel()
    executor.shutdown()


def test_one_may_ask_for_what_is_done(harness: ClientHarness, queue: EcsQueue) -> None:
    executor = EcsExecutor(queue, store=MemoryCallStore())
    call, done = executor.submit(add, 1, 1), executor.submit(add, 2, 2)
    assert done.cancel()
    raised: list[BaseException] = []

    def ask(future: Future[Any]) -> None:
        try:
            done.result()
        except CancelledError as error:
            raised.append(error)

    call.add_done_callback(ask)
    harness.finish(call.handle.id, exit_code=1)

    wait_until(lambda: raised, seconds=TIMEOUT)
    executor.shutdown()


@pytest.mark.parametrize("wait", [CallFuture.result, CallFuture.exception])
def test_a_time_out_may_be_longer_than_any_clock_counts(
    harness: ClientHarness, queue: EcsQueue, wait: Callable[[CallFuture[int], float], object]
) -> None:
    with EcsExecutor(queue, store=MemoryCallStore()) as executor:
        call = executor.submit(add, 1, 1)
        ending = threading.Timer(0.1, harness.finish, [call.handle.id, 1])
        ending.start()

        with suppress(CallFailed):
            wait(call, math.inf)

        assert call.done()
        ending.join()


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_process_gets_an_error_from_the_future_of_its_parent(harness: ClientHarness, queue: EcsQueue) -> None:
    executor = EcsExecutor(queue, store=MemoryCallStore())
    call = executor.submit(add, 1, 1)
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            for wait in (call.result, call.exception, executor.shutdown):
                try:
                    wait()
                except UsageError as error:
                    os.write(writing, f"{error}\n".encode())
        finally:
            os._exit(0)
    os.close(writing)
    written = b""
    while part := os.read(reading, 4096):
        written += part
    os.waitpid(child, 0)

    assert written.count(b"the client was opened before this process was forked") == 3
    assert call.cancel()
    executor.shutdown()
