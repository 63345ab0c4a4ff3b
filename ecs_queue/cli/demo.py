"""`demo`: the main job on the embedded default, watched."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from ecs_queue.cli.demo_tasks import DemoTask, demo_tasks
from ecs_queue.cli.ui.options import SharedOptions, json_option, pass_options, shared_options
from ecs_queue.cli.ui.output import (
    format_duration,
    is_terminal,
    print_json,
    print_stderr,
    print_stdout,
    print_table,
    truncate,
)

if TYPE_CHECKING:
    from ecs_queue.cli.demo_view import DemoView
    from ecs_queue.client.client import EcsQueue, Handle
    from ecs_queue.local.stack import StackOptions
    from ecs_queue.messages.envelope import TaskResult
    from ecs_queue.protocol.record import Record

#: The stack stands for AWS, but its retries need not take as long: a demo is watched.
_SETTINGS = {"retry_base_seconds": "0.5", "retry_cap_seconds": "2"}
_POLL_INTERVAL_SECONDS = 0.2
#: The longest the demo waits for its results. Seconds.
_TIMEOUT_SECONDS = 30.0
_NEXT_STEPS = """\
What to try next:
  ecs-queue local                          the same stack, to play with; it prints the environment to export
  ecs-queue submit --wait -- echo hello    with that environment: one command, and its exit status
  ecs-queue status                         what waits, runs and has ended
  ecs-queue --help                         everything else"""


@click.command(short_help="Watch the main job at work.")
@click.option("--tasks", "number", type=click.IntRange(1, 500), default=24, show_default=True, help="How many.")
@json_option
@shared_options
@pass_options
def demo(options: SharedOptions, number: int, as_json: bool) -> int:
    """Watch the main job: an embedded Redis or Valkey, a local ECS, two workers, and a mix of commands.

    Some commands succeed, some exit with 3, some do not exist (and are attempted three times), some are stopped
    while they run, some have unicode arguments or 6 KB of environment. Nothing is needed but this machine, no
    AWS account is touched, and nothing is left behind. With --json the result lines are printed.

    \b
    Example:
      ecs-queue demo --tasks 60

    Exit status: 0 only if every task ended as it should, else 1.
    """
    from ecs_queue.client.client import EcsQueue
    from ecs_queue.local.stack import LocalStack

    options.configure_logging()
    options.reject_config_options("demo", "it brings a server and an ECS of its own")
    started = time.monotonic()
    stack = LocalStack(_stack_options())
    print_stderr("starting an embedded server, a local ECS and two workers ...")
    stack.start(print_stderr)
    try:
        with EcsQueue.from_config(environ=stack.environ) as queue:
            tasks = demo_tasks(number, queue.config.profile("default").max_run_task_attempts)
            run = _DemoRun(queue, tasks)
            results = run.run()
            _print_results(run, results, as_json)
    finally:
        print_stderr("stopping what was started ...")
        stack.stop()
    took = format_duration(time.monotonic() - started)
    return _check_results(tasks, results, took, as_json)


def _stack_options() -> StackOptions:
    from ecs_queue.local.ecs import LocalEcsOptions
    from ecs_queue.local.stack import StackOptions

    ecs = LocalEcsOptions(latency_seconds=0.05, startup_delay_seconds=0.6)
    return StackOptions(workers=2, ecs=ecs, config_values=_SETTINGS)


class _DemoRun:
    """Submits the tasks and follows them; what it looks at is only for the eye, the results come from the queue."""

    def __init__(self, queue: EcsQueue, tasks: Sequence[DemoTask]) -> None:
        self.tasks = tasks
        self.records: dict[str, Record] = {}
        self._queue = queue
        self._stop_requested: set[str] = set()

    def run(self) -> dict[str, TaskResult]:
        """Id -> result; one that did not come in time is missing."""
        from ecs_queue.cli.demo_view import make_demo_view

        handles = self._queue.submit_many(task.to_task_line() for task in self.tasks)
        print_stderr(f"{len(handles)} requests are submitted")
        results: dict[str, TaskResult] = {}
        deadline = time.monotonic() + _TIMEOUT_SECONDS
        with make_demo_view(self.tasks) as view:
            while len(results) < len(self.tasks) and time.monotonic() < deadline:
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
        ids = [task.id for task in self.tasks]
        found = zip(ids, self._queue.ledger.get(ids), strict=True)
        self.records = {record_id: record for record_id, record in found if record is not None}
        view.update(self.records)
        for task in self.tasks:
            record = self.records.get(task.id)
            is_up = record is not None and record.last_status == "RUNNING"
            if task.stop_while_running and is_up and task.id not in self._stop_requested:
                self._stop_requested.add(task.id)
                self._queue.stop(task.id, by="the demo")


def _print_results(run: _DemoRun, results: dict[str, TaskResult], as_json: bool) -> None:
    if as_json:
        for result in results.values():
            print_json(result.to_result_line())
        return
    headers = ("id", "command", "state", "attempts", "exit", "waited", "ran", "reason")
    print_table(headers, [_row(task, results.get(task.id)) for task in run.tasks])
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
    print_stderr(f"{len(tasks) - len(wrong)} of {len(tasks)} ended as they should; all of it took {elapsed}")
    if not as_json:
        click.echo(_NEXT_STEPS, err=True)
    return 1 if wrong else 0


def _row(task: DemoTask, result: TaskResult | None) -> list[str]:
    from ecs_queue.cli.ui.record_view import ran_to_exit

    command = truncate(task.display, 28)
    if result is None:
        return [task.id, command, "no result", "", "", "", "", ""]
    exit_code = "-" if result.exit_code is None else str(result.exit_code)
    waited = _format_between(result.queued_at, result.launched_at)
    ran = _format_between(result.started_at, result.finished_at)
    reason = (
        "" if ran_to_exit(result.state, result.exit_code) else truncate(result.reason, 70 if is_terminal() else 100)
    )
    return [task.id, command, result.state, str(result.attempts), exit_code, waited, ran, reason]


def _format_between(start: Any, end: Any) -> str:
    return format_duration((end - start).total_seconds()) if start and end else "-"
