"""`submit`: submits one command or a file of them, and waits for their results on request."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ecs_queue.cli.ui.awaited_log import print_last_lines_of, result_sentence, wait_with_log
from ecs_queue.cli.ui.awaited_results import print_result, wait_for_all, wait_for_one
from ecs_queue.cli.ui.completion import complete_queue
from ecs_queue.cli.ui.durations import POSITIVE_DURATION, Duration
from ecs_queue.cli.ui.exit_status import (
    EXIT_INTERRUPTED,
    EXIT_OUTPUT,
    EXIT_SUBMITTED,
    EXIT_TIMED_OUT,
)
from ecs_queue.cli.ui.labels import parse_labels
from ecs_queue.cli.ui.numbers import count
from ecs_queue.cli.ui.options import SharedOptions, as_option, command_options, open_client, queue_name
from ecs_queue.cli.ui.output import (
    STDIO,
    OutputError,
    open_output,
    print_json,
    print_stderr,
    print_stdout,
)
from ecs_queue.cli.ui.record_view import exit_status_for
from ecs_queue.cli.ui.records import warn_unserved_queues
from ecs_queue.cli.ui.variables import parse_variables, variables_option
from ecs_queue.error_text import error_text
from ecs_queue.errors import EcsQueueError, InvalidRequest, ResultTimeout, UsageError
from ecs_queue.named_file import read_named_file, read_stream

if TYPE_CHECKING:
    from ecs_queue.cli.ui.submitter import Submitter
    from ecs_queue.client.client import EcsQueue

RELAUNCH_POLICIES = ("never_started", "interrupted", "any_failure")

#: A million requests of 256 bytes. A longer file is submitted in parts.
_MAX_TASK_FILE_BYTES = 256 << 20


@click.command(context_settings={"allow_interspersed_args": False}, short_help="Submit one command, or a file of them.")
@click.argument("command", nargs=-1, type=click.UNPROCESSED, metavar="[--] [COMMAND...]")
@click.option(
    "--queue",
    type=queue_name,
    shell_complete=complete_queue,
    metavar="NAME",
    help="Queue, and with it the profile of the launch.  [default]",
)
@click.option("--id", metavar="ID", help="Your own id. The same request with the same id is submitted only once.")
@click.option("--priority", type=count(0, 9), help="Requests with a higher priority are launched first.  [0]")
@variables_option
@click.option(
    "--label", "labels", multiple=True, metavar="KEY=VALUE", help="What it is for, such as team=data. Repeatable."
)
@click.option(
    "--key",
    "concurrency_key",
    metavar="KEY",
    help="Its concurrency key: at most max_per_key requests of its queue with the same key are in flight.",
)
@click.option("--cpu", type=count(1), metavar="UNITS", help="CPU units of the main container, 1024 for a vCPU.")
@click.option("--memory", type=count(1), metavar="MIB", help="Memory of the main container in MiB.")
@click.option("--executor-config", metavar="JSON", help='Other overrides, such as {"overrides": {"cpu": "1024"}}.')
@click.option(
    "--expires-in",
    type=POSITIVE_DURATION,
    metavar="S",
    help="Do not launch it later than S (90, 30m, 2h ...) from now.",
)
@click.option("--delay", type=Duration(), metavar="S", help="Do not launch it sooner than S from now.")
@click.option("--not-before", metavar="TIME", help="Do not launch it before TIME, such as 2026-11-29T03:00:00Z.")
@click.option("--time-limit", type=POSITIVE_DURATION, metavar="S", help="Stop the task when it has run for S.")
@click.option(
    "--start-timeout",
    type=POSITIVE_DURATION,
    metavar="S",
    help="Stop a task that has not started S after its launch, and launch it again.",
)
@click.option("--relaunch", type=click.Choice(RELAUNCH_POLICIES), help="When to launch it again.  [never_started]")
@click.option(
    "--retry-rules", metavar="JSON", help='What follows a failure: [{"on_exit_code": "137", "action": "retry"}].'
)
@click.option("--file", "-f", metavar="TASKS.jsonl", help="Submit every line of this file; - is stdin.")
@click.option("--wait", "-w", is_flag=True, help="Wait for the results.")
@click.option("--logs", is_flag=True, help="With --wait: print what the container writes, as it comes.")
@click.option("--timeout", type=POSITIVE_DURATION, metavar="S", help="How long to wait at most.")
@click.option("--output", "-o", metavar="RESULTS.jsonl", help="Write the results of --file to this file.")
@as_option
@command_options
def submit(options: SharedOptions, /, command: Sequence[str], file: str | None, as_json: bool, **given: Any) -> int:
    """Submit one command, or a file of them.

    Everything is checked before anything is queued: after an error in line 17 nothing was submitted. Without --wait
    the command prints the ids, one a line; `ecs-queue status ID` then shows a request's progress.

    Durations are seconds, or texts such as "90s", "30m", "2h" and "7d", everywhere. A line of --file is a JSON object;
    only `command` is required:

    \b
      {"id": "a1", "command": ["python", "etl.py"], "queue": "default",
       "environment": {"DAY": "2025-01-31"}, "cpu": 512, "memory": 1024,
       "executor_config": {"overrides": {"cpu": "1024"}},
       "priority": 0, "expires_in": 600,
       "time_limit": 3600, "relaunch": "never_started",
       "labels": {"team": "data"}, "concurrency_key": "customer-7",
       "delay": 600, "start_timeout": 300, "retry_rules": [{"on_exit_code": "137", "action": "retry"}],
       "traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"}

    The options --queue, --priority, --env, --label, --key, --cpu, --memory, --executor-config, --expires-in,
    --time-limit, --relaunch, --start-timeout and --retry-rules apply to lines that do not set the member (--env:
    `environment`, --label: `labels`, --key: `concurrency_key`), and so does the variable TRACEPARENT (W3C), which the
    container gets too.

    With --wait a result line is printed for each request as it ends, or written to --output:
    id, state, exit_code, task_arn, attempts, reason, stop_code and times.

    With --wait --logs stdout gets what the container writes, and stderr the result. Without --logs the result of a
    command that failed has its last lines. `ecs-queue logs --help` says where they come from.

    \b
    Examples:
      ecs-queue submit --wait --logs -- echo hello
      ecs-queue submit -- python etl.py --day 2025-01-31
      ecs-queue submit --env DAY=2025-01-31 --cpu 512 --memory 1024 --expires-in 1h -- python etl.py
      ecs-queue submit --wait --timeout 600 -- sh -c 'exit 3'; echo $?
      ecs-queue submit --file tasks.jsonl --wait --output results.jsonl

    Exit status with --wait: for one command its own exit code (1 when it has none); for a file 0 if every request
    ended as SUCCESS, else 1. 124 when --timeout is over and 130 after Ctrl-C: the requests go on in both cases.
    Without --wait 0. 2 means that nothing was queued. After something was queued it is 74 when the ids or results
    cannot be written (stdout or --output is full or closed), and 75 when the command cannot go on for another reason;
    the sentence on stderr says what was queued.
    """
    options.configure_logging()
    output_options = _OutputOptions(
        given.pop("wait"), given.pop("timeout"), as_json, given.pop("output"), given.pop("logs")
    )
    _check_usage(command, file, given["id"], output_options)
    return _submit(options, command, file, _task_fields(given), output_options)


@dataclass(frozen=True)
class _OutputOptions:
    wait: bool
    timeout: float | None
    as_json: bool
    output: str | None
    logs: bool

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
    with open_client(options, owner=None if output_options.wait else "") as client:
        submitter = Submitter(client)
        try:
            if file is None:
                return _submit_one(submitter, client, {"command": list(command), **fields}, output_options)
            name = "standard input" if file == STDIO else file
            return _submit_file(submitter, client, name, data, fields, output_options)
        except ResultTimeout as error:
            print_stderr(f"ecs-queue: {error}; {_follow_up_hint(submitter)}")
            return EXIT_TIMED_OUT
        except KeyboardInterrupt:
            print_stderr(f"ecs-queue: interrupted; {_follow_up_hint(submitter)}")
            return EXIT_INTERRUPTED
        except (EcsQueueError, BrokenPipeError) as error:
            if not submitter.may_have_submitted:
                raise
            print_stderr(f"ecs-queue: {error_text(error)}; {_follow_up_hint(submitter)}")
            return EXIT_OUTPUT if isinstance(error, OutputError | BrokenPipeError) else EXIT_SUBMITTED
        except Exception:
            if submitter.may_have_submitted:
                print_stderr(f"ecs-queue: {_follow_up_hint(submitter)}")
            raise


def _submit_one(submitter: Submitter, client: EcsQueue, task: dict[str, Any], output_options: _OutputOptions) -> int:
    prepared = client.prepare(task)
    client.check([prepared.request.queue])
    (handle,) = submitter.submit([prepared])
    warn_unserved_queues(client, {prepared.request.queue})
    if not output_options.wait:
        output_options.print_id(handle.id)
        return 0
    if output_options.logs:
        result = wait_with_log(client, handle, output_options.timeout)
        print_stderr(f"ecs-queue: {result_sentence(result)}")
        return exit_status_for(result.to_result_line())
    result = wait_for_one(client, handle, prepared.request.queue, output_options.timeout)
    if output_options.as_json:
        print_json(result.to_result_line())
    else:
        print_result(result)
        print_last_lines_of(client, result)
    return exit_status_for(result.to_result_line())


def _submit_file(
    submitter: Submitter,
    client: EcsQueue,
    name: str,
    data: bytes,
    fields: dict[str, Any],
    output_options: _OutputOptions,
) -> int:
    from ecs_queue.cli.ui.progress import open_progress
    from ecs_queue.cli.ui.task_file import prepare_task_lines, read_task_lines

    number = sum(1 for line in data.split(b"\n") if line.strip())
    with open_progress(number, "checked") as progress:
        lines = read_task_lines(name, data, fields)
        client.check()
        try:
            prepared_requests = prepare_task_lines(client, name, lines, progress.advance)
        except EcsQueueError as error:
            raise type(error)(f"{error}; nothing was submitted") from None
    client.check({item.request.queue for item in prepared_requests})
    output = output_options.output
    to_file = output is not None and output != STDIO
    with open_output(str(output), "nothing was submitted") if to_file else nullcontext() as sink:
        with open_progress(number, "submitted") as progress:
            handles = submitter.submit(prepared_requests, progress.advance)
        warn_unserved_queues(client, {item.request.queue for item in prepared_requests})
        if not output_options.wait:
            for handle in handles:
                output_options.print_id(handle.id)
            return 0
        return wait_for_all(client, handles, output_options.timeout, sink)


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
    if output_options.logs and (file is not None or not output_options.wait or output_options.as_json):
        raise UsageError("submit: --logs prints the output of one command with --wait, and not with --json or --file")
    if output_options.timeout is not None and not output_options.wait:
        raise UsageError("submit: --timeout bounds --wait; give both, or neither")
    if file is not None and output is not None and file != STDIO and _is_same_file(file, output):
        raise UsageError(f"submit: --output would overwrite the tasks in {file}; name another file")
    if not all(_is_utf8(argument) for argument in command):
        raise InvalidRequest("command: expected UTF-8 text, found other bytes")


def _task_fields(given: dict[str, Any]) -> dict[str, Any]:
    """Return the options, and the trace of the environment, as members of a task line."""
    from ecs_queue.messages.fields import is_traceparent

    fields = {name: value for name, value in given.items() if value is not None and name not in ("variables", "labels")}
    if given["variables"]:
        fields["environment"] = parse_variables(given["variables"])
    if given["labels"]:
        fields["labels"] = parse_labels(given["labels"])
    traceparent = os.environ.get("TRACEPARENT")
    if is_traceparent(traceparent):
        fields["traceparent"] = traceparent
    examples = {"executor_config": '{"cpu": 512}', "retry_rules": '[{"on_exit_code": "137", "action": "retry"}]'}
    for name, example in examples.items():
        if name in fields:
            try:
                fields[name] = json.loads(fields[name])
            except (ValueError, RecursionError) as error:
                option = f"--{name.replace('_', '-')}"
                raise InvalidRequest(f"{option}: expected JSON such as {example}: {error_text(error)}") from None
    return fields


def _read_task_file(file: str) -> bytes:
    try:
        if file == STDIO:
            return read_stream(sys.stdin.buffer, _MAX_TASK_FILE_BYTES)
        return read_named_file(file, _MAX_TASK_FILE_BYTES)
    except OSError as error:
        raise UsageError(f"--file {file}: {error.strerror}; expected a file of JSON lines, or -") from None


def _follow_up_hint(submitter: Submitter) -> str:
    """Say what became of the requests, and which commands show more."""
    handles, ambiguous = submitter.handles, submitter.ambiguous_ids
    hints = []
    if len(handles) == 1:
        hints.append(f"the request goes on: ecs-queue status {handles[0].id}, ecs-queue stop {handles[0].id}")
    elif handles:
        hints.append(f"the {len(handles)} submitted requests go on: ecs-queue tasks, ecs-queue stop ID")
    if ambiguous:
        which = ambiguous[0] if len(ambiguous) == 1 else f"{len(ambiguous)} requests from {ambiguous[0]} on"
        hints.append(f"it is unknown whether {which} were submitted: ecs-queue status {ambiguous[0]}")
    return "; ".join(hints) or "nothing was submitted"


def _is_same_file(one: str, other: str) -> bool:
    try:
        return Path(one).samefile(other)
    except OSError:  # one of them does not exist
        return False


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
