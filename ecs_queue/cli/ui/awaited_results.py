"""Waits for results and prints them, for `submit --wait` and `wait`."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Sequence
from typing import IO, TYPE_CHECKING

from ecs_queue.cli.ui.awaited_log import result_sentence
from ecs_queue.cli.ui.durations import format_duration
from ecs_queue.cli.ui.exit_status import EXIT_FAILURE
from ecs_queue.cli.ui.output import is_terminal, print_fields, print_stderr, to_json_line, wrap_output_errors

if TYPE_CHECKING:
    from ecs_queue.client.client import EcsQueue
    from ecs_queue.client.handle import Handle
    from ecs_queue.messages.envelope import TaskResult

#: How many requests that failed stderr names.
_MAX_NAMED_FAILURES = 20


def wait_for_one(client: EcsQueue, handle: Handle, queue: str, timeout: float | None) -> TaskResult:
    """Wait for the result of one request; a terminal shows that it waits, for which queue, and each step once."""
    from ecs_queue.cli.ui.awaited_steps import StepLines, follow_steps
    from ecs_queue.cli.ui.submitter import wait_for_results

    if not is_terminal(sys.stderr):
        return next(wait_for_results(client, [handle], timeout))
    from rich.console import Console
    from rich.markup import escape

    console = Console(stderr=True)
    lines = StepLines(lambda step: console.print(step, style="dim", highlight=False))
    status = console.status(f"{escape(handle.id)} is in queue {escape(queue)}; Ctrl-C ends only the waiting")
    with status, follow_steps(client, handle, lines):
        result = next(wait_for_results(client, [handle], timeout))
    lines.show(result)  # a quick request has reached its steps between two looks
    return result


def wait_for_all(client: EcsQueue, handles: Sequence[Handle], timeout: float | None, sink: IO[bytes] | None) -> int:
    """Print each result line as it comes, or write it to `sink`; return 0 if every request succeeded, else 1.

    stderr shows how many have ended and failed, how many are left, and how long that may take; at the end it names
    the ones that failed.
    """
    from ecs_queue.cli.ui.progress import open_progress, remaining_text
    from ecs_queue.cli.ui.submitter import wait_for_results

    states: Counter[str] = Counter()
    named: list[str] = []
    failed = 0
    started = time.monotonic()
    with open_progress(len(handles), "ended") as progress:
        for result in wait_for_results(client, handles, timeout):
            line = to_json_line(result.to_result_line())
            if sink is None:
                progress.print_line(line)
            else:
                with wrap_output_errors(f"--output {sink.name}"):
                    sink.write(f"{line}\n".encode("utf-8", "backslashreplace"))
                    sink.flush()
            states[result.state] += 1
            if result.state != "SUCCESS" and len(named) < _MAX_NAMED_FAILURES:
                named.append(result_sentence(result))
            ended = states.total()
            failed = ended - states["SUCCESS"]
            progress.set_label(remaining_text(len(handles), ended, failed, time.monotonic() - started))
            progress.advance()
    counts = ", ".join(f"{count} {state}" for state, count in sorted(states.items()))
    print_stderr(f"{len(handles)} ended: {counts}")
    for sentence in named:
        print_stderr(f"ecs-queue: {sentence}")
    if failed > len(named):
        print_stderr(f"ecs-queue: {failed - len(named)} more failed: their result lines name them")
    return 0 if set(states) == {"SUCCESS"} else EXIT_FAILURE


def print_result(result: TaskResult) -> None:
    """Print a result for people."""
    start, end = result.started_at, result.finished_at
    print_fields(
        [
            ("state", result.state),
            ("exit code", "" if result.exit_code is None else str(result.exit_code)),
            ("id", result.id),
            ("task", result.task_arn or ""),
            ("attempts", str(result.attempts)),
            ("ran", format_duration((end - start).total_seconds()) if start and end else ""),
            ("took", format_duration((end - result.queued_at).total_seconds()) if end and result.queued_at else ""),
            ("reason", result.reason),
            ("stop code", result.stop_code or ""),
        ]
    )
