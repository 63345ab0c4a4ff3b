"""The client for asyncio."""

from __future__ import annotations

import asyncio
import gc
import getpass
import os
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import pytest

from ecs_queue import AsyncEcsQueue, Request
from ecs_queue.errors import InvalidRequest, ResultTimeout, UsageError
from ecs_queue.protocol.operations import ClaimRequest
from tests.client.harness import TIMEOUT, ClientHarness

T = TypeVar("T")


def _run(main: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(asyncio.wait_for(main, TIMEOUT), debug=True)


@pytest.fixture
def queue(harness: ClientHarness) -> AsyncEcsQueue:
    return AsyncEcsQueue(harness.make_client())


def test_a_handle_is_awaited_and_the_end_is_the_client(harness: ClientHarness, queue: AsyncEcsQueue) -> None:
    async def main() -> str:
        async with queue:
            handle = await queue.submit(["true"], id="a", environment={"A": "1"})
            harness.finish("a", exit_code=1)
            return (await handle).state

    assert _run(main()) == "FAILED"
    with pytest.raises(UsageError, match="the client is closed"):
        queue.queue.submit(["true"])


def test_a_client_that_was_closed_refuses_calls_and_may_be_closed_again(queue: AsyncEcsQueue) -> None:
    async def main() -> None:
        await queue.close()
        with pytest.raises(UsageError, match="the client is closed"):
            await queue.submit(["true"])
        await queue.close()

    _run(main())


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_process_gets_an_error_from_every_call(queue: AsyncEcsQueue) -> None:
    handle = asyncio.run(queue.submit(["true"]))
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            calls: list[Callable[[], Coroutine[Any, Any, Any]]] = [
                handle.result,
                handle.cancel,
                lambda: queue.submit(["true"]),
            ]
            for call in calls:
                try:
                    asyncio.run(asyncio.wait_for(call(), TIMEOUT))
                except UsageError as error:
                    os.write(writing, f"{error}\n".encode())
            asyncio.run(queue.close())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        written = pipe.read()
    os.waitpid(child, 0)

    assert written.count(b"the client was opened before this process was forked") == 3


def test_many_are_awaited_at_once_and_in_the_order_of_their_ends(harness: ClientHarness, queue: AsyncEcsQueue) -> None:
    async def main() -> None:
        async with queue:
            handles = await queue.submit_many(Request(command=["true"], id=name) for name in "abc")
            harness.finish("b")
            results = queue.as_completed(handles, TIMEOUT)
            assert (await anext(results)).id == "b"
            harness.finish("c")
            assert (await anext(results)).id == "c"
            harness.finish("a")
            assert [result.id async for result in results] == ["a"]
            assert [result.id for result in await asyncio.gather(*handles)] == ["a", "b", "c"]

    _run(main())


def test_a_result_counts_as_delivered_when_the_next_one_is_requested(
    harness: ClientHarness, queue: AsyncEcsQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    confirmed: list[str] = []
    monkeypatch.setattr(queue.queue.results, "confirm_later", lambda handle: confirmed.append(handle.id))

    async def main() -> None:
        async with queue:
            handles = await queue.submit_many(Request(command=["true"], id=name) for name in "ab")
            results = queue.as_completed([*handles, handles[0]], TIMEOUT)
            harness.finish("b")
            assert (await anext(results)).id == "b"
            assert confirmed == []
            harness.finish("a")
            assert [result.id async for result in results] == ["a"]
            assert confirmed == ["b", "a"]

    _run(main())


def test_cancelling_the_task_that_waits_leaves_the_request_and_nothing_else(
    harness: ClientHarness, queue: AsyncEcsQueue
) -> None:
    async def main() -> None:
        async with queue:
            handle = await queue.submit(["true"], id="a")
            for _ in range(3):
                waiting = asyncio.ensure_future(handle.result())
                await asyncio.sleep(0)
                waiting.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await waiting
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(handle, 0.05)
            assert not handle._waiters
            assert not queue.queue.results._kept
            assert not harness.record("a").stop_requested_by

            harness.finish("a")

            assert (await handle).succeeded
            del handle, waiting
            gc.collect()

    _run(main())


def test_an_explicit_cancel_stops_the_request(harness: ClientHarness, queue: AsyncEcsQueue) -> None:
    async def main() -> None:
        async with queue:
            waiting, running = await queue.submit_many([{"command": ["true"]}, {"command": ["true"], "id": "b"}])
            harness.memory_ledger.claim("b", ClaimRequest(claim="c", worker="w", args="{}", target="{}"))

            assert await waiting.cancel()
            assert not await running.cancel()

            assert ((await waiting).state, waiting.done(), running.done()) == ("REVOKED", True, False)
            assert harness.record("b").stop_requested_by == getpass.getuser()

    _run(main())


def test_a_time_out_is_the_clients_and_one_of_asyncio_is_asyncios(harness: ClientHarness, queue: AsyncEcsQueue) -> None:
    async def main() -> None:
        async with queue:
            handle = await queue.submit(["true"])
            with pytest.raises(ResultTimeout):
                await handle.result(0.05)
            with pytest.raises(ResultTimeout, match="1 of the requests"):
                await anext(queue.as_completed([handle], 0.05))
            with pytest.raises(TimeoutError) as raised:
                async with asyncio.timeout(0.05):
                    await handle
            assert not isinstance(raised.value, ResultTimeout)

    _run(main())


def test_the_event_loop_is_not_blocked_while_a_server_is(harness: ClientHarness, queue: AsyncEcsQueue) -> None:
    released = threading.Event()

    def block(operation: str, when: str) -> None:
        if (operation, when) == ("put", "before"):
            assert released.wait(TIMEOUT)

    async def main() -> None:
        async with queue:
            harness.ledger.on_call = block
            submitting = asyncio.ensure_future(queue.submit(["true"]))
            await asyncio.sleep(0.05)
            assert not submitting.done()
            released.set()
            assert (await submitting).id

    _run(main())


def test_queues_and_requests_are_looked_at(harness: ClientHarness, queue: AsyncEcsQueue) -> None:
    async def main() -> None:
        async with queue:
            await queue.submit(["true"], id="a", queue="etl", concurrency_key="k", labels={"team": "data"})
            await queue.pause("etl")
            assert await queue.resume("etl") == ["etl"]
            assert [record.id for record in await queue.tasks(queue="etl")] == ["a"]
            assert [record.id for record in await queue.tasks(key="k", labels={"team": "data"})] == ["a"]
            assert await queue.tasks(key="l") == await queue.tasks(labels={"team": "ops"}) == []
            assert await queue.tasks(owner="another") == await queue.tasks(reason="no such reason") == []
            assert (await queue.status("a")).queue == "etl"
            assert (await (await queue.handle("a")).state()) == "QUEUED"
            assert await queue.stop("a") == "REVOKED"
            with pytest.raises(InvalidRequest):
                await queue.submit([])

    _run(main())


def test_two_event_loops_may_wait_for_one_request(harness: ClientHarness, queue: AsyncEcsQueue) -> None:
    async def submit() -> Any:
        return await queue.submit(["true"], id="a")

    handle = _run(submit())
    with pytest.raises(TimeoutError):
        asyncio.run(asyncio.wait_for(handle.result(), 0.05))
    harness.finish("a")

    assert _run(handle.result()).succeeded
