"""The client for asyncio: every call that waits for a server or a result is awaited.

async with AsyncEcsQueue.from_config() as queue:
    handle = await queue.submit(["python", "etl.py"])
    print((await handle).state)
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Callable, Generator, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import Any, ParamSpec, Self, TypeVar, Unpack

from ecs_queue.client.client import EcsQueue
from ecs_queue.client.control import Since
from ecs_queue.client.handle import Handle
from ecs_queue.client.request import Request, RequestOptions
from ecs_queue.errors import ResultTimeout
from ecs_queue.messages.result import TaskResult
from ecs_queue.protocol.record import Record
from ecs_queue.protocol.states import State

T = TypeVar("T")
P = ParamSpec("P")

#: The calls of one client that wait for a server at the same time.
_THREADS = 4


class AsyncHandle:
    """One submitted request; `await handle` returns its `TaskResult`, however the request ended.

    Cancelling the task that awaits it ends only the waiting: the request goes on, as it does when the process ends.
    `await handle.cancel()` stops it.
    """

    def __init__(self, handle: Handle, call: Callable[[Callable[[], Any]], Any]) -> None:
        """Wrap a handle; `call(function)` runs a function in a thread and returns an awaitable."""
        self._handle = handle
        self._call = call
        self._lock = threading.Lock()
        self._waiters: set[asyncio.Future[None]] = set()
        self._is_notified = False

    @property
    def id(self) -> str:
        """The request's id."""
        return self._handle.id

    @property
    def handle(self) -> Handle:
        """The same request as a `concurrent.futures.Future`."""
        return self._handle

    def __repr__(self) -> str:
        """Without the payload."""
        return f"Async{self._handle!r}"

    def __await__(self) -> Generator[Any, None, TaskResult]:
        """Wait for the end, and return how the request ended."""
        return self.result().__await__()

    async def result(self, timeout: float | None = None) -> TaskResult:
        """Wait for the end, and return how the request ended; raises as `Handle.result` does.

        Args:
            timeout: Seconds to wait; None waits without a limit.
        """
        await self.outcome(timeout)
        return self._handle.result(0)

    async def outcome(self, timeout: float | None = None) -> TaskResult:
        """Return what `result` does, without the confirmation to the ledger that the caller has it."""
        if not self._handle.done():
            self._handle.check_process()
            try:
                async with asyncio.timeout(timeout):
                    await self._wait()
            except TimeoutError:
                if not self._handle.done():
                    raise ResultTimeout(f"{self.id} has not ended in time; wait again, it was not stopped") from None
        return self._handle.outcome(0)

    def done(self) -> bool:
        """Return whether the request has ended."""
        return self._handle.done()

    async def cancel(self) -> bool:
        """Request a stop; True when the request was revoked at once, see `Handle.cancel`."""
        stopped: bool = await self._call(self._handle.cancel)
        return stopped

    async def state(self) -> State:
        """Return the present state; raise `UnknownTask` when the ledger does not know the request."""
        state: State = await self._call(self._handle.state)
        return state

    async def _wait(self) -> None:
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        with self._lock:
            self._waiters.add(waiter)
            is_first, self._is_notified = not self._is_notified, True
        try:
            if is_first:
                self._handle.notify(lambda _: self._wake_all())
            if not self._handle.done():
                await waiter
        finally:
            with self._lock:
                self._waiters.discard(waiter)

    def _wake_all(self) -> None:
        """Wake all that wait, each in its event loop. Runs in the thread that reads the results."""
        with self._lock:
            waiters = list(self._waiters)
        for waiter in waiters:
            with suppress(RuntimeError):  # its loop is closed, and with it its tasks have ended
                waiter.get_loop().call_soon_threadsafe(_wake, waiter)


def _wake(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)


class AsyncEcsQueue:
    """An `EcsQueue` whose calls are awaited. They run in threads of its own, so that no server blocks the event loop.

    When a task is cancelled while it awaits `submit`, the request may have been submitted: with an `id` of your own it
    can be submitted again, and stopped.
    """

    def __init__(self, queue: EcsQueue) -> None:
        """Wrap a client; `close` closes it."""
        self.queue = queue
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="ecs-queue-async")
        self._process_id = os.getpid()
        self._is_closed = False

    @classmethod
    def from_config(
        cls,
        path: str | None = None,
        *,
        environ: Mapping[str, str] | None = None,
        overrides: Mapping[str, str] | None = None,
        owner: str | None = None,
    ) -> Self:
        """Load the configuration and return a client for it, see `EcsQueue.from_config`. It connects on first use."""
        return cls(EcsQueue.from_config(path, environ=environ, overrides=overrides, owner=owner))

    async def submit(self, command: Sequence[str], **options: Unpack[RequestOptions]) -> AsyncHandle:
        """Submit one command; arguments and errors are those of `EcsQueue.submit`."""
        return self._wrap(await self._call(self.queue.submit, command, **options))

    async def submit_many(self, requests: Iterable[Request | Mapping[str, Any]]) -> list[AsyncHandle]:
        """Submit many requests, see `EcsQueue.submit_many`."""
        return list(map(self._wrap, await self._call(self.queue.submit_many, list(requests))))

    async def handle(self, record_id: str) -> AsyncHandle:
        """Return a handle of an earlier submission; raise `UnknownTask` when there is none."""
        return self._wrap(await self._call(self.queue.handle, record_id))

    async def as_completed(
        self, handles: Sequence[AsyncHandle], timeout: float | None = None
    ) -> AsyncIterator[TaskResult]:
        """Yield each result once, as the requests end; raises as `EcsQueue.as_completed` does.

        A result counts as delivered when the next one is requested.
        """
        loop = asyncio.get_running_loop()
        deadline = None if timeout is None else loop.time() + timeout
        by_request = {(one.handle.id, one.handle.nonce): one for one in handles}
        waiting = {asyncio.ensure_future(handle.outcome()): handle for handle in by_request.values()}
        try:
            while waiting:
                left = None if deadline is None else max(0.0, deadline - loop.time())
                done, _ = await asyncio.wait(waiting, timeout=left, return_when=asyncio.FIRST_COMPLETED)
                if not done:
                    raise ResultTimeout(
                        f"{len(waiting)} of the requests have not ended in time; wait again, none was stopped"
                    )
                for ended in done:
                    handle, result = waiting.pop(ended), await ended
                    try:
                        yield result
                    finally:
                        self.queue.results.confirm_later(handle.handle)
        finally:
            for task in waiting:
                if not task.cancel() and not task.cancelled():
                    task.exception()  # retrieved: asyncio logs no exception that the caller did not ask for

    async def status(self, name: str) -> Record:
        """Return the record of an id or of a task's ARN, see `EcsQueue.status`."""
        return await self._call(self.queue.status, name)

    async def tasks(
        self,
        *,
        states: Iterable[str] = (),
        queue: str | None = None,
        since: Since | None = None,
        owner: str | None = None,
        reason: str | None = None,
        labels: Mapping[str, str] | None = None,
        key: str | None = None,
        limit: int | None = None,
    ) -> list[Record]:
        """Return the records of requests, see `EcsQueue.tasks`."""
        find = partial(self.queue.tasks, states=states, queue=queue, since=since, owner=owner, reason=reason)
        return await self._call(lambda: list(find(labels=labels, key=key, limit=limit)))

    async def stop(self, record_id: str, by: str | None = None) -> State:
        """Request a stop, and return the state after that, see `EcsQueue.stop`."""
        return await self._call(self.queue.stop, record_id, by)

    async def pause(self, *queues: str) -> list[str]:
        """See `EcsQueue.pause`."""
        return await self._call(self.queue.pause, *queues)

    async def resume(self, *queues: str) -> list[str]:
        """See `EcsQueue.resume`."""
        return await self._call(self.queue.resume, *queues)

    async def close(self) -> None:
        """Close the client; handles that are not done raise `UsageError`. The requests go on."""
        try:
            await self._call(self.queue.close)
        finally:
            self._is_closed = True
            self._threads.shutdown(wait=False)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()

    def _wrap(self, handle: Handle) -> AsyncHandle:
        return AsyncHandle(handle, self._call)

    async def _call(self, function: Callable[P, T], *args: P.args, **named: P.kwargs) -> T:
        # Without the threads, which have ended or are the parent's, the client refuses the call without I/O.
        if self._is_closed or os.getpid() != self._process_id:
            return function(*args, **named)
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, partial(function, *args, **named))
