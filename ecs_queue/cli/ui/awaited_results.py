"""Waits for results and prints them, for `submit --wait` and `wait`."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import IO, TYPE_CHECKING

from ecs_queue.cli.ui.awaited_log import result_sentence
from ecs_queue.cli.ui.durations import format_duration
from ecs_queue.cli.ui.exit_status import EXIT_FAILURE
from ecs_queue.cli.ui.output import can_draw, print_fields, print_stderr, to_json_line, wrap_output_errors

if TYPE_CHECKING:
    from ecs_queue.client.client import EcsQueue
    from ecs_queue.client.handle import Handle
    from ecs_queue.messages.result import TaskResult

#: How many requests that failed stderr names.
_MAX_NAMED_FAILURES = 20


def wait_for_one(client: EcsQueue, handle: Handle, queue: str, timeout: float | None) -> TaskResult:
    """Wait for the result of one request; a terminal shows that it waits, for which queue, and each step once."""
    from ecs_queue.cli.ui.awaited_steps import StepLines, follow_steps
    from ecs_queue.cli.ui.submitter import wait_for_results

    if not can_draw(sys.stderr):
        return next(wait_for_results(client, [handle], timeout))
    from rich.console import Console
    from rich.markup import escape

    from ecs_queue.cli.ui.given_back_terminal import LINES, give_back_terminal

    console = Console(stderr=True)
    lines = StepLines(lambda step: console.print(step, style="dim", highlight=False))
    status = console.status(f"{escape(handle.id)}, queue {escape(queue)}; Ctrl-C only ends waiting")
    with give_back_terminal(sys.stderr, LINES), status, follow_steps(client, handle, lines):
        result = next(wait_for_results(client, [handle], timeout))
    lines.show(result)  # a quick request has reached its steps between two looks
    return result


def wait_for_all(client: EcsQueue, handles: Sequence[Handle], timeout: float | None, sink: IO[bytes] | None) -> int:
    """Print each result line as it comes, or write it to `sink`; return 0 if every request succeeded, else 1.

    stderr shows how many have ended, run, failed and are left, and how long that may take; at the end it names the ones
    that failed. The number that run is as of the last look at each record: the client reads 500 a second in any case.
    """
    from ecs_queue.cli.ui.progress import open_progress
    from ecs_queue.cli.ui.submitter import wait_for_results

    tally = _Tally(len(handles), lambda: len(client.results.running))
    with open_progress(len(handles), tally.describe) as progress:
        for result in wait_for_results(client, handles, timeout):
            line = to_json_line(result.to_result_line())
            if sink is None:
                progress.print_line(line)
            else:
                with wrap_output_errors(f"--output {sink.name}"):
                    sink.write(f"{line}\n".encode("utf-8", "backslashreplace"))
                    sink.flush()
            tally.add(result)
            progress.advance()
    tally.print_summary()
    return 0 if tally.failed == 0 else EXIT_FAILURE


class _Tally:
    """Counts the results of a number of requests, and keeps sentences about the first ones that failed."""

    def __init__(self, total: int, count_running: Callable[[], int]) -> None:
        self._total, self._count_running = total, count_running
        self._states: Counter[str] = Counter()
        self._named: list[str] = []
        self._started = time.monotonic()

    @property
    def failed(self) -> int:
        """How many did not end as SUCCESS."""
        return self._states.total() - self._states["SUCCESS"]

    def add(self, result: TaskResult) -> None:
        self._states[result.state] += 1
        if result.state != "SUCCESS" and len(self._named) < _MAX_NAMED_FAILURES:
            self._named.append(result_sentence(result))

    def describe(self) -> str:
        from ecs_queue.cli.ui.progress import remaining_text

        elapsed = time.monotonic() - self._started
        return remaining_text(self._total, self._states.total(), self._count_running(), self.failed, elapsed)

    def print_summary(self) -> None:
        counts = ", ".join(f"{count} {state}" for state, count in sorted(self._states.items()) if count)
        print_stderr(f"{self._total} ended: {counts}")
        for sentence in self._named:
            print_stderr(f"ecs-queue: {sentence}")
        if self.failed > len(self._named):
            print_stderr(f"ecs-queue: {self.failed - len(self._named)} more failed: their result lines name them")


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
