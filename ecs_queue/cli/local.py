"""`local`: runs a whole installation on this machine, for development."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ecs_queue.cli.local_ecs import provision_option
from ecs_queue.cli.ui.exit_status import EXIT_FAILURE
from ecs_queue.cli.ui.numbers import count
from ecs_queue.cli.ui.options import SharedOptions, command_options
from ecs_queue.cli.ui.output import OutputError, is_terminal, print_json, print_stderr, print_stdout
from ecs_queue.errors import EcsQueueError, UsageError

if TYPE_CHECKING:
    from ecs_queue.local.stack import LocalStack

_POLL_INTERVAL_SECONDS = 1.0
#: Where a context keeps whether JSON is printed, not lines for a shell.
_JSON = f"{__name__}.json"


class ShellGroup(click.Group):
    """Its commands print lines for a shell. When one fails, that is a line, too, which fails in the shell.

    Otherwise `eval "$(ecs-queue local env)"` would evaluate nothing, which succeeds: neither `set -e` nor `&&` would
    stop what follows, and that would go to whatever server is configured.
    """

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        """See click."""
        as_json = "--json" in args
        with _fail_in_shell(as_json):
            context = super().make_context(info_name, args, parent, **extra)
        context.meta[_JSON] = as_json
        return context

    def invoke(self, ctx: click.Context) -> Any:
        """See click."""
        with _fail_in_shell(ctx.meta[_JSON]):
            return super().invoke(ctx)


@contextmanager
def _fail_in_shell(as_json: bool) -> Iterator[None]:
    """Print a command that fails in every shell when the block fails, unless a person or a JSON parser reads it."""
    try:
        yield
    except click.exceptions.Exit:  # --help
        raise
    except Exception:
        if not as_json and not is_terminal():
            with suppress(OSError, OutputError):
                print_stdout("false")
        raise


@click.group(cls=ShellGroup, short_help="Run a whole installation on this machine.", invoke_without_command=True)
@click.option(
    "--port",
    type=count(1, 65534),
    metavar="P",
    help="Port of the local ECS; the server has P + 1.  [free]",
)
@click.option("--workers", type=count(0, 64), default=1, show_default=True, metavar="N", help="How many to start.")
@provision_option
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
      eval "$(ecs-queue local env)" && ecs-queue submit --wait --logs -- echo hello

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
    options.reject_config_options(
        "local",
        "it starts its own server and ECS; for workers with a configuration give it --workers 0, and start "
        "`ecs-queue worker` in a shell with the environment of `ecs-queue local env`",
    )
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
    from ecs_queue.local.running_stacks import find_environments, publish_environment
    from ecs_queue.local.stop_signals import StopSignals

    with StopSignals() as signals, publish_environment(stack.exports):
        if as_json:
            print_json({"environment": stack.exports, "unset": stack.variables_to_unset, "workers": stack.pids})
        elif not is_terminal():
            for line in stack.shell_lines:
                print_stdout(line)
        port = f" --port {stack.endpoint_url.rpartition(':')[2]}" if len(find_environments()) > 1 else ""
        print_stderr(
            f'in another shell: eval "$(ecs-queue local env{port})" && ecs-queue submit --wait --logs -- echo hello'
        )
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
@click.option("--port", type=count(1, 65535), metavar="P", help="Port of its local ECS, if several run.")
@command_options
def env(options: SharedOptions, port: int | None, as_json: bool) -> int:
    """Print the environment of a local stack of yours that runs, as lines for this shell.

    It unsets variables of this shell that would lead elsewhere. What is printed has the stack's passwords.
    When it fails, it prints `false`, so that the shell's eval fails: join it with && to what needs the stack.

    \b
    Examples:
      eval "$(ecs-queue local env)" && ecs-queue status
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
        raise UsageError(
            f"{len(chosen)} local stacks are running: choose one with --port {' or --port '.join(chosen)}, "
            f'the ports of their local ECS: eval "$(ecs-queue local env --port {chosen[0]})"'
        )
    environment = found[chosen[0]]
    if as_json:
        print_json({"environment": environment, "unset": variables_to_unset(environment)})
    else:
        for line in shell_lines(environment):
            print_stdout(line)
    return 0
