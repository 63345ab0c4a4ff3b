"""`replay --local`: a request's command as a process here, with its environment and its exit code."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ecs_queue.cli.ui.output import format_duration, print_json, print_stderr, sanitize
from ecs_queue.errors import InvalidRequest, UsageError

if TYPE_CHECKING:
    from ecs_queue.config import Config
    from ecs_queue.replay.past_request import PastRequest
    from ecs_queue.runtask.resubmit import ResubmitChanges

#: What of this shell's environment a command cannot do without; the rest is not the container's.
_INHERITED_VARIABLES = (
    "PATH",
    "HOME",
    "USER",
    "LOGNAME",
    "SHELL",
    "LANG",
    "LC_ALL",
    "LC_CTYPE",
    "TZ",
    "TMPDIR",
    "TERM",
)
#: As a shell says it: cannot be started, not found.
_EXIT_CANNOT_START, _EXIT_COMMAND_NOT_FOUND = 126, 127


@dataclass(frozen=True)
class LocalRun:
    """A command and the variables that the request gives it. `task_definition`: what it had run with, "" if unknown."""

    id: str
    command: Sequence[str] = field(repr=False)
    variables: Mapping[str, str] = field(repr=False)
    task_definition: str = ""


def make_local_run(config: Config, past: PastRequest, changes: ResubmitChanges) -> LocalRun:
    """The main container's command and environment: as they were sent, else as they would be; with the changes."""
    from ecs_queue.runtask.executor_config import normalize_executor_config
    from ecs_queue.runtask.merge import merge_run_task

    sent = past.last_call
    profile = config.profile(changes.queue or past.request.queue)
    if sent is not None and not changes.queue:
        main, asked = sent.launch_spec.container_name, sent.launch_spec.run_task
        definition = str(asked.get("taskDefinition") or "")
    else:
        main, definition = profile.container_name, profile.task_definition or ""
        config_asked = normalize_executor_config(past.request.executor_config, main)
        asked = merge_run_task(profile.run_task_kwargs, config_asked)
    override = _main_override(past.id, asked, main)
    variables = {one["name"]: one.get("value", "") for one in override.get("environment", ())}
    variables |= changes.environment
    _reject_redacted(past, variables)
    return LocalRun(past.id, past.request.command, variables, definition)


def _reject_redacted(past: PastRequest, variables: Mapping[str, str]) -> None:
    from ecs_queue.replay.past_request import reject_redacted

    shown = [{"name": name, "value": value} for name, value in variables.items()]
    reject_redacted(past.id, {"command": past.request.command, "environment": shown})


def run_locally(run: LocalRun, as_json: bool) -> int:
    """Run it to its end; its exit status. Its output goes to the screen, with JSON to stderr."""
    _print_limits(run)
    environment = {name: os.environ[name] for name in _INHERITED_VARIABLES if name in os.environ}
    started = time.monotonic()
    status = _run(run.command, {**environment, **run.variables}, sys.stderr if as_json else None)
    took = time.monotonic() - started
    if as_json:
        print_json({"id": run.id, "exit_code": status, "ran_seconds": round(took, 3)})
    print_stderr(f"ecs-queue: {run.id} ended here with exit code {status} after {format_duration(took)}")
    return status


def _run(command: Sequence[str], environment: Mapping[str, str], output: Any) -> int:
    sys.stdout.flush()
    sys.stderr.flush()
    try:
        process = subprocess.Popen(  # noqa: S603 - running that very command is what was asked for
            list(command), env=dict(environment), stdin=subprocess.DEVNULL, stdout=output
        )
    except (OSError, ValueError) as error:
        print_stderr(f"ecs-queue: {command[0]} cannot be started here: {getattr(error, 'strerror', None) or error}")
        return _EXIT_COMMAND_NOT_FOUND if isinstance(error, FileNotFoundError) else _EXIT_CANNOT_START
    code = _wait_for(process)
    return 128 - code if code < 0 else code


def _wait_for(process: subprocess.Popen[bytes]) -> int:
    """Ctrl-C reaches the command as well, which is of this process group; SIGTERM is passed on. It decides."""

    def pass_on(number: int, frame: Any) -> None:
        del frame
        if number == signal.SIGTERM:
            process.send_signal(number)

    before = {number: signal.signal(number, pass_on) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        return process.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _main_override(record_id: str, run_task: Mapping[str, Any], main: str | None) -> Mapping[str, Any]:
    containers = run_task.get("overrides", {}).get("containerOverrides", ())
    if main is None and any("name" in one for one in containers):
        raise UsageError(f"{record_id}: which container is the main one is not known: set container_name")
    found: dict[str, Any] = {}
    for one in containers:
        if one.get("name", main) == main:
            found.update(one)
    if any("name" not in one for one in found.get("environment", ())):
        raise InvalidRequest(f"{record_id}: its environment has a variable without a name")
    return found


def _print_limits(run: LocalRun) -> None:
    """What is the same, and what is not."""
    image = f"task definition {run.task_definition}" if run.task_definition else "its task definition"
    print_stderr(f"ecs-queue: running {run.id} here, as you, in {os.getcwd()}: {_format_program(run.command)}")
    names = ", ".join(run.variables) or "none"
    print_stderr(f"ecs-queue: its own variables: {names}; of this shell only PATH, HOME and the like")
    print_stderr(
        f"ecs-queue: not here: what {image} supplies (image, entry point, user, working directory, "
        "variables and secrets of its own) and the task's role"
    )


def _format_program(command: Sequence[str]) -> str:
    """Only the program: what follows may hold secrets."""
    rest = f" and {len(command) - 1} arguments" if len(command) > 1 else ""
    return sanitize(shlex.quote(command[0])) + rest
