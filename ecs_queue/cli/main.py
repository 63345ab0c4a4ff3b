"""The entry point: the tree of commands, and the one place where errors become a sentence and an exit status."""

from __future__ import annotations

import sys
import traceback
from collections.abc import MutableMapping, Sequence
from typing import Any

import click

from ecs_queue.cli.config import config
from ecs_queue.cli.dead import dead
from ecs_queue.cli.demo import demo
from ecs_queue.cli.doctor import doctor
from ecs_queue.cli.journal import journal
from ecs_queue.cli.local import local, local_ecs
from ecs_queue.cli.queues import queues
from ecs_queue.cli.replay import replay
from ecs_queue.cli.status import status
from ecs_queue.cli.stop import stop
from ecs_queue.cli.submit import submit
from ecs_queue.cli.tasks import tasks
from ecs_queue.cli.ui.options import OrderedGroup, SharedOptions, shared_options
from ecs_queue.cli.ui.output import print_stderr
from ecs_queue.cli.worker import worker
from ecs_queue.cli.workers import workers
from ecs_queue.errors import EcsQueueError

#: Bad input, bad configuration, a server that cannot be reached.
EXIT_USAGE = 2
#: A bug of ours (EX_SOFTWARE of sysexits.h).
EXIT_BUG = 70
EXIT_INTERRUPTED = 130


class RootGroup(OrderedGroup):
    """Ends with a command's own exit status; an error is one sentence on stderr, never a traceback."""

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> Any:
        """See click. A command answers its exit status, or None for 0."""
        options: MutableMapping[str, Any] = {"obj": SharedOptions(), **extra}
        try:
            answer = super().main(args, prog_name or "ecs-queue", complete_var, standalone_mode=False, **options)
        except Exception as error:  # noqa: BLE001 - the outermost frame
            answer = _exit_status(error, options["obj"])
        if standalone_mode:
            sys.exit(answer or 0)
        return answer


def _exit_status(error: Exception, options: SharedOptions) -> int:
    """Say what went wrong; the exit status."""
    if isinstance(error, click.Abort):
        return EXIT_INTERRUPTED
    if isinstance(error, click.ClickException):
        path = error.ctx.command_path if isinstance(error, click.UsageError) and error.ctx else "ecs-queue"
        print_stderr(f"{path}: {_one_line(error.format_message())} (`{path} --help` explains)")
        return EXIT_USAGE
    if isinstance(error, EcsQueueError):
        for line in str(error).splitlines():
            print_stderr(f"ecs-queue: {line}")
        return EXIT_USAGE
    if isinstance(error, OSError):
        print_stderr(f"ecs-queue: {error}")
        return EXIT_USAGE
    if type(error).__module__ == "botocore.exceptions":  # not imported for this: most commands do without it
        print_stderr(f"ecs-queue: {_one_line(str(error))}: check AWS_PROFILE and the other AWS settings")
        return EXIT_USAGE
    print_stderr(f"ecs-queue: a bug, {type(error).__name__}: {error}; --log-level debug shows where, please report it")
    if options.log_level == "debug":
        traceback.print_exception(error)
    return EXIT_BUG


def _one_line(message: str) -> str:
    """click's messages, which may have several lines, as one."""
    return " ".join(message.split()).rstrip(".")


@click.group(
    name="ecs-queue",
    cls=RootGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="`ecs-queue COMMAND --help` explains a command; `ecs-queue demo` shows all of it at work.",
)
@shared_options
@click.version_option(package_name="ecs-queue", message="ecs-queue %(version)s")
def cli() -> None:
    """Run containers on Amazon ECS from a queue.

    Launching ECS tasks directly is slow, throttled, and leaves you guessing whether a call that timed out has
    started a container. Here you submit commands to a queue; any number of workers launch each as an ECS task,
    follow it to its end, and you get exactly one result for each, whatever is killed in between.

    \b
    Try it, without AWS or any service:
      ecs-queue demo                            the main job, at work
      ecs-queue local                           a whole stack to play with
    \b
    With your own Redis and cluster:
      ecs-queue worker                          launches what is submitted
      ecs-queue submit --wait -- echo hello     one command; exits as it does
      ecs-queue status                          what waits, runs and has ended

    Every command works on the same configuration; `ecs-queue config` shows it and where it comes from. The
    options below may stand before the command or after it.

    \b
    Exit status: 0 it worked; 2 bad input, bad configuration, or a server that
    cannot be reached (one sentence on stderr says which); 130 interrupted.
    A command's own statuses are in its help.
    """


_COMMANDS = (
    *(submit, status, queues, tasks, stop, worker, workers, dead, journal, replay),
    *(config, doctor, local, local_ecs, demo),
)
for command in _COMMANDS:
    cli.add_command(command)


def main() -> None:
    """The command `ecs-queue`."""
    cli()
