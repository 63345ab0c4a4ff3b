"""`workers`: lists the live workers, what each does, and how much of AWS's rate limits all of them use."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from ecs_queue.cli.ui.durations import format_duration, format_timestamp
from ecs_queue.cli.ui.options import SharedOptions, command_options, open_client
from ecs_queue.cli.ui.output import print_json, print_stderr, print_stdout, print_table_or_blocks

if TYPE_CHECKING:
    from ecs_queue.ledger.base import WorkerInfo

_HEADERS = ("name", "queues", "launching", "launched", "ended", "rate", "usage", "polled", "version", "health")


@click.command(short_help="List the live workers.")
@command_options
def workers(options: SharedOptions, as_json: bool) -> None:
    """List the workers that sent a heartbeat in the last 15 seconds.

    \b
    launching        requests it launches now, of its concurrency
    launched, ended  totals since its start
    rate             launches a second over the last minute
    usage            its part of run_task_rate and of describe_tasks_rate,
                     which all workers share; calls a second without a limit
    polled           how long ago it read from the broker, and from ECS
    health           ok, or which queues are paused and why (credentials,
                     a missing cluster)

    \b
    Examples:
      ecs-queue workers
      ecs-queue workers --json | jq -r 'select(.health != "ok") | .name + ": " + .health'
    """
    options.configure_logging()
    with open_client(options) as client:
        found, now = client.ledger.list_workers(), client.ledger.now()
    if as_json:
        for worker in found:
            print_json(_worker_to_dict(worker))
    elif found:
        print_table_or_blocks(_HEADERS, [_row(worker, now) for worker in found])
        print_stdout(_summary(found))
    else:
        print_stderr("no worker is alive: start one with `ecs-queue worker`")


def _worker_to_dict(worker: WorkerInfo) -> dict[str, Any]:
    """Return JSON-ready facts. Rates are calls a second over the last minute; a time that is None means never."""
    import msgspec

    facts: dict[str, Any] = msgspec.to_builtins(worker)
    for name in ("started_at", "last_seen_at"):
        facts[name] = format_timestamp(facts[name])
    for name in ("launch_rate", "start_call_rate", "read_call_rate"):
        facts[name] = round(facts[name], 3)
    for name, age in (("polled_at", facts.pop("broker_poll_age")), ("described_at", facts.pop("describe_age"))):
        facts[name] = None if age is None else format_timestamp(worker.last_seen_at - age)
    return facts


def _row(worker: WorkerInfo, now: float) -> list[str]:
    heartbeat_age = now - worker.last_seen_at
    start_calls = _usage(worker.start_call_rate, worker.start_call_limit)
    return [
        worker.name,
        ", ".join(worker.queues),
        f"{worker.launches_in_progress}/{worker.concurrency}",
        str(worker.launched_total),
        str(worker.ended_total),
        f"{worker.launch_rate:.1f}/s",
        f"{start_calls} / {_usage(worker.read_call_rate, worker.read_call_limit)}",
        f"{_format_age(worker.broker_poll_age, heartbeat_age)} / {_format_age(worker.describe_age, heartbeat_age)}",
        worker.version,
        worker.health,
    ]


def _usage(calls: float, limit: float) -> str:
    return f"{100 * calls / limit:.0f}%" if limit else f"{calls:.1f}/s"


def _format_age(at_heartbeat: float | None, heartbeat_age: float) -> str:
    return "never" if at_heartbeat is None else format_duration(at_heartbeat + heartbeat_age)


def _summary(found: Sequence[WorkerInfo]) -> str:
    starts, reads = sum(worker.start_call_rate for worker in found), sum(worker.read_call_rate for worker in found)
    versions = {worker.version for worker in found}
    parts = [
        "1 worker" if len(found) == 1 else f"{len(found)} workers",
        f"{sum(worker.launch_rate for worker in found):.1f} launches/s",
        f"RunTask and StopTask {_calls_of_limit(starts, max(worker.start_call_limit for worker in found))}",
        f"DescribeTasks and ListTasks {_calls_of_limit(reads, max(worker.read_call_limit for worker in found))}",
    ]
    if len(versions) > 1:
        parts.append(f"{len(versions)} versions")
    return ", ".join(parts)


def _calls_of_limit(calls: float, limit: float) -> str:
    return f"{calls:.1f} of {limit:g}/s" if limit else f"{calls:.1f}/s, no limit"
