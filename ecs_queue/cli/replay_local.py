"""`replay --local`: runs a request's command on this machine, with its environment and its exit code."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ecs_queue.cli.ui.durations import format_duration
from ecs_queue.cli.ui.output import print_json, print_stderr, sanitize
from ecs_queue.error_text import error_text
from ecs_queue.errors import InvalidRequest, UsageError
from ecs_queue.local.stop_signals import stop_signals
from ecs_queue.payload_repr import PayloadRepr

if TYPE_CHECKING:
    from ecs_queue.config import Config
    from ecs_queue.replay.past_request import PastRequest
    from ecs_queue.runtask.resubmit import ResubmitChanges

#: The variables of this shell that commands need. The others are not the container's.
_INHERITED = ("PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR", "TERM")
#: The exit statuses of a shell.
_EXIT_CANNOT_START, _EXIT_COMMAND_NOT_FOUND = 126, 127
#: After which time at most a signal is passed on to the command.
_WAIT_SECONDS = 1.0


@dataclass(frozen=True, repr=False)
class LocalRun(PayloadRepr):
    """A command and the variables of its request. `task_definition` is the one it ran with, "" if unknown."""

    id: str
    command: Sequence[str] = field(repr=False)
    variables: Mapping[str, str] = field(repr=False)
    task_definition: str = ""


def make_local_run(config: Config, past: PastRequest, changes: ResubmitChanges) -> LocalRun:
    """Return the main container's command and environment, as sent or else as they would be sent, with the changes.

    Raises:
        InvalidRequest: A secret that the journal has redacted is missing.
    """
    from ecs_queue.replay.past_request import reject_redacted
    from ecs_queue.runtask.executor_config import normalize_executor_config
    from ecs_queue.runtask.merge import merge_run_task

    if past.last_call is not None and not changes.queue:
        main, run_task = past.last_call.launch_spec.container_name, past.last_call.launch_spec.run_task
        definition = str(run_task.get("taskDefinition") or "")
    else:
        profile = config.profile(changes.queue or past.request.queue)
        main, definition = profile.container_name, profile.task_definition or ""
        run_task = merge_run_task(
            profile.run_task_kwargs, normalize_executor_config(past.request.executor_config, main)
        )
    override = _main_override(past.id, run_task, main)
    variables = {entry["name"]: entry.get("value", "") for entry in override.get("environment", ())}
    variables |= changes.environment
    environment = [{"name": name, "value": value} for name, value in variables.items()]
    reject_redacted(past.id, {"command": past.request.command, "environment": environment})
    return LocalRun(past.id, past.request.command, variables, definition)


def run_locally(run: LocalRun, as_json: bool) -> int:
    """Run the command to its end, and return its exit status. Its output goes to stdout, with JSON to stderr."""
    _print_limits(run)
    environment = {name: os.environ[name] for name in _INHERITED if name in os.environ}
    start = time.monotonic()
    status = _run(run.command, {**environment, **run.variables}, sys.stderr if as_json else None)
    seconds = time.monotonic() - start
    if as_json:
        print_json({"id": run.id, "exit_code": status, "ran_seconds": round(seconds, 3)})
    print_stderr(f"ecs-queue: {run.id} ended here with exit code {status} after {format_duration(seconds)}")
    return status


def _run(command: Sequence[str], environment: Mapping[str, str], output: Any) -> int:
    sys.stdout.flush()
    sys.stderr.flush()
    try:
        process = subprocess.Popen(  # noqa: S603 - the user asked to run this command
            list(command), env=dict(environment), stdin=subprocess.DEVNULL, stdout=output
        )
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error_text(error)
        print_stderr(f"ecs-queue: the command's program cannot be started here: {reason}")
        return _EXIT_COMMAND_NOT_FOUND if isinstance(error, FileNotFoundError) else _EXIT_CANNOT_START
    code = _wait_for(process)
    return 128 - code if code < 0 else code


def _wait_for(process: subprocess.Popen[bytes]) -> int:
    """Let the command handle signals: Ctrl-C reaches its process group, which is ours; the others are passed on."""

    def pass_on(number: int, frame: Any) -> None:
        del frame
        if number != signal.SIGINT:
            process.send_signal(number)

    before = {number: signal.signal(number, pass_on) for number in stop_signals()}
    try:
        while True:
            # A handler runs only when the main thread does: just before an endless wait it would pass nothing on.
            with suppress(subprocess.TimeoutExpired):
                return process.wait(_WAIT_SECONDS)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _main_override(record_id: str, run_task: Mapping[str, Any], main: str | None) -> Mapping[str, Any]:
    containers = run_task.get("overrides", {}).get("containerOverrides", ())
    if main is None and any("name" in container for container in containers):
        raise UsageError(f"{record_id}: it is unknown which container is the main one: set container_name")
    found: dict[str, Any] = {}
    for container in containers:
        if container.get("name", main) == main:
            found.update(container)
    if any("name" not in entry for entry in found.get("environment", ())):
        raise InvalidRequest(f"{record_id}: its environment has a variable without a name")
    return found


def _print_limits(run: LocalRun) -> None:
    """Print what the command has here, and what it does not have."""
    arguments = f" and {len(run.command) - 1} arguments" if len(run.command) > 1 else ""  # they may hold secrets
    program = sanitize(shlex.quote(run.command[0])) + arguments
    print_stderr(f"ecs-queue: running {run.id} here, as your user, in {os.getcwd()}: {program}")
    names = ", ".join(run.variables) or "none"
    print_stderr(f"ecs-queue: its own variables: {names}; of this shell only PATH, HOME and the like")
    image = f"task definition {run.task_definition}" if run.task_definition else "its task definition"
    print_stderr(
        f"ecs-queue: not here: what {image} supplies (image, entry point, user, working directory, "
        "variables and secrets of its own) and the task's role"
    )
