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

from ecs_queue.cli.facts import exit_status_of
from ecs_queue.cli.options import Options, json_option, opened_queue, pass_options, shared_options
from ecs_queue.cli.output import is_watched, json_line, say, show, show_json
from ecs_queue.errors import EcsQueueError, InvalidRequest, LedgerUnavailable, ResultTimeout, UsageError

if TYPE_CHECKING:
    from ecs_queue.cli.sending import Sending
    from ecs_queue.client import EcsQueue, Handle
    from ecs_queue.core.envelope import TaskResult

RELAUNCH = ("never_started", "interrupted", "any_failure")
TIMED_OUT = 124  # as of timeout(1)
INTERRUPTED = 130
STDIN = "-"
#: Finite: JSON knows no infinity.
SECONDS = click.FloatRange(0, 1e9, min_open=True)


@click.command(context_settings={"allow_interspersed_args": False}, short_help="Submit one command, or a file of them.")
@click.argument("command", nargs=-1, type=click.UNPROCESSED, metavar="[--] [COMMAND...]")
@click.option("--queue", metavar="NAME", help="The queue, and with it the profile it is launched with.  [default]")
@click.option("--id", metavar="ID", help="An id of your own: submitting the same again is the same request.")
@click.option("--priority", type=click.IntRange(0, 9), help="9 is served first.  [0]")
@click.option("--executor-config", metavar="JSON", help='Overrides, such as {"cpu": 512, "environment": [...]}.')
@click.option("--expires-in", type=SECONDS, metavar="S", help="Do not start it later than S seconds from now.")
@click.option("--time-limit", type=SECONDS, metavar="S", help="Stop it when it has run for S seconds.")
@click.option("--relaunch", type=click.Choice(RELAUNCH), help="When it may be launched again.  [never_started]")
@click.option("--file", "-f", metavar="TASKS.jsonl", help="Submit every line of this file; - is standard input.")
@click.option("--wait", "-w", is_flag=True, help="Wait for the results.")
@click.option("--timeout", type=SECONDS, metavar="S", help="Wait for at most S seconds.")
@click.option("--output", "-o", metavar="RESULTS.jsonl", help="Write the results of --file there, as they come.")
@json_option
@shared_options
@pass_options
def submit(options: Options, /, command: Sequence[str], file: str | None, as_json: bool, **given: Any) -> int:
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
    options.start_logging()
    answer = _Answer(given.pop("wait"), given.pop("timeout"), as_json, given.pop("output"))
    _check_usage(command, file, given["id"], answer)
    return _submit(options, command, file, _fields(given), answer)


@dataclass(frozen=True)
class _Answer:
    """What the caller wants to get."""

    wait: bool
    timeout: float | None
    as_json: bool
    output: str | None

    def show_id(self, record_id: str) -> None:
        if self.as_json:
            show_json({"id": record_id})
        else:
            show(record_id)


def _submit(options: Options, command: Sequence[str], file: str | None, fields: dict[str, Any], answer: _Answer) -> int:
    from ecs_queue.cli.sending import Sending

    data = b"" if file is None else _read(file)
    with opened_queue(options, owner=None if answer.wait else "") as queue:
        sending = Sending(queue)
        try:
            if file is None:
                return _submit_one(sending, queue, {"command": list(command), **fields}, answer)
            name = "standard input" if file == STDIN else file
            return _submit_file(sending, queue, name, data, fields, answer)
        except ResultTimeout as error:
            say(f"ecs-queue: {error}; {_how_to_look(sending)}")
            return TIMED_OUT
        except KeyboardInterrupt:
            say(f"ecs-queue: interrupted; {_how_to_look(sending)}")
            return INTERRUPTED


def _submit_one(sending: Sending, queue: EcsQueue, task: dict[str, Any], answer: _Answer) -> int:
    draft = queue.prepare(task)
    queue.check()
    (handle,) = sending.send([draft], lambda _: None)
    if not answer.wait:
        answer.show_id(handle.id)
        return 0
    _warn_if_nobody_listens(queue, {draft.request.queue})
    result = _await_one(queue, handle, draft.request.queue, answer.timeout)
    line = result.line()
    if answer.as_json:
        show_json(line)
    else:
        _show_result(result)
    return exit_status_of(line)


def _await_one(queue: EcsQueue, handle: Handle, name: str, timeout: float | None) -> TaskResult:
    from ecs_queue.cli.sending import follow

    if not is_watched(sys.stderr):
        return next(follow(queue, [handle], timeout))
    from rich.console import Console
    from rich.markup import escape

    console = Console(stderr=True)
    with console.status(f"{escape(handle.id)} is in queue {escape(name)}; Ctrl-C leaves it running"):
        return next(follow(queue, [handle], timeout))


def _submit_file(
    sending: Sending, queue: EcsQueue, name: str, data: bytes, fields: dict[str, Any], answer: _Answer
) -> int:
    from ecs_queue.cli.progress import make_progress
    from ecs_queue.cli.tasklines import prepare_lines, read_lines

    number = sum(1 for line in data.split(b"\n") if line.strip())
    with make_progress(number, "checked") as checked:
        lines = read_lines(name, data, fields)
        queue.check()
        try:
            drafts = prepare_lines(queue, name, lines, checked.advance)
        except EcsQueueError as error:
            raise type(error)(f"{error}; nothing was submitted") from None
    with _opened(answer.output) as sink:
        with make_progress(number, "submitted") as submitted:
            handles = sending.send(drafts, submitted.advance)
        if not answer.wait:
            for handle in handles:
                answer.show_id(handle.id)
            return 0
        _warn_if_nobody_listens(queue, {draft.request.queue for draft in drafts})
        return _await_file(queue, handles, answer.timeout, sink)


def _await_file(queue: EcsQueue, handles: Sequence[Handle], timeout: float | None, sink: IO[str] | None) -> int:
    from ecs_queue.cli.progress import make_progress
    from ecs_queue.cli.sending import follow

    states: Counter[str] = Counter()
    with make_progress(len(handles), "ended") as progress:
        for result in follow(queue, handles, timeout):
            line = json_line(result.line())
            if sink is None:
                progress.show(line)
            else:
                sink.write(line + "\n")
                sink.flush()
            states[result.state] += 1
            progress.advance()
    counted = ", ".join(f"{count} {state}" for state, count in sorted(states.items()))
    say(f"{len(handles)} ended: {counted}")
    return 0 if set(states) == {"SUCCESS"} else 1


def _check_usage(command: Sequence[str], file: str | None, id: str | None, answer: _Answer) -> None:
    output = answer.output
    if file is None and not command:
        raise UsageError("submit: expected a command, found none: ecs-queue submit -- echo hello, or --file FILE")
    if file is not None and command:
        raise UsageError("submit: expected a command or --file, found both; leave one of them out")
    if file is not None and id is not None:
        raise UsageError("submit: --id is for one command; in a file each line may have an id of its own")
    if output is not None and (file is None or not answer.wait):
        raise UsageError("submit: --output takes the results of --file and --wait; give both, or leave it out")
    if answer.timeout is not None and not answer.wait:
        raise UsageError("submit: --timeout bounds --wait; give both, or neither")
    if file is not None and output is not None and file != STDIN and _is_same_file(file, output):
        raise UsageError(f"submit: --output would overwrite the tasks in {file}; name another file")
    if not all(_is_text(word) for word in command):
        raise InvalidRequest("command: expected UTF-8 text, found other bytes")


def _fields(given: dict[str, Any]) -> dict[str, Any]:
    """What the options say, as members of a task line."""
    fields = {name: value for name, value in given.items() if value is not None}
    text = fields.get("executor_config")
    if text is not None:
        try:
            fields["executor_config"] = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise InvalidRequest(f'--executor-config: expected JSON such as {{"cpu": 512}}: {error}') from None
    return fields


def _read(file: str) -> bytes:
    if file == STDIN:
        return sys.stdin.buffer.read()
    try:
        return Path(file).read_bytes()
    except OSError as error:
        raise UsageError(f"--file {file}: {error.strerror}; expected a file of JSON lines, or -") from None


@contextmanager
def _opened(output: str | None) -> Iterator[IO[str] | None]:
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


def _warn_if_nobody_listens(queue: EcsQueue, names: set[str]) -> None:
    try:
        served = {name for worker in queue.ledger.workers() for name in worker.queues}
    except LedgerUnavailable:
        return  # it is submitted, and that is what counts; waiting outlasts the ledger's absence
    for name in sorted(names - served):
        say(f"ecs-queue: no worker takes from queue {name} now; start one: ecs-queue worker --queues {name}")


def _show_result(result: TaskResult) -> None:
    """For people: a sentence, then what there is to know."""
    from ecs_queue.cli.output import duration, show_pairs

    start, end = result.started_at, result.finished_at
    show_pairs(
        [
            ("state", result.state),
            ("exit code", "" if result.exit_code is None else str(result.exit_code)),
            ("id", result.id),
            ("task", result.task_arn or ""),
            ("attempts", str(result.attempts)),
            ("ran", duration((end - start).total_seconds()) if start and end else ""),
            ("took", duration((end - result.queued_at).total_seconds()) if end and result.queued_at else ""),
            ("reason", result.reason),
            ("stop code", result.stop_code or ""),
        ]
    )


def _how_to_look(sending: Sending) -> str:
    """What has become of what was submitted, for somebody who waits no longer."""
    handles, doubt = sending.handles, sending.in_doubt
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


def _is_text(word: str) -> bool:
    try:
        word.encode()
    except UnicodeEncodeError:
        return False
    return True
