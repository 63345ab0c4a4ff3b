"""Prints the container log of a request while its result is awaited, or its last lines when it has failed."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING

from ecs_queue.cli.ui.durations import format_duration
from ecs_queue.cli.ui.output import OutputError, print_stderr, print_stdout, write_stdout
from ecs_queue.errors import EcsQueueError, LedgerUnavailable, ResultTimeout

if TYPE_CHECKING:
    from ecs_queue.client.client import EcsQueue
    from ecs_queue.client.handle import Handle
    from ecs_queue.messages.result import TaskResult
    from ecs_queue.protocol.record import Record

#: How many of the last lines of a failed container are shown, and how long they may be waited for.
LAST_LINES, LAST_LINES_SECONDS = 10, 3.0
#: The ends for which the container's last lines may say why.
_FAILED_STATES = frozenset({"FAILED", "UNKNOWN"})


def wait_with_log(client: EcsQueue, handle: Handle, timeout: float | None) -> TaskResult:
    """Print what the request's containers write to stdout until it has ended, and return its result.

    When the log cannot be read, a sentence on stderr says why, and the wait goes on.

    Raises:
        ResultTimeout: `timeout` seconds are over.
    """
    from ecs_queue.cli.ui.container_log import LogChoice, LogOpener, RequestLog
    from ecs_queue.cli.ui.log_view import print_log_line

    awaited = _AwaitedResult(client, handle, timeout)
    log = RequestLog(client, handle.id, LogOpener(client), LogChoice(), awaited.wait)
    try:
        for _, line in log.lines():
            print_log_line(line)
    except (ResultTimeout, OutputError):
        raise
    except EcsQueueError as error:
        print_stderr(f"ecs-queue: the container's output cannot be shown: {error}")
    return awaited.result()


def result_sentence(result: TaskResult) -> str:
    """Return how the request ended, for people."""
    exited = "" if result.exit_code is None else f" with exit code {result.exit_code}"
    ran = ""
    if result.started_at and result.finished_at:
        ran = f" after {format_duration((result.finished_at - result.started_at).total_seconds())}"
    reason = f": {result.reason}" if result.reason and result.state != "SUCCESS" else ""
    return f"{result.id} ended as {result.state}{exited}{ran}{reason}"


def last_lines(client: EcsQueue, record: Record) -> list[str] | None:
    """Return the last lines of a request that failed; None, and a sentence on stderr, when they cannot be read.

    It takes at most `LAST_LINES_SECONDS`, and nothing for a request that has not failed or had no container. Of a
    request that never started it is what its runner wrote, if that started.
    """
    from ecs_queue.cli.ui.container_log import read_last_lines
    from ecs_queue.cli.ui.log_view import terminal_lines

    may_say_why = record.state.value in _FAILED_STATES or (record.state.value == "REMOVED" and record.run)
    if not may_say_why or not record.arn:
        return []
    found = read_last_lines(client, record, LAST_LINES, LAST_LINES_SECONDS)
    if isinstance(found, str):
        print_stderr(f"ecs-queue: the last lines of its output are not shown: {found}")
        return None
    return [part for line in found for part in terminal_lines(line.text)]


def print_last_lines(client: EcsQueue, record: Record | None) -> None:
    """Print the last lines of a request that failed, if there are any."""
    lines = last_lines(client, record) if record is not None else []
    if record is None or not lines:
        return
    print_stdout("")
    print_stdout(f"its last {'line' if len(lines) == 1 else f'{len(lines)} lines'} (all: ecs-queue logs {record.id})")
    for line in lines:
        write_stdout(f"  {line}")


def print_last_lines_of(client: EcsQueue, result: TaskResult) -> None:
    """Print the last lines of the request that has this result; none in an outage of the ledger."""
    with suppress(LedgerUnavailable):  # the result is known, and its exit status counts
        print_last_lines(client, client.ledger.get([result.id])[0])


class _AwaitedResult:
    """The result of one request, awaited in small steps."""

    def __init__(self, client: EcsQueue, handle: Handle, timeout: float | None) -> None:
        self._client = client
        self._handle = handle
        self._timeout = timeout
        self._deadline = None if timeout is None else time.monotonic() + timeout
        self._result: TaskResult | None = None

    def wait(self, seconds: float) -> bool:
        """Wait for the result for at most `seconds`; return whether it is there."""
        if self._result is not None:
            time.sleep(seconds)
            return True
        left = seconds if self._deadline is None else min(seconds, self._deadline - time.monotonic())
        try:
            self._result = self._next(max(0.0, left))
        except ResultTimeout:
            if self._deadline is not None and time.monotonic() >= self._deadline:
                raise ResultTimeout(f"{self._handle.id} has not ended within {self._timeout:g} s") from None
        return self._result is not None

    def result(self) -> TaskResult:
        """Wait for the result until the timeout."""
        while self._result is None:
            self.wait(60.0)
        return self._result

    def _next(self, seconds: float) -> TaskResult:
        from ecs_queue.cli.ui.submitter import wait_for_results

        return next(wait_for_results(self._client, [self._handle], seconds))
