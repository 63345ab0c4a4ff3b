"""A service that turns orders into containers, each exactly once, although it may be killed at any moment.

    eval "$(ecs-queue local env)" && python examples/async_service.py orders.jsonl done.jsonl

Every line of the first file is an order: {"order": "1001", "command": ["echo", "hello"]}. The id of its request is made
of the order's number. So a service that was killed with SIGKILL and starts again submits the same requests, which the
ledger knows already: it gets handles of what runs or has ended, and no container runs twice. An order is done when its
line is in the second file.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import TypedDict

from ecs_queue import AsyncEcsQueue

#: Orders that are in work at the same time.
LIMIT = 50


class Order(TypedDict):
    """One line of the file of orders."""

    order: str
    command: list[str]


class Outcome(TypedDict):
    """One line of the file of what is done."""

    order: str
    state: str
    exit_code: int | None


async def serve(queue: AsyncEcsQueue, orders: list[Order], done_file: Path) -> None:
    """Work on the orders that are not done, and write down each one that is."""
    done = {outcome["order"] for outcome in read_outcomes(done_file)}
    room = asyncio.Semaphore(LIMIT)

    async def work(order: Order) -> None:
        async with room:
            handle = await queue.submit(order["command"], id=f"order-{order['order']}", relaunch="interrupted")
            result = await handle
        outcome: Outcome = {"order": order["order"], "state": result.state, "exit_code": result.exit_code}
        with done_file.open("a", encoding="utf-8") as file:
            file.write(json.dumps(outcome) + "\n")

    async with asyncio.TaskGroup() as group:
        for order in orders:
            if order["order"] not in done:
                group.create_task(work(order))


def read_orders(path: Path) -> list[Order]:
    """Return the orders of a file."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def read_outcomes(path: Path) -> list[Outcome]:
    """Return what is done, as earlier runs have written it down."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return [json.loads(line) for line in lines]


async def main(orders_file: Path, done_file: Path) -> None:
    """Work on a file of orders until all are done."""
    async with AsyncEcsQueue.from_config() as queue:
        await serve(queue, read_orders(orders_file), done_file)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    asyncio.run(main(Path(sys.argv[1]), Path(sys.argv[2])))
