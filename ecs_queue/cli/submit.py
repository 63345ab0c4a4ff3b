"""`submit`: one command or a file of them, and on request their results."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import click

from ecs_queue.cli.ui.options import SharedOptions, json_option, open_client, pass_options, shared_options
from ecs_queue.cli.ui.output import is_terminal, print_json, print_stderr, print_stdout, to_json_line
from ecs_queue.cli.ui.record_view import exit_status_for
from ecs_queue.errors import EcsQueueError, InvalidRequest, LedgerUnavailable, ResultTimeout, UsageError

if TYPE_CHECKING:
    from ecs_queue.cli.ui.submitter import Submitter
    from ecs_queue.client.client import EcsQueue, Handle
    from ecs_queue.messages.envelope import TaskResult

RELAUNCH_POLICIES = ("never_started", "interrupted", "any_failure")
EXIT_TIMED_OUT = 124  # as of timeout(1)
EXIT_INTERRUPTED = 130
STDIN = "-"
#: Finite: JSON knows no infinity.
POSITIVE_SECONDS = click.FloatRange(0, 1e9, min_open=True)


@click.command(context_settings={"allow_interspersed_args": False}, short_help="Submit one command, or a file of them.")
@click.argument("command", nargs=-1, type=click.UNPROCESSED, metavar="[--] [COMMAND...]")
@click.option("--queue", metavar="NAME", help="The queue, and with it the profile it is launched with.  [default]")
@click.option("--id", metavar="ID", help="An id of your own: submitting the same again is the same request.")
@click.option("--priority", type=click.IntRange(0, 9), help="9 is served first.  [0]")
@click.option("--executor-config", metavar="JSON", help='Overrides, such as {"cpu": 512, "environment": [...]}.')
@click.option("--expires-in", type=POSITIVE_SECONDS, metavar="S", help="Do not start it later than S seconds from now.")
@click.option("--time-limit", type=POSITIVE_SECONDS, metavar="S", help="Stop it when it has run for S seconds.")
@click.option(
    "--relaunch", type=click.Choice(RELAUNCH_POLICIES), help="When it may be launched again.  [never_started]"
)
@click.option("--file", "-f", metavar="TASKS.jsonl", help="Submit every line of this file; - is standard input.")
@click.option("--wait", "-w", is_flag=True, help="Wait for the results.")
@click.option("--timeout", type=POSITIVE_SECONDS, metavar="S", help="Wait for at most S seconds.")
@click.option("--output", "-o", metavar="RESULTS.jsonl", help="Write the results of --file there, as they come.")
@json_option
@shared_options
@pass_options
def submit(options: SharedOptions, /, command: Sequence[str], file: str | None, as_json: bool, **given: Any) -> int:
    """Submit one command, or a file of them.

    Everything is checked before anything is queued: a bad line 17 means that nothing was submitted. Without
    --wait the ids are printed, one a line; `ecs-queue status ID` tells how it goes on.

    A line of --file is a JSON object; only `command` is required:

    \b
      {"id": "a1", "command": ["python", "etl.py"], "queue": "default",
       "executor_config": {"cpu": 512}, "priority": 0, "expires_in": 600,
       "time_limit": 3600, "relaunch": "never_started"}

    The options --queue, --priority, --executor-config, --expires-in, --time-limit and --relaunch hold for lines
    that say nothing of it. With --wait a result line is printed for every request as it ends, or written to
    --output: id, state, exit_code, task_arn, attempts, reason, stop_code and times.

    \b
    Examples:
      ecs-queue submit -- python etl.py --day 2025-01-31
      ecs-queue submit --wait --timeout 600 -- sh -c 'exit 3'; echo $?
      ecs-queue submit --file tasks.jsonl --wait --output results.jsonl

    Exit status with --wait: of one command its own exit code (1 when it has none); of a file 0 only if every
    request ended as SUCCESS, else 1; 124 when --timeout is over, 130 after Ctrl-C: the requests go on in both
    cases. Otherwise 0. 2 means that nothing was queued, unless the sentence on stderr says more.
    """
    options.configure_logging()
    answer = _OutputOptions(given.pop("wait"), given.pop("timeout"), as_json, given.pop("output"))
    _check_usage(command, file, given["id"], answer)
    return _submit(options, command, file, _task_fields(given), answer)


@dataclass(frozen=True)
class _OutputOptions:
    """What the caller wants to get."""

    wait: bool
    timeout: float | None
    as_json: bool
    output: str | None

    def print_id(self, record_id: str) -> None:
        if self.as_json:
            print_json({"id": record_id})
        else:
            print_stdout(record_id)


def _submit(
    options: SharedOptions,
    command: Sequence[str],
    file: str | None,
    fields: dict[str, Any],
    output_options: _OutputOptions,
) -> int:
    from ecs_queue.cli.ui.submitter import Submitter

    data = b"" if file is None else _read_task_file(file)
    with open_client(options, owner=None if output_options.wait else "") as queue:
        sending = Submitter(queue)
        try:
            if file is None:
                return _submit_one(sending, queue, {"command": list(command), **fields}, output_options)
            name = "standard input" if file == STDIN else file
            return _submit_file(sending, queue, name, data, fields, output_options)
        except ResultTimeout as error:
            print_stderr(f"ecs-queue: {error}; {_follow_up_hint(sending)}")
            return EXIT_TIMED_OUT
        except KeyboardInterrupt:
            print_stderr(f"ecs-queue: interrupted; {_follow_up_hint(sending)}")
            return EXIT_INTERRUPTED


def _submit_one(submitter: Submitter, queue: EcsQueue, task: dict[str, Any], output_options: _OutputOptions) -> int:
    draft = queue.prepare(task)
    queue.check()
    (handle,) = submitter.submit([draft], lambda _: None)
    if not output_options.wait:
        output_options.print_id(handle.id)
        return 0
    _warn_unserved_queues(queue, {draft.request.queue})
    result = _wait_for_one(queue, handle, draft.request.queue, output_options.timeout)
    line = result.to_result_line()
    if output_options.as_json:
        print_json(line)
    else:
        _print_result(result)
    return exit_status_for(line)


def _wait_for_one(queue: EcsQueue, handle: Handle, queue_name: str, timeout: float | None) -> TaskResult:
    from ecs_queue.cli.ui.submitter import wait_for_results

    if not is_terminal(sys.stderr):
        return next(wait_for_results(queue, [handle], timeout))
    from rich.console import Console
    from rich.markup import escape

    console = Console(stderr=True)
    with console.status(f"{escape(handle.id)} is in queue {escape(queue_name)}; Ctrl-C leaves it running"):
        return next(wait_for_results(queue, [handle], timeout))


def _submit_file(
    submitter: Submitter,
    queue: EcsQueue,
    name: str,
    data: bytes,
    fields: dict[str, Any],
    output_options: _OutputOptions,
) -> int:
    from ecs_queue.cli.ui.progress import make_progress
    from ecs_queue.cli.ui.task_file import prepare_task_lines, read_task_lines

    number = sum(1 for line in data.split(b"\n") if line.strip())
    with make_progress(number, "checked") as checked:
        lines = read_task_lines(name, data, fields)
        queue.check()
        try:
            drafts = prepare_task_lines(queue, name, lines, checked.advance)
        except EcsQueueError as error:
            raise type(error)(f"{error}; nothing was submitted") from None
    with _open_results_file(output_options.output) as sink:
        with make_progress(number, "submitted") as submitted:
            handles = submitter.submit(drafts, submitted.advance)
        if not output_options.wait:
            for handle in handles:
                output_options.print_id(handle.id)
            return 0
        _warn_unserved_queues(queue, {draft.request.queue for draft in drafts})
        return _wait_for_all(queue, handles, output_options.timeout, sink)


def _wait_for_all(queue: EcsQueue, handles: Sequence[Handle], timeout: float | None, sink: IO[str] | None) -> int:
    from ecs_queue.cli.ui.progress import make_progress
    from ecs_queue.cli.ui.submitter import wait_for_results

    states: Counter[str] = Counter()
    with make_progress(len(handles), "ended") as progress:
        for result in wait_for_results(queue, handles, timeout):
            line = to_json_line(result.to_result_line())
            if sink is None:
                progress.print_line(line)
            else:
                sink.write(line + "\n")
                sink.flush()
            states[result.state] += 1
            progress.advance()
    counted = ", ".join(f"{count} {state}" for state, count in sorted(states.items()))
    print_stderr(f"{len(handles)} ended: {counted}")
    return 0 if set(states) == {"SUCCESS"} else 1


def _check_usage(command: Sequence[str], file: str | None, id: str | None, output_options: _OutputOptions) -> None:
    output = output_options.output
    if file is None and not command:
        raise UsageError("submit: expected a command, found none: ecs-queue submit -- echo hello, or --file FILE")
    if file is not None and command:
        raise UsageError("submit: expected a command or --file, found both; leave one of them out")
    if file is not None and id is not None:
        raise UsageError("submit: --id is for one command; in a file each line may have an id of its own")
    if output is not None and (file is None or not output_options.wait):
        raise UsageError("submit: --output takes the results of --file and --wait; give both, or leave it out")
    if output_options.timeout is not None and not output_options.wait:
        raise UsageError("submit: --timeout bounds --wait; give both, or neither")
    if file is not None and output is not None and file != STDIN and _is_same_file(file, output):
        raise UsageError(f"submit: --output would overwrite the tasks in {file}; name another file")
    if not all(_is_utf8(word) for word in command):
        raise InvalidRequest("command: expected UTF-8 text, found other bytes")


def _task_fields(given: dict[str, Any]) -> dict[str, Any]:
    """What the options say, as members of a task line."""
    fields = {name: value for name, value in given.items() if value is not None}
    text = fields.get("executor_config")
    if text is not None:
        try:
            fields["executor_config"] = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise InvalidRequest(f'--executor-config: expected JSON such as {{"cpu": 512}}: {error}') from None
    return fields


def _read_task_file(file: str) -> bytes:
    if file == STDIN:
        return sys.stdin.buffer.read()
    try:
        return Path(file).read_bytes()
    except OSError as error:
        raise UsageError(f"--file {file}: {error.strerror}; expected a file of JSON lines, or -") from None


@contextmanager
def _open_results_file(output: str | None) -> Iterator[IO[str] | None]:
    """The file for the results, emptied; None: they go to stdout."""
    if output is None or output == STDIN:
        yield None
        return
    try:
        sink = open(output, "w", encoding="utf-8", errors="backslashreplace")  # noqa: SIM115 - closed below
    except OSError as error:
        raise UsageError(f"--output {output}: {error.strerror}; nothing was submitted") from None
    with sink:
        yield sink


def _warn_unserved_queues(queue: EcsQueue, names: set[str]) -> None:
    try:
        served = {name for worker in queue.ledger.list_workers() for name in worker.queues}
    except LedgerUnavailable:
        return  # it is submitted, and that is what counts; waiting outlasts the ledger's absence
    for name in sorted(names - served):
        print_stderr(f"ecs-queue: no worker takes from queue {name} now; start one: ecs-queue worker --queues {name}")


def _print_result(result: TaskResult) -> None:
    """For people: a sentence, then what there is to know."""
    from ecs_queue.cli.ui.output import format_duration, print_fields

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


def _follow_up_hint(submitter: Submitter) -> str:
    """What has become of what was submitted, for somebody who waits no longer."""
    handles, doubt = submitter.handles, submitter.ambiguous_ids
    if not handles and not doubt:
        return "nothing was submitted"
    words = []
    if len(handles) == 1:
        words.append(f"the request goes on: ecs-queue status {handles[0].id}, ecs-queue stop {handles[0].id}")
    elif handles:
        words.append(f"the {len(handles)} submitted requests go on: ecs-queue tasks, ecs-queue stop ID")
    if doubt:
        what = doubt[0] if len(doubt) == 1 else f"{len(doubt)} requests from {doubt[0]} on"
        words.append(f"of {what} it is not known whether they were submitted: ecs-queue status {doubt[0]}")
    return "; ".join(words)


def _is_same_file(one: str, other: str) -> bool:
    try:
        return Path(one).samefile(other)
    except OSError:  # one of them does not exist
        return False


def _is_utf8(word: str) -> bool:
    try:
        word.encode()
    except UnicodeEncodeError:
        return False
    return True
