"""`demo`: runs a mix of commands on a local installation and shows their progress."""

from __future__ import annotations

import shlex
import shutil
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ecs_queue.cli.demo_tasks import DemoTask, demo_tasks
from ecs_queue.cli.ui.durations import format_duration
from ecs_queue.cli.ui.exit_status import EXIT_FAILURE
from ecs_queue.cli.ui.numbers import count
from ecs_queue.cli.ui.options import SharedOptions, command_options
from ecs_queue.cli.ui.output import (
    fits_terminal,
    is_terminal,
    print_json,
    print_stderr,
    print_stdout,
    print_table,
    truncate,
)
from ecs_queue.cli.ui.record_view import ran_to_exit

if TYPE_CHECKING:
    from ecs_queue.cli.demo_view import DemoView
    from ecs_queue.client.client import EcsQueue
    from ecs_queue.client.handle import Handle
    from ecs_queue.local.stack import StackOptions
    from ecs_queue.messages.result import TaskResult

#: Shorter retries than on AWS, because people watch a demo.
_SETTINGS = {"retry_base_seconds": "0.5", "retry_cap_seconds": "2"}
_POLL_INTERVAL_SECONDS = 0.2
#: How long the demo waits for its results. Seconds.
_TIMEOUT_SECONDS = 30.0
_NEXT_STEPS = """\
What to try next:
  ecs-queue local                          run the same installation
  eval "$(ecs-queue local env)"            in another shell: its environment
  ecs-queue submit --wait -- echo hello    run one command, exit as it does
  ecs-queue status                         see what waits, runs and has ended
  ecs-queue --help                         learn everything else"""


@click.command(short_help="Watch the main job at work.")
@click.option("--tasks", "number", type=count(1, 500), default=24, show_default=True, help="Number of tasks.")
@command_options
def demo(options: SharedOptions, number: int, as_json: bool) -> int:
    """Watch the main job: an embedded Redis or Valkey, a local ECS, two workers, and a mix of commands.

    Some commands succeed, some exit with 3, some do not exist (and are attempted three times), some are stopped
    while they run, some have unicode arguments or 6 KB of environment. The demo needs only this machine, uses no
    AWS account, and leaves nothing behind. With --json it prints the result lines.

    \b
    Example:
      ecs-queue demo --tasks 60

    Exit status: 0 only if every task ended as it should, else 1.
    """
    from ecs_queue.client.client import EcsQueue
    from ecs_queue.local.stack import LocalStack

    options.configure_logging()
    options.reject_config_options("demo", "it starts its own server and ECS")
    started = time.monotonic()
    stack = LocalStack(_stack_options())
    print_stderr("starting an embedded server, a local ECS and two workers ...")
    stack.start(print_stderr)
    try:
        with EcsQueue.from_config(environ=stack.environ) as queue:
            tasks = demo_tasks(number, queue.config.profile("default").max_run_task_attempts)
            results = _DemoRun(queue, tasks).run()
            _print_results(tasks, results, as_json)
    finally:
        print_stderr("stopping what was started ...")
        stack.stop()
    took = format_duration(time.monotonic() - started)
    return _check_results(tasks, results, took, as_json)


def _stack_options() -> StackOptions:
    from ecs_queue.local.ecs import LocalEcsOptions
    from ecs_queue.local.stack import StackOptions

    ecs = LocalEcsOptions(latency_seconds=0.05, provision_seconds=(0.6, 0.6))
    return StackOptions(workers=2, ecs=ecs, config_values=_SETTINGS)


class _DemoRun:
    """Submits the tasks and waits for their results. It reads the records only to show them, and to stop tasks."""

    def __init__(self, queue: EcsQueue, tasks: Sequence[DemoTask]) -> None:
        self._tasks = tasks
        self._queue = queue
        self._stop_requested: set[str] = set()

    def run(self) -> dict[str, TaskResult]:
        """Return the results by id; a result that did not come in time is missing."""
        from ecs_queue.cli.demo_view import open_demo_view

        handles = self._queue.submit_many(task.to_task_line() for task in self._tasks)
        print_stderr(f"{len(handles)} requests are submitted")
        results: dict[str, TaskResult] = {}
        deadline = time.monotonic() + _TIMEOUT_SECONDS
        with open_demo_view(self._tasks) as view:
            while len(results) < len(self._tasks) and time.monotonic() < deadline:
                self._collect_results(handles, results)
                self._refresh(view)
        return results

    def _collect_results(self, handles: Sequence[Handle], results: dict[str, TaskResult]) -> None:
        from ecs_queue.errors import ResultTimeout

        waiting = [handle for handle in handles if handle.id not in results]
        try:
            for result in self._queue.as_completed(waiting, _POLL_INTERVAL_SECONDS):
                results[result.id] = result
        except ResultTimeout:
            return  # the rest next time

    def _refresh(self, view: DemoView) -> None:
        ids = [task.id for task in self._tasks]
        found = zip(ids, self._queue.ledger.get(ids), strict=True)
        records = {record_id: record for record_id, record in found if record is not None}
        view.update(records)
        for task in self._tasks:
            record = records.get(task.id)
            is_running = record is not None and record.last_status == "RUNNING"
            if task.stop_while_running and is_running and task.id not in self._stop_requested:
                self._stop_requested.add(task.id)
                self._queue.stop(task.id, by="the demo")


def _print_results(tasks: Sequence[DemoTask], results: dict[str, TaskResult], as_json: bool) -> None:
    if as_json:
        for result in results.values():
            print_json(result.to_result_line())
        return
    headers = ("id", "command", "state", "attempts", "exit", "waited", "ran", "reason")
    rows = [_row(task, results.get(task.id)) for task in tasks]
    # On a narrow terminal the id stands for the command, which it names.
    shown = range(len(headers)) if fits_terminal(headers, rows) else (0, 2, 3, 4, 7)
    print_table([headers[column] for column in shown], [[row[column] for column in shown] for row in rows])
    counts = Counter(result.state for result in results.values())
    print_stdout(f"{len(results)} results: " + ", ".join(f"{number} {state}" for state, number in counts.items()))


def _check_results(tasks: Sequence[DemoTask], results: Mapping[str, TaskResult], elapsed: str, as_json: bool) -> int:
    wrong = [
        task
        for task in tasks
        if task.id not in results or not task.ended_as_expected(results[task.id].to_result_line())
    ]
    for task in wrong:
        expected = f"{task.state}, exit {task.exit_code}, {task.attempts} attempts"
        print_stderr(f"ecs-queue: {task.id} did not end as it should: expected {expected}")
    print_stderr(f"{len(tasks) - len(wrong)} of {len(tasks)} ended as they should; the demo took {elapsed}")
    if not as_json:
        click.echo(_next_steps(), err=True)
    return EXIT_FAILURE if wrong else 0


def _next_steps() -> str:
    """Return the commands to try next; first the one that puts `ecs-queue` into PATH, where it is not there yet."""
    prefix, here = Path(sys.prefix), Path.cwd()
    activate = prefix / "bin" / "activate"
    if shutil.which("ecs-queue") or not activate.exists():
        return _NEXT_STEPS
    shown = activate.relative_to(here) if prefix.is_relative_to(here) else activate
    head, *steps = _NEXT_STEPS.splitlines()
    first = f"  . {shlex.quote(str(shown))}"
    return "\n".join([head, f"{first:<42} in each shell: find the command ecs-queue", *steps])


def _row(task: DemoTask, result: TaskResult | None) -> list[str]:
    command = truncate(task.display, 28)
    if result is None:
        return [task.id, command, "no result", "", "", "", "", ""]
    exit_code = "-" if result.exit_code is None else str(result.exit_code)
    waited = _format_between(result.queued_at, result.launched_at)
    ran = _format_between(result.started_at, result.finished_at)
    is_routine = ran_to_exit(result.state, result.exit_code)
    reason = "" if is_routine else truncate(result.reason, 70 if is_terminal() else 100)
    return [task.id, command, result.state, str(result.attempts), exit_code, waited, ran, reason]


def _format_between(start: Any, end: Any) -> str:
    return format_duration((end - start).total_seconds()) if start and end else "-"
