"""`local`: runs a whole installation on this machine, for development."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ecs_queue.cli.ui.exit_status import EXIT_FAILURE
from ecs_queue.cli.ui.options import SharedOptions, command_options
from ecs_queue.cli.ui.output import print_json, print_stderr, print_stdout
from ecs_queue.errors import EcsQueueError

if TYPE_CHECKING:
    from ecs_queue.local.stack import LocalStack

_POLL_INTERVAL_SECONDS = 1.0


@click.command(short_help="Run a whole installation on this machine.")
@click.option(
    "--port",
    type=click.IntRange(1, 65534),
    metavar="P",
    help="Port of the local ECS; the server has P + 1.  [free]",
)
@click.option(
    "--workers", type=click.IntRange(0, 64), default=1, show_default=True, metavar="N", help="How many to start."
)
@click.option("--dir", "directory", type=click.Path(path_type=Path), help="Directory that keeps data and logs.")
@command_options
def local(options: SharedOptions, port: int | None, workers: int, directory: Path | None, as_json: bool) -> int:
    """Run everything on this machine: an embedded Redis or Valkey, a local ECS, and workers.

    The command prints the environment to export as shell lines, and runs until Ctrl-C; then it ends everything
    that it started. The local ECS runs the commands as processes of your own user and listens on 127.0.0.1 only:
    it is a development tool and no sandbox. Your own AWS settings are not used, so nothing can reach a real account.

    \b
    Example, in two shells:
      ecs-queue local --dir ~/ecs-queue-local | tee env.sh
      . ./env.sh; ecs-queue submit --wait -- sh -c 'echo hello; exit 3'

    With --dir the requests survive a restart; the directory has a log of each worker, and under tasks/ a log of
    each task.

    Kill any worker or the server: the command starts it again and prints what it restarted.

    Exit status: 0 after Ctrl-C or SIGTERM; 1 when a part ended again and again.
    """
    from ecs_queue.local.ecs import LocalEcsOptions
    from ecs_queue.local.stack import LocalStack, StackOptions

    options.configure_logging()
    options.reject_config_options("local", "it starts its own server and ECS")
    kept = directory.expanduser().absolute() if directory else None
    stack = LocalStack(
        StackOptions(
            workers=workers,
            redis_port=port + 1 if port else 0,
            ecs=LocalEcsOptions(port=port or 0, log_dir=kept / "tasks" if kept else None),
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

    with StopSignals() as signals:
        if as_json:
            print_json({"environment": stack.exports, "unset": stack.variables_to_unset, "workers": stack.pids})
        else:
            for name in stack.variables_to_unset:
                print_stdout(f"unset {name}")
            for name, value in stack.exports.items():
                print_stdout(f"export {name}={shlex.quote(value)}")
        print_stderr(
            "export these in another shell, then: ecs-queue submit --wait -- echo hello; Ctrl-C here ends everything"
        )
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
