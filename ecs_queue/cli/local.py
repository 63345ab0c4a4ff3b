"""`local` and `local-ecs`: a whole stack, or only the ECS, on this machine and for development."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ecs_queue.cli.ui.options import SharedOptions, json_option, pass_options, shared_options
from ecs_queue.cli.ui.output import print_json, print_stderr, print_stdout
from ecs_queue.errors import ConfigError, UsageError

if TYPE_CHECKING:
    from ecs_queue.local.ecs import FaultOptions
    from ecs_queue.local.stack import LocalStack

FAULTS = ("throttle", "server_error", "accept_then_drop", "capacity", "start_failure")
EVENT_FAULTS = ("drop", "duplicate", "delay", "reorder")
_OWN_STACK = "it brings a server and an ECS of its own"
_PORT = click.IntRange(0, 65535)
_SECONDS = click.FloatRange(0)
_POLL_INTERVAL_SECONDS = 1.0


@click.command(short_help="A whole stack on this machine, to play with.")
@click.option(
    "--port", type=click.IntRange(1, 65534), metavar="P", help="The local ECS listens on P, the server on P + 1."
)
@click.option("--workers", type=click.IntRange(0, 64), default=1, show_default=True, metavar="N", help="Workers.")
@click.option("--dir", "directory", type=click.Path(path_type=Path), help="Keep data and logs here.")
@json_option
@shared_options
@pass_options
def local(options: SharedOptions, port: int | None, workers: int, directory: Path | None, as_json: bool) -> int:
    """Run everything on this machine: an embedded Redis or Valkey, a local ECS, and workers.

    It prints the environment to export, in the words of a shell, and stays until Ctrl-C. Then everything that
    it started ends. The local ECS runs the commands as processes, as you, and listens on 127.0.0.1 only: a
    development tool, no sandbox. Your own AWS settings are left out, so nothing can reach a real account.

    \b
    Example, in two shells:
      ecs-queue local --dir ~/ecs-queue-local | tee env.sh
      . ./env.sh; ecs-queue submit --wait -- sh -c 'echo hello; exit 3'

    With --dir the requests survive a restart, and it holds the logs: worker-by-worker, and one file a task
    under tasks/. Without --port free ones are chosen.

    Exit status: 0 after Ctrl-C or SIGTERM; 1 when a worker ended by itself.
    """
    from ecs_queue.local.ecs import LocalEcsOptions
    from ecs_queue.local.stack import LocalStack, StackOptions

    options.configure_logging()
    options.reject_config_options("local", _OWN_STACK)
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
            "export these in another shell, then: ecs-queue submit --wait -- echo hello; Ctrl-C here ends it all"
        )
        while signals.wait(_POLL_INTERVAL_SECONDS) is None:
            for name, code in stack.exited_workers().items():
                print_stderr(f"ecs-queue: the worker {name} ended by itself with status {code}; stopping")
                return 1
    print_stderr("stopping")
    return 0


@click.command(name="local-ecs", short_help="Only a local ECS, for boto3 and tests.")
@click.option("--port", type=_PORT, default=0, metavar="P", help="0 takes a free one.  [0]")
@click.option("--latency", type=_SECONDS, default=0.0, metavar="S", help="Of every call, in seconds.")
@click.option("--run-task-rate", type=float, metavar="R", help="RunTask and StopTask calls a second (AWS: 20 to 40).")
@click.option("--run-task-burst", type=float, default=100.0, show_default=True, metavar="N", help="... and at once.")
@click.option("--describe-rate", type=float, metavar="R", help="DescribeTasks and ListTasks calls a second (AWS: 20).")
@click.option("--describe-burst", type=float, default=100.0, show_default=True, metavar="N", help="... and at once.")
@click.option(
    "--fault",
    "faults",
    multiple=True,
    metavar="NAME=PROBABILITY",
    help=f"What goes wrong on purpose; may be repeated. {', '.join(FAULTS)}.",
)
@click.option("--event-queue-url", metavar="QUEUE_URL", help="An SQS queue that gets the events of the tasks.")
@click.option(
    "--event-fault",
    "event_faults",
    multiple=True,
    metavar="NAME=PROBABILITY",
    help=f"What happens to an event on purpose; may be repeated. {', '.join(EVENT_FAULTS)}.",
)
@click.option("--seed", type=int, default=0, metavar="N", help="The same seed and calls give the same faults.")
@click.option("--startup-delay", type=_SECONDS, default=0.0, metavar="S", help="From RunTask to the command's start.")
@click.option("--stop-timeout", type=_SECONDS, default=30.0, show_default=True, metavar="S", help="SIGTERM to SIGKILL.")
@click.option("--log-dir", type=click.Path(path_type=Path), help="One log file a task; otherwise kept while it runs.")
@json_option
@shared_options
@pass_options
def local_ecs(
    options: SharedOptions, /, as_json: bool, faults: Sequence[str], event_faults: Sequence[str], **given: Any
) -> None:
    """Run a local ECS: an endpoint on 127.0.0.1 that boto3 talks to unchanged.

    It really runs the main container's command as a process, as you: a development tool, no sandbox. The
    clusters `default` and `local` and the task definition `local` with the container `main` exist from the
    start. Its URL is printed on stdout; it stays until Ctrl-C.

    \b
    Examples:
      ecs-queue local-ecs --port 8999
      AWS_ENDPOINT_URL_ECS=http://127.0.0.1:8999 aws ecs list-tasks --cluster local
      ecs-queue local-ecs --port 8999 --latency 0.05 --fault throttle=0.1 --fault accept_then_drop=0.02

    Faults: throttle (ThrottlingException), server_error (HTTP 500), accept_then_drop (it happens, but no
    answer comes), capacity (RESOURCE:CPU), start_failure (TaskFailedToStart).

    With --event-queue-url each change of a task is told to an SQS queue (a real one, or a stand-in such as moto's
    server) as EventBridge would. Event faults: drop, double, delay (by up to 30 s), reorder.
    """
    from ecs_queue.local.ecs import EventFaultOptions, LocalEcsOptions, run_local_ecs

    options.configure_logging()
    options.reject_config_options("local-ecs", "it is told everything by its own options")
    chosen = LocalEcsOptions(
        port=given["port"],
        log_dir=given["log_dir"],
        latency_seconds=given["latency"],
        run_task_quota=_quota(given["run_task_rate"], given["run_task_burst"]),
        describe_tasks_quota=_quota(given["describe_rate"], given["describe_burst"]),
        faults=_faults(faults, given["seed"]),
        event_queue_url=_queue_url(given["event_queue_url"]),
        event_faults=EventFaultOptions(
            seed=given["seed"], **_parse_probabilities("--event-fault", event_faults, EVENT_FAULTS)
        ),
        startup_delay_seconds=given["startup_delay"],
        stop_timeout_seconds=given["stop_timeout"],
    )

    def ready(url: str) -> None:
        if as_json:
            print_json({"endpoint_url": url})
        else:
            print_stdout(url)
        print_stderr("the local ECS runs commands as you, for development only; Ctrl-C ends it and its tasks")

    run_local_ecs(chosen, ready)


def _quota(rate: float | None, burst: float) -> Any:
    from ecs_queue.local.ecs import Quota

    return None if rate is None else Quota(rate=rate, burst=burst)


def _queue_url(given: str | None) -> str | None:
    from ecs_queue.config import parsers

    try:
        return parsers.queue_url(given) if given else None
    except ConfigError as error:
        raise UsageError(f"--event-queue-url: {error}") from None


def _faults(given: Sequence[str], seed: int) -> FaultOptions:
    from ecs_queue.local.ecs import FaultOptions

    chances = _parse_probabilities("--fault", given, FAULTS)
    return FaultOptions(seed=seed, **chances)  # type: ignore[arg-type] # never `operations`


def _parse_probabilities(option: str, given: Sequence[str], names: Sequence[str]) -> dict[str, float]:
    chances: dict[str, float] = {}
    for text in given:
        name, _, chance = text.partition("=")
        name = name.strip().replace("-", "_")
        try:
            probability = float(chance)
        except ValueError:
            name = ""
        if name not in names:
            raise UsageError(f"{option}: expected NAME=PROBABILITY with one of {', '.join(names)}, found {text!r}")
        chances[name] = probability
    return chances
