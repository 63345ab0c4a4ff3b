"""`local`: runs a whole installation on this machine, for development."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from ecs_queue.cli.ui.durations import DurationRange
from ecs_queue.cli.ui.exit_status import EXIT_FAILURE
from ecs_queue.cli.ui.options import SharedOptions, command_options
from ecs_queue.cli.ui.output import is_terminal, print_json, print_stderr, print_stdout
from ecs_queue.errors import EcsQueueError, UsageError

if TYPE_CHECKING:
    from ecs_queue.local.stack import LocalStack

_POLL_INTERVAL_SECONDS = 1.0


@click.group(short_help="Run a whole installation on this machine.", invoke_without_command=True)
@click.option(
    "--port",
    type=click.IntRange(1, 65534),
    metavar="P",
    help="Port of the local ECS; the server has P + 1.  [free]",
)
@click.option(
    "--workers", type=click.IntRange(0, 64), default=1, show_default=True, metavar="N", help="How many to start."
)
@click.option(
    "--provision-seconds",
    type=DurationRange(),
    default="0",
    metavar="S[-S]",
    help="Seconds from RunTask to the start, or their range (Fargate: 30-90).  [0]",
)
@click.option("--dir", "directory", type=click.Path(path_type=Path), help="Directory that keeps data and logs.")
@command_options
@click.pass_context
def local(
    context: click.Context,
    options: SharedOptions,
    port: int | None,
    workers: int,
    provision_seconds: tuple[float, float],
    directory: Path | None,
    as_json: bool,
) -> int:
    """Run everything on this machine: an embedded Redis or Valkey, a local ECS, and workers.

    The command runs until Ctrl-C; then it ends everything that it started. `ecs-queue local env` prints the environment
    that connects another shell, and so does this command unless stdout is a terminal. The local ECS runs the commands
    as processes of your own user and listens on 127.0.0.1 only: it is a development tool and no sandbox. Your own AWS
    settings are not used, so nothing can reach a real account.
    The environment has new passwords of the server and the local ECS: a user who knows them can run commands as you.

    \b
    Example, in two shells:
      ecs-queue local
      eval "$(ecs-queue local env)"; ecs-queue submit --wait --logs -- echo hello

    With --dir the requests survive a restart; the directory has the environment (env.sh), a log of each worker, and
    under tasks/ a log of each task. Other users of this machine cannot read these files.

    Kill any worker or the server: the command starts it again and prints what it restarted.

    Exit status: 0 after Ctrl-C, SIGTERM or SIGHUP; 1 when a part ended again and again.
    """
    if context.invoked_subcommand is not None:
        if port or directory:
            raise UsageError(f"local {context.invoked_subcommand}: options stand behind the command's name")
        return 0
    from ecs_queue.local.ecs import LocalEcsOptions
    from ecs_queue.local.stack import LocalStack, StackOptions

    options.configure_logging()
    options.reject_config_options("local", "it starts its own server and ECS")
    kept = directory.expanduser().absolute() if directory else None
    stack = LocalStack(
        StackOptions(
            workers=workers,
            redis_port=port + 1 if port else 0,
            ecs=LocalEcsOptions(
                port=port or 0, log_dir=kept / "tasks" if kept else None, provision_seconds=provision_seconds
            ),
            directory=kept,
        )
    )
    stack.start(print_stderr)
    try:
        return _run_until_stopped(stack, as_json)
    finally:
        stack.stop()


def _run_until_stopped(stack: LocalStack, as_json: bool) -> int:
    from ecs_queue.cli.ui.signals import StopSignals
    from ecs_queue.local.running_stacks import publish_environment

    with StopSignals() as signals, publish_environment(stack.exports):
        if as_json:
            print_json({"environment": stack.exports, "unset": stack.variables_to_unset, "workers": stack.pids})
        elif not is_terminal():
            for line in stack.shell_lines:
                print_stdout(line)
        print_stderr('in another shell: eval "$(ecs-queue local env)"; ecs-queue submit --wait --logs -- echo hello')
        print_stderr("Ctrl-C here ends everything")
        while signals.wait(_POLL_INTERVAL_SECONDS) is None:
            try:
                restarted = stack.restart_ended_parts()
            except EcsQueueError as error:
                print_stderr(f"ecs-queue: {error}; stopping")
                return EXIT_FAILURE
            for sentence in restarted:
                print_stderr(f"ecs-queue: {sentence}")
    print_stderr("stopping")
    return 0


@local.command("env", short_help="Print the environment of the running stack.")
@click.option("--port", type=click.IntRange(1, 65535), metavar="P", help="Port of its local ECS, if several run.")
@command_options
def env(options: SharedOptions, port: int | None, as_json: bool) -> int:
    """Print the environment of a local stack of yours that runs, as lines for this shell.

    It unsets variables of this shell that would lead elsewhere. What is printed has the stack's passwords.

    \b
    Examples:
      eval "$(ecs-queue local env)"
      ecs-queue local env --json | jq -r .environment.AWS_ENDPOINT_URL_ECS
    """
    from ecs_queue.local.running_stacks import find_environments
    from ecs_queue.local.stack import shell_lines, variables_to_unset

    options.configure_logging()
    options.reject_config_options("local env", "the stack has its own server and ECS")
    found = {
        environment.get("AWS_ENDPOINT_URL_ECS", "").rpartition(":")[2]: environment
        for environment in find_environments()
    }
    chosen = [number for number in sorted(found) if port in (None, int(number))]
    if not chosen:
        which = f"of yours with the port {port}" if port else "of yours"
        raise UsageError(f"no local stack {which} is running: start one in another shell with `ecs-queue local`")
    if len(chosen) > 1:
        raise UsageError(f"{len(chosen)} local stacks are running: choose one with --port {' or --port '.join(chosen)}")
    environment = found[chosen[0]]
    if as_json:
        print_json({"environment": environment, "unset": variables_to_unset(environment)})
    else:
        for line in shell_lines(environment):
            print_stdout(line)
    return 0
