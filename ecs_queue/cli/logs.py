"""`logs`: shows what a request's container wrote."""

from __future__ import annotations

import time
from collections import deque
from typing import TYPE_CHECKING, Any

import click

from ecs_queue.cli.ui.completion import complete_id
from ecs_queue.cli.ui.durations import TimeBound, format_timestamp_ms, parse_time_bound
from ecs_queue.cli.ui.exit_status import EXIT_FAILURE
from ecs_queue.cli.ui.numbers import count
from ecs_queue.cli.ui.options import SharedOptions, command_options, open_client
from ecs_queue.cli.ui.output import print_json, print_stderr
from ecs_queue.cli.ui.records import warn_unserved_queues
from ecs_queue.client.records import find_record

if TYPE_CHECKING:
    from ecs_queue.cli.ui.container_log import LogChoice, LogOpener
    from ecs_queue.client.client import EcsQueue
    from ecs_queue.container_logs.base import LogLine
    from ecs_queue.journal.timeline import LaunchTimeline
    from ecs_queue.protocol.record import Record


@click.command(short_help="Show what a request's container wrote.")
@click.argument("id", shell_complete=complete_id, metavar="ID|TASK-ARN")
@click.option("--follow", "-f", is_flag=True, help="Print the lines as they come, until the request has ended.")
@click.option("--attempt", type=count(1, 1_000_000), metavar="N", help="The log of an earlier attempt.  [the last]")
@click.option("--container", metavar="NAME", help="Another container of the task.  [the main one]")
@click.option("--tail", type=count(0, 100_000), metavar="N", help="Only the newest N lines.")
@click.option("--since", type=parse_time_bound, metavar="T", help="Only lines from T on: an age (30m) or a time.")
@click.option("--raw", is_flag=True, help="Leave control characters in, also for a terminal.")
@command_options
def logs(
    options: SharedOptions,
    id: str,
    follow: bool,
    attempt: int | None,
    container: str | None,
    tail: int | None,
    since: TimeBound | None,
    raw: bool,
    as_json: bool,
) -> int:
    """Show what a request's container wrote to stdout and stderr.

    The lines come from CloudWatch Logs where the task definition has the awslogs driver with awslogs-stream-prefix,
    or from the local ECS's files. Reading them needs the permissions of conf/iam-logs-policy.json.

    With --follow the lines of later attempts follow, and the command ends when the request has ended and its last lines
    have come. On a terminal control characters are left out: a container's output could send commands to it.

    \b
    Examples:
      ecs-queue logs nightly-etl --tail 20
      ecs-queue logs -f nightly-etl
      ecs-queue logs nightly-etl --attempt 1 --json | jq -r .line

    Exit status: 1 when the request, or a container of it, is not known; 2 when the log cannot be read.
    """
    from ecs_queue.cli.ui.container_log import LogChoice, LogOpener

    options.configure_logging()
    with open_client(options) as client:
        record = find_record(client.ledger, id)
        if record is None:
            print_stderr(f"ecs-queue: no request {id} is known: it was never submitted, or its retention time is over")
            return EXIT_FAILURE
        start = None if since is None else since.resolve(client.ledger.now())
        show = _JsonPrinter() if as_json else _TextPrinter(raw)
        choice, opener = LogChoice(container, tail, start), LogOpener(client)
        if follow and attempt in (None, record.attempt) and not record.is_terminal:
            return _follow(client, record, opener, choice, attempt is not None, show)
        return _show_past(client, record, opener, choice, attempt, show)


class _TextPrinter:
    def __init__(self, raw: bool) -> None:
        self._raw = raw
        self.count = 0

    def print_line(self, record: Record, launch: tuple[int, int, str], line: LogLine) -> None:
        """Print one line. `launch`: its number, its attempt and the task's ARN."""
        from ecs_queue.cli.ui.log_view import print_log_line

        del record, launch
        self.count += 1
        print_log_line(line, self._raw)


class _JsonPrinter(_TextPrinter):
    def __init__(self) -> None:
        super().__init__(raw=True)

    def print_line(self, record: Record, launch: tuple[int, int, str], line: LogLine) -> None:
        """See `_TextPrinter`."""
        self.count += 1
        members: dict[str, Any] = dict(zip(("launch", "attempt", "task_arn"), launch, strict=True))
        at = None if line.at is None else format_timestamp_ms(line.at)
        print_json({"id": record.id, **members, "at": at, "line": line.text})


def _follow(
    client: EcsQueue, record: Record, opener: LogOpener, choice: LogChoice, one_attempt: bool, show: _TextPrinter
) -> int:
    from ecs_queue.cli.ui.container_log import RequestLog

    if not record.arn:
        print_stderr(f"ecs-queue: {record.id} has no container yet ({record.state}); Ctrl-C ends only this wait")
        if record.state == "QUEUED":
            warn_unserved_queues(client, [record.queue])
    log = RequestLog(client, record.id, opener, choice)
    attempt = 0
    for found, line in log.lines(record.launch if one_attempt else None):
        if attempt not in (0, found.attempt):
            print_stderr(f"ecs-queue: attempt {found.attempt}")
        attempt = found.attempt
        show.print_line(found, (found.launch, found.attempt, found.arn), line)
    last = log.record
    if last is not None and last.is_terminal:
        exited = "" if last.exit_code is None else f" with exit code {last.exit_code}"
        print_stderr(f"ecs-queue: {last.id} ended as {last.state}{exited}")
    return 0


def _show_past(
    client: EcsQueue, record: Record, opener: LogOpener, choice: LogChoice, attempt: int | None, show: _TextPrinter
) -> int:
    from ecs_queue.cli.ui.runner_lines import lines_of_launch
    from ecs_queue.container_logs.follow import read_log, retry_while_busy

    launch = _find_launch(client, record, attempt)
    if launch is None:
        return EXIT_FAILURE
    reader = retry_while_busy(lambda: opener.open(record, launch.arn, choice), time.sleep)
    is_runner = bool(record.run) and launch.launch == record.launch
    lines = lines_of_launch(read_log(reader, time.sleep), record.id, launch.launch, is_runner=is_runner)
    if is_runner:  # the log was opened as a whole
        recent = (line for line in lines if choice.since is None or line.at is None or line.at >= choice.since)
        lines = iter(deque(recent, choice.newest))
    for line in lines:
        show.print_line(record, (launch.launch, launch.attempt, launch.arn), line)
    if not show.count:
        print_stderr(f"ecs-queue: {reader.source}: {reader.missing or 'no lines'}")
    return 0


def _find_launch(client: EcsQueue, record: Record, attempt: int | None) -> LaunchTimeline | None:
    """Return the last launch, of this attempt if it is given, that has a task; else say on stderr why there is none."""
    from ecs_queue.cli.ui.timeline_view import read_timeline, warn_about_events
    from ecs_queue.journal.timeline import LaunchTimeline

    if attempt is None and record.arn:
        return LaunchTimeline(launch=record.launch, attempt=record.attempt, arn=record.arn)
    timeline = read_timeline(client, record, record.id)
    warn_about_events(timeline)
    launches = [launch for launch in timeline.launches if launch.arn] if timeline else []
    known = [launch for launch in launches if attempt in (None, launch.attempt)]
    if known:
        return known[-1]
    if not launches:
        reason = f": {record.reason}" if record.reason else ""
        print_stderr(f"ecs-queue: {record.id} has no container, it is {record.state}{reason}")
        return None
    attempts = ", ".join(str(launch.attempt) for launch in launches)
    hint = "" if timeline and timeline.is_complete else "; earlier ones are known only to a journal that has them"
    print_stderr(f"ecs-queue: no container of attempt {attempt} is known; known are those of {attempts}{hint}")
    return None
