"""The entry point: the tree of commands, and the one place that turns errors into a sentence and an exit status."""

from __future__ import annotations

import errno
import sys
from collections.abc import MutableMapping, Sequence
from contextlib import suppress
from typing import Any

import click

from ecs_queue.cli.acl import acl
from ecs_queue.cli.broken import broken
from ecs_queue.cli.conf import conf
from ecs_queue.cli.config import config
from ecs_queue.cli.cost import cost
from ecs_queue.cli.dead import dead
from ecs_queue.cli.demo import demo
from ecs_queue.cli.doctor import doctor
from ecs_queue.cli.journal import journal
from ecs_queue.cli.local import local
from ecs_queue.cli.local_ecs import local_ecs
from ecs_queue.cli.logs import logs
from ecs_queue.cli.pools import pools
from ecs_queue.cli.purge import purge
from ecs_queue.cli.queues import queues
from ecs_queue.cli.replay import replay
from ecs_queue.cli.retry import retry
from ecs_queue.cli.runner import runner
from ecs_queue.cli.runner_key import runner_key
from ecs_queue.cli.scale import scale
from ecs_queue.cli.status import status
from ecs_queue.cli.stop import stop
from ecs_queue.cli.submit import submit
from ecs_queue.cli.tasks import tasks
from ecs_queue.cli.top import top
from ecs_queue.cli.ui.exit_status import (
    EXIT_BUG,
    EXIT_FAILURE,
    EXIT_INTERRUPTED,
    EXIT_OUTPUT,
    EXIT_SUBMITTED,
    EXIT_USAGE,
)
from ecs_queue.cli.ui.options import OrderedGroup, SharedOptions, shared_options
from ecs_queue.cli.ui.output import (
    OutputError,
    discard_output,
    open_missing_streams,
    print_stderr,
    replace_unencodable,
    wrap_output_errors,
)
from ecs_queue.cli.ui.submitter import SubmissionUnfinished
from ecs_queue.cli.wait import wait
from ecs_queue.cli.web import web
from ecs_queue.cli.worker import worker
from ecs_queue.cli.workers import workers
from ecs_queue.error_text import error_text, traceback_text, typed_error_text
from ecs_queue.errors import EcsQueueError

#: The errors of a stream that is full or closed, when no file is named.
_OUTPUT_ERRNOS = (errno.ENOSPC, errno.EBADF, errno.EIO, errno.EDQUOT, errno.EFBIG)


class RootGroup(OrderedGroup):
    """Exits with the command's own status; an error is one sentence on stderr, never a traceback."""

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> Any:
        """See click. A command returns its exit status, or None for 0."""
        open_missing_streams()
        replace_unencodable()
        options: MutableMapping[str, Any] = {"obj": SharedOptions(), **extra}
        try:
            status = super().main(args, prog_name or "ecs-queue", complete_var, standalone_mode=False, **options)
            if status != EXIT_OUTPUT:
                with wrap_output_errors():
                    sys.stdout.flush()
        except Exception as error:  # noqa: BLE001 - the outermost frame
            status = _report_error(error, options["obj"])
        if status == EXIT_OUTPUT:
            discard_output(sys.stdout)
        if standalone_mode:
            sys.exit(status or 0)
        return status


def _report_error(error: Exception, options: SharedOptions) -> int:
    """Print what went wrong, and return the exit status."""
    if isinstance(error, click.Abort):
        return EXIT_INTERRUPTED
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        with suppress(OSError):
            click.echo(error.format_message(), err=True)
    elif isinstance(error, click.ClickException):
        path = error.ctx.command_path if isinstance(error, click.UsageError) and error.ctx else "ecs-queue"
        print_stderr(f"{path}: {_one_line(error.format_message())} (`{path} --help` explains)")
    elif isinstance(error, EcsQueueError):
        for line in str(error).splitlines():
            print_stderr(f"ecs-queue: {line}")
        if isinstance(error, OutputError | SubmissionUnfinished):
            return EXIT_OUTPUT if isinstance(error, OutputError) else EXIT_SUBMITTED
    elif isinstance(error, UnicodeEncodeError):  # an argument of bytes that are no text
        print_stderr("ecs-queue: expected UTF-8 text in every argument, found other bytes")
    elif isinstance(error, BrokenPipeError):
        discard_output(sys.stdout)
        return EXIT_FAILURE
    elif isinstance(error, OSError):
        print_stderr(f"ecs-queue: {error_text(error)}")
        if error.filename is None and error.errno in _OUTPUT_ERRNOS:
            return EXIT_OUTPUT
    elif type(error).__module__ == "botocore.exceptions":  # by name: most commands never import botocore
        print_stderr(f"ecs-queue: {_one_line(error_text(error))}: check AWS_PROFILE and the other AWS settings")
    else:
        print_stderr(f"ecs-queue: a bug, {typed_error_text(error)}; {_bug_advice()}")
        if options.log_level == "debug":
            for line in traceback_text(error).splitlines():
                print_stderr(line)
        return EXIT_BUG
    return EXIT_USAGE


def _bug_advice() -> str:
    """Say where the fault can be reported; without an address, what to keep for those who maintain ecs-queue here."""
    from ecs_queue.version import package_version, report_address

    address = report_address()
    if address:
        return f"--log-level debug shows where, please report it at {address}"
    return (
        "keep for those who maintain ecs-queue here: the command, what it prints with --log-level debug, and "
        f"version {package_version()}"
    )


def _one_line(message: str) -> str:
    """Messages of click may have several lines."""
    return " ".join(message.split()).rstrip(".")


@click.group(
    name="ecs-queue",
    cls=RootGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="`ecs-queue COMMAND --help` explains a command; `ecs-queue demo` shows the whole at work.",
)
@shared_options
@click.version_option(package_name="ecs-queue", message="ecs-queue %(version)s")
def cli() -> None:
    """Run containers on Amazon ECS from a queue.

    Launching ECS tasks directly is slow and throttled, and after a timeout you do not know whether a container was
    started. With ecs-queue you submit commands to a queue. Workers, any number of them, launch each command as an
    ECS task and follow it to its end. You get exactly one result for each request, whatever is killed in between.

    \b
    Try it, without AWS and without any service:
      ecs-queue demo                            watch the main job
      ecs-queue local                           run a whole installation here
    \b
    With your own Redis and cluster:
      ecs-queue worker                          launch submitted requests
      ecs-queue submit --wait -- echo hello     run one command, exit as it does
      ecs-queue status                          see what waits, runs and has ended

    All commands use the same configuration; `ecs-queue config` shows it and its origins. The options below may
    stand before the command or after it.

    \b
    Exit status: 0 success; 2 bad input, bad configuration, or a server that
    cannot be reached (a sentence on stderr says which); 130 interrupted.
    The help of a command lists its own statuses.
    """


for command in (
    *(submit, wait, status, top, logs, queues, tasks, stop, retry, purge, worker, workers, pools, scale, runner),
    *(dead, broken, journal, cost, replay, web),
    *(config, acl, runner_key, conf, doctor, local, local_ecs, demo),
):
    cli.add_command(command)


def main() -> None:
    """Run the command `ecs-queue`."""
    cli()
