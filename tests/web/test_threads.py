"""The threads of the page."""

from __future__ import annotations

import asyncio
import threading

from starlette.concurrency import run_in_threadpool

from ecs_queue.web.threads import Threads


def test_a_server_that_does_not_answer_takes_no_threads_from_the_rest_of_the_process() -> None:
    answered = threading.Event()

    async def serve() -> str:
        threads = Threads(2)
        waiting = [asyncio.create_task(threads.run(answered.wait, 60)) for _ in range(200)]
        await asyncio.sleep(0)
        try:
            return await asyncio.wait_for(run_in_threadpool(lambda: "the rest of the process"), 30)
        finally:
            answered.set()
            await asyncio.gather(*waiting)

    assert asyncio.run(serve()) == "the rest of the process"


def test_no_more_threads_are_used_than_the_limit() -> None:
    lock, running, most = threading.Lock(), [0], [0]
    both = threading.Barrier(2, timeout=30)

    def work() -> None:
        with lock:
            running[0] += 1
            most[0] = max(most[0], running[0])
        both.wait()
        with lock:
            running[0] -= 1

    async def serve() -> None:
        threads = Threads(2)
        await asyncio.gather(*(threads.run(work) for _ in range(10)))

    asyncio.run(serve())
    assert most == [2]
