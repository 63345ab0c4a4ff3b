"""`demo`: the main job on the embedded default, watched."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from ecs_queue.cli.demotasks import DemoTask, demo_tasks
from ecs_queue.cli.options import Options, json_option, pass_options, shared_options
from ecs_queue.cli.output import duration, is_watched, say, shortened, show, show_json, show_table

if TYPE_CHECKING:
    from ecs_queue.cli.demoview import View
    from ecs_queue.client import EcsQueue, Handle
    from ecs_queue.core.envelope import TaskResult
    from ecs_queue.core.record import Record
    from ecs_queue.local.stack import StackOptions

#: The stack stands for AWS, but its retries need not take as long: a demo is watched.
_SETTINGS = {"retry_base_seconds": "0.5", "retry_cap_seconds": "2"}
_LOOK = 0.2
#: The longest the demo waits for its results. Seconds.
_PATIENCE = 30.0
_NEXT = """\
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
def demo(options: Options, number: int, as_json: bool) -> int:
    """Watch the main job: an embedded Redis or Valkey, a local ECS, two workers, and a mix of commands.

    Some commands succeed, some exit with 3, some do not exist (and are attempted three times), some are stopped
    while they run, some have unicode arguments or 6 KB of environment. Nothing is needed but this machine, no
    AWS account is touched, and nothing is left behind. With --json the result lines are printed.

    \b
    Example:
      ecs-queue demo --tasks 60

    Exit status: 0 only if every task ended as it should, else 1.
    """
    from ecs_queue.client import EcsQueue
    from ecs_queue.local.stack import LocalStack

    options.start_logging()
    options.refuse("demo", "it brings a server and an ECS of its own")
    started = time.monotonic()
    stack = LocalStack(_stack_options())
    say("starting an embedded server, a local ECS and two workers ...")
    stack.start(say)
    try:
        with EcsQueue.from_config(environ=stack.environ) as queue:
            tasks = demo_tasks(number, queue.config.profile("default").max_run_task_attempts)
            run = _Run(queue, tasks)
            results = run.watch()
            _show(run, results, as_json)
    finally:
        say("stopping what was started ...")
        stack.stop()
    took = duration(time.monotonic() - started)
    return _judge(tasks, results, took, as_json)


def _stack_options() -> StackOptions:
    from ecs_queue.local.ecs import LocalEcsOptions
    from ecs_queue.local.stack import StackOptions

    ecs = LocalEcsOptions(latency_seconds=0.05, startup_delay_seconds=0.6)
    return StackOptions(workers=2, ecs=ecs, settings=_SETTINGS)


class _Run:
    """Submits the tasks and follows them; what it looks at is only for the eye, the results come from the queue."""

    def __init__(self, queue: EcsQueue, tasks: Sequence[DemoTask]) -> None:
        self.tasks = tasks
        self.records: dict[str, Record] = {}
        self._queue = queue
        self._stopped: set[str] = set()

    def watch(self) -> dict[str, TaskResult]:
        """Id -> result; one that did not come in time is missing."""
        from ecs_queue.cli.demoview import make_view

        handles = self._queue.submit_many(task.line() for task in self.tasks)
        say(f"{len(handles)} requests are submitted")
        results: dict[str, TaskResult] = {}
        deadline = time.monotonic() + _PATIENCE
        with make_view(self.tasks) as view:
            while len(results) < len(self.tasks) and time.monotonic() < deadline:
                self._take_results(handles, results)
                self._look(view)
        return results

    def _take_results(self, handles: Sequence[Handle], results: dict[str, TaskResult]) -> None:
        from ecs_queue.errors import ResultTimeout

        waiting = [handle for handle in handles if handle.id not in results]
        try:
            for result in self._queue.as_completed(waiting, _LOOK):
                results[result.id] = result
        except ResultTimeout:
            return  # the rest next time

    def _look(self, view: View) -> None:
        ids = [task.id for task in self.tasks]
        found = zip(ids, self._queue.ledger.get(ids), strict=True)
        self.records = {record_id: record for record_id, record in found if record is not None}
        view.update(self.records)
        for task in self.tasks:
            record = self.records.get(task.id)
            is_up = record is not None and record.last_status == "RUNNING"
            if task.is_stopped and is_up and task.id not in self._stopped:
                self._stopped.add(task.id)
                self._queue.stop(task.id, by="the demo")


def _show(run: _Run, results: dict[str, TaskResult], as_json: bool) -> None:
    if as_json:
        for result in results.values():
            show_json(result.line())
        return
    headers = ("id", "command", "state", "attempts", "exit", "waited", "ran", "reason")
    show_table(headers, [_row(task, results.get(task.id)) for task in run.tasks])
    counts = Counter(result.state for result in results.values())
    show(f"{len(results)} results: " + ", ".join(f"{number} {state}" for state, number in counts.items()))


def _judge(tasks: Sequence[DemoTask], results: Mapping[str, TaskResult], took: str, as_json: bool) -> int:
    wrong = [task for task in tasks if task.id not in results or not task.ended_well(results[task.id].line())]
    for task in wrong:
        expected = f"{task.state}, exit {task.exit_code}, {task.attempts} attempts"
        say(f"ecs-queue: {task.id} did not end as it should: expected {expected}")
    say(f"{len(tasks) - len(wrong)} of {len(tasks)} ended as they should; all of it took {took}")
    if not as_json:
        click.echo(_NEXT, err=True)
    return 1 if wrong else 0


def _row(task: DemoTask, result: TaskResult | None) -> list[str]:
    from ecs_queue.cli.facts import is_usual

    command = shortened(task.shown, 28)
    if result is None:
        return [task.id, command, "no result", "", "", "", "", ""]
    exit_code = "-" if result.exit_code is None else str(result.exit_code)
    waited = _between(result.queued_at, result.launched_at)
    ran = _between(result.started_at, result.finished_at)
    reason = "" if is_usual(result.state, result.exit_code) else shortened(result.reason, 70 if is_watched() else 100)
    return [task.id, command, result.state, str(result.attempts), exit_code, waited, ran, reason]


def _between(start: Any, end: Any) -> str:
    return duration((end - start).total_seconds()) if start and end else "-"
