"""`local-ecs`: runs a local ECS, for boto3 and tests."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ecs_queue.cli.ui.durations import Duration, DurationRange
from ecs_queue.cli.ui.numbers import RATE, count
from ecs_queue.cli.ui.options import SharedOptions, command_options
from ecs_queue.cli.ui.output import print_json, print_stderr, print_stdout
from ecs_queue.errors import ConfigError, UsageError

if TYPE_CHECKING:
    from ecs_queue.local.ecs import LocalEcsOptions

FAULTS = (
    *("throttle", "server_error", "accept_then_drop", "denied"),
    *("capacity", "capacity_error", "capacity_stop", "start_failure"),
)
EVENT_FAULTS = ("drop", "duplicate", "delay", "reorder")
_SECONDS = Duration()

#: `local` has this option, too.
provision_option = click.option(
    "--provision-seconds",
    type=DurationRange(),
    default="0",
    metavar="S[-S]",
    help="Seconds from RunTask to the start, or their range (Fargate: 30-90).  [0]",
)


@click.command(name="local-ecs", short_help="Run only a local ECS.")
@click.option("--port", type=count(0, 65535), default=0, metavar="P", help="Port; 0 takes a free one.  [0]")
@click.option("--any-access-key", is_flag=True, help="Answer calls of all users of this machine, with any access key.")
@click.option("--latency", type=_SECONDS, default=0.0, metavar="S", help="Seconds that every call takes longer.")
@click.option("--run-task-rate", type=RATE, metavar="R", help="RunTask and StopTask calls a second (AWS: 20 to 40).")
@click.option(
    "--run-task-burst",
    type=RATE,
    default=100.0,
    show_default=True,
    metavar="N",
    help="Most of them at once.",
)
@click.option("--describe-rate", type=RATE, metavar="R", help="DescribeTasks and ListTasks calls a second (AWS: 20).")
@click.option(
    "--describe-burst",
    type=RATE,
    default=100.0,
    show_default=True,
    metavar="N",
    help="Most of them at once.",
)
@click.option(
    "--fault",
    "faults",
    multiple=True,
    metavar="NAME=PROBABILITY",
    help=f"Inject a fault into calls; repeatable. {', '.join(FAULTS)}.",
)
@click.option("--fault-seconds", type=_SECONDS, metavar="S", help="Inject faults into calls for this time only.")
@click.option("--protected-role", "protected_roles", multiple=True, metavar="ARN", help="Let no call pass this role.")
@click.option("--constant-version", is_flag=True, help="Leave the version of every task at 1, as some stand-ins do.")
@click.option("--event-queue-url", metavar="QUEUE_URL", help="SQS queue that gets the tasks' events.")
@click.option(
    "--event-fault",
    "event_faults",
    multiple=True,
    metavar="NAME=PROBABILITY",
    help=f"Inject a fault into events; repeatable. {', '.join(EVENT_FAULTS)}.",
)
@click.option("--seed", type=count(0), default=0, metavar="N", help="The same seed and calls give the same faults.")
@provision_option
@click.option(
    "--stop-timeout",
    type=_SECONDS,
    default=30.0,
    show_default=True,
    metavar="S",
    help="Seconds between SIGTERM and SIGKILL.",
)
@click.option("--log-dir", type=click.Path(path_type=Path), help="Directory for one log file a task.  [temporary]")
@command_options
def local_ecs(
    options: SharedOptions, /, as_json: bool, faults: Sequence[str], event_faults: Sequence[str], **given: Any
) -> None:
    """Run a local ECS: an endpoint on 127.0.0.1 that boto3 can use unchanged.

    It runs the main container's command as a process of your own user: it is a development tool and no sandbox.
    The clusters `default` and `local` and the task definition `local` with the container `main` exist from the
    start. The command prints the URL to stdout, then the access key to export, and runs until Ctrl-C. The access key
    is new each time, and other calls are refused.

    \b
    Examples:
      ecs-queue local-ecs --port 8999
      export AWS_ACCESS_KEY_ID=LOCAL... AWS_SECRET_ACCESS_KEY=local     (as printed, in another shell)
      AWS_ENDPOINT_URL_ECS=http://127.0.0.1:8999 aws ecs list-tasks --cluster local
      ecs-queue local-ecs --port 8999 --latency 0.05 --fault throttle=0.1 --fault accept_then_drop=0.02

    Faults: throttle (ThrottlingException), server_error (HTTP 500), accept_then_drop (the call takes effect, but
    its answer is lost), denied (AccessDeniedException); a lack of capacity as a failure (capacity), as an
    exception (capacity_error) or as the reason of a stopped task (capacity_stop); start_failure
    (TaskFailedToStart).

    Containers of warm pools and of function calls get ECS_QUEUE_RUNNER_URL, ECS_QUEUE_RUNNER_KEY,
    ECS_QUEUE_CALL_URL and ECS_QUEUE_CALL_KEY of this command's environment: elsewhere they are secrets of the task
    definition.

    With --event-queue-url each change of a task is sent to an SQS queue (a real one, or a stand-in such as moto's
    server), as EventBridge does. Event faults: drop, duplicate, delay (by up to 30 s), reorder.
    """
    from ecs_queue.local.ecs import run_local_ecs

    options.configure_logging()
    options.reject_config_options("local-ecs", "its own options configure it")
    chosen = _build_ecs_options(faults, event_faults, given)

    def report_ready(url: str) -> None:
        if as_json:
            print_json({"endpoint_url": url, "access_key_id": chosen.access_key_id})
        else:
            print_stdout(url)
            if chosen.access_key_id:
                print_stdout(f"export AWS_ACCESS_KEY_ID={chosen.access_key_id} AWS_SECRET_ACCESS_KEY=local")
        print_stderr("the local ECS runs commands as your user, for development only; Ctrl-C ends it and its tasks")

    run_local_ecs(chosen, report_ready)


def _build_ecs_options(faults: Sequence[str], event_faults: Sequence[str], given: Mapping[str, Any]) -> LocalEcsOptions:
    """Return what the command's options ask for, with a new access key and the secrets of this environment.

    Raises:
        UsageError: The value of an option cannot be used.
    """
    from ecs_queue.local.ecs import (
        EventFaultOptions,
        FaultOptions,
        LocalEcsOptions,
        Quota,
        new_access_key_id,
        secrets_of,
    )

    def quota(kind: str) -> Quota | None:
        rate = given[f"{kind}_rate"]
        return None if rate is None else Quota(rate=rate, burst=given[f"{kind}_burst"])

    call_faults: dict[str, Any] = _parse_probabilities("--fault", faults, FAULTS)
    return LocalEcsOptions(
        port=given["port"],
        access_key_id=None if given["any_access_key"] else new_access_key_id(),
        log_dir=given["log_dir"],
        latency_seconds=given["latency"],
        run_task_quota=quota("run_task"),
        describe_tasks_quota=quota("describe"),
        faults=FaultOptions(
            seed=given["seed"],
            seconds=given["fault_seconds"],
            protected_roles=tuple(given["protected_roles"]),
            **call_faults,
        ),
        constant_version=given["constant_version"],
        event_queue_url=_parse_queue_url(given["event_queue_url"]),
        event_faults=EventFaultOptions(
            seed=given["seed"], **_parse_probabilities("--event-fault", event_faults, EVENT_FAULTS)
        ),
        provision_seconds=given["provision_seconds"],
        stop_timeout_seconds=given["stop_timeout"],
        runner_environment=secrets_of(os.environ),
    )


def _parse_queue_url(text: str | None) -> str | None:
    from ecs_queue.config import parsers

    try:
        return parsers.queue_url(text) if text else None
    except ConfigError as error:
        raise UsageError(f"--event-queue-url: {error}") from None


def _parse_probabilities(option: str, given: Sequence[str], names: Sequence[str]) -> dict[str, float]:
    probabilities: dict[str, float] = {}
    for text in given:
        name, _, value = text.partition("=")
        name = name.strip().replace("-", "_")
        try:
            probabilities[name] = float(value)
        except ValueError:
            name = ""
        if name not in names:
            raise UsageError(f"{option}: expected NAME=PROBABILITY with one of {', '.join(names)}, found {text!r}")
    return probabilities
