"""Draws docs/terminal/*.svg, pictures of commands on terminals of 80 and 160 columns: make screenshots."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from terminal_pictures import add_prompt, draw, record

from ecs_queue.client.client import EcsQueue
from ecs_queue.local.stack import LocalStack, StackOptions

FOLDER = Path(__file__).parent / "terminal"
FAILED = "orders-2026-07-03"
WIDTHS = (80, 160)
#: Rows of a terminal that cuts off nothing of a command that ends, and of a usual one.
MANY_ROWS, USUAL_ROWS = 100, 30
#: What is drawn: the file's name and the command.
COMMANDS = {
    "status": ("status", FAILED),
    "tasks": ("tasks", "--limit", "12"),
    "workers": ("workers",),
    "queues": ("queues",),
}
_SECONDS = 60.0


def main() -> None:
    """Fill a local stack, and draw each command at each width."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=FOLDER)
    folder = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    options = StackOptions(
        workers=2, worker_args=("--queues", "default,etl,reports"), config_values={"acting_user": "scheduler"}
    )
    with LocalStack(options) as stack:
        with EcsQueue.from_config(environ=stack.environ) as client:
            _fill(client)
        for columns in WIDTHS:
            for name, arguments in COMMANDS.items():
                frames = record(_program(*arguments), columns, MANY_ROWS, stack.environ)
                _write(folder, name, columns, frames[-1:], arguments)
            frames = record(_program("top"), columns, USUAL_ROWS, stack.environ, end_key=b"q", end_after=6.0)
            _write(folder, "top", columns, frames[-1:], ("top",))
    for columns in WIDTHS:
        arguments = ("demo", "--tasks", "12")
        _write(folder, "demo", columns, record(_program(*arguments), columns, MANY_ROWS)[-1:], arguments)


def _program(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "ecs_queue", *arguments]


def _write(folder: Path, name: str, columns: int, frames: list, arguments: tuple[str, ...]) -> None:
    command = f"ecs-queue {' '.join(arguments)}"
    (shown,) = add_prompt(frames, command)
    title = f"{command} on a terminal of {columns} columns"
    (folder / f"{name}-{columns}.svg").write_text(draw(shown, columns, title))


def _fill(client: EcsQueue) -> None:
    """Submit requests that succeed, one that fails, one that cannot start, and some that wait in a paused queue."""
    job = "echo 'reading 1,200 orders'; sleep 0.{}; echo 'wrote 1,200 rows'"
    tasks = [
        {"command": ["sh", "-c", job.format(day)], "id": f"orders-2026-07-{day:02}", "queue": "etl"}
        for day in range(1, 8)
        if f"orders-2026-07-{day:02}" != FAILED
    ]
    script = "echo 'reading 1,200 orders'; echo 'orders.csv: row 812 has no price'; exit 3"
    labels = {"team": "data", "cost-center": "4711"}
    tasks.append({"command": ["sh", "-c", script], "id": FAILED, "queue": "etl", "labels": labels})
    tasks.append({"command": ["no-such-program"], "id": "invoices-2026-07", "queue": "default", "labels": labels})
    tasks += [{"command": ["make-report", str(n)], "id": f"report-{n}", "queue": "reports"} for n in range(1, 4)]
    client.ledger.pause_queues(["reports"])
    for handle in client.submit_many(tasks):
        if not handle.id.startswith("report-"):
            handle.result(timeout=_SECONDS)


if __name__ == "__main__":
    main()
