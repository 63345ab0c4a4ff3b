"""`workers`: lists the live workers, what each does, and how much of AWS's rate limits all of them use."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Any

import click

from ecs_queue.cli.pools import summarize_pools
from ecs_queue.cli.ui.durations import format_duration, format_timestamp
from ecs_queue.cli.ui.exit_status import EXIT_FAILURE
from ecs_queue.cli.ui.numbers import count
from ecs_queue.cli.ui.options import SharedOptions, command_options, load_shared_config, open_client
from ecs_queue.cli.ui.output import describe_number, print_json, print_sentence, print_stderr, print_stdout, print_table
from ecs_queue.cli.ui.records import report_health

if TYPE_CHECKING:
    from ecs_queue.findings import Finding
    from ecs_queue.ledger.base import WorkerInfo

_HEADERS = ("name", "queues", "launching", "launched", "ended", "rate", "usage", "polled", "version", "health")


@click.command(short_help="List the live workers.")
@click.option("--check", is_flag=True, help="Only say in a sentence whether they are healthy, with an exit status.")
@click.option(
    "--min",
    "minimum",
    type=count(0),
    default=1,
    show_default=True,
    metavar="N",
    help="With --check: the smallest number of live workers.",
)
@command_options
def workers(options: SharedOptions, check: bool, minimum: int, as_json: bool) -> int:
    """List the workers that sent a heartbeat in the last 15 seconds.

    \b
    launching        requests it launches now, of its concurrency; none that
                     waits for a limit or a thread
    launched, ended  totals since its start
    rate             launches a second over the last minute
    usage            its part of run_task_rate (a second one on Fargate Spot)
                     and of describe_tasks_rate, which all workers share;
                     calls a second without a limit
    polled           how long ago it read from the broker, and from ECS
    health           ok, or what fails again and again (the ledger, the
                     broker, a service), and which queues are paused and
                     why (credentials, a missing cluster)

    On a server on which nothing can be launched a sentence on stderr says why,
    the same as that of `doctor`.

    \b
    Examples:
      ecs-queue workers
      ecs-queue workers --json | jq -r 'select(.health != "ok") | .name + ": " + .health'
      ecs-queue workers --check --min 2         (for a monitor)

    Exit status: 1 when a worker is not healthy, or an item of the ledger is broken; with --check also when fewer
    than --min workers are alive, or a queue with requests has no worker. Otherwise as for every command: 2 when a
    server cannot be reached.
    """
    from ecs_queue.server_users import ServerUser

    options.configure_logging()
    if check:
        return _check_workers(options, minimum, as_json)
    with open_client(options) as client:
        found, now = client.ledger.list_workers(), client.ledger.now()
        status = report_health(client.ledger, found)
        _print_server_errors(client.ledger.check_server(ServerUser.READER))
        runs = client.ledger.list_runs()
        runners = list(summarize_pools(runs, now, client.config.runner_ttl))
    if as_json:
        for worker in found:
            print_json(_worker_to_dict(worker))
    elif found:
        print_table(_HEADERS, [_row(worker, now) for worker in found])
        print_sentence(summarize_workers(found))
        if runners:
            busy, idle = (sum(facts[name] for facts in runners) for name in ("busy", "idle"))
            print_sentence(f"runners of warm pools: {busy} busy, {idle} idle (`ecs-queue pools`)")
    else:
        print_stderr("no worker is alive: start one with `ecs-queue worker`")
    return status


def _check_workers(options: SharedOptions, minimum: int, as_json: bool) -> int:
    """Print the doctor's errors about the workers as one sentence; return the exit status."""
    from ecs_queue.broker import open_broker
    from ecs_queue.doctor.workers import check_workers
    from ecs_queue.ledger import open_ledger
    from ecs_queue.version import package_version

    config = load_shared_config(options)
    with closing(open_ledger(config)) as ledger, closing(open_broker(config)) as broker:
        broker.check()
        alive = len(ledger.list_workers())
        found = list(check_workers(config, broker, ledger, package_version()))
    problems = [finding.sentence for finding in found if finding.severity.value == "error"]
    number = "1 worker is alive" if alive == 1 else f"{alive} workers are alive"
    if alive < minimum:
        problems.insert(0, f"{number}, expected at least {minimum}; start one: ecs-queue worker")
    sentence = "; ".join(problems) or f"{number} and healthy"
    if as_json:
        print_json({"ok": not problems, "workers": alive, "text": sentence})
    else:
        print_stdout(sentence)
    return EXIT_FAILURE if problems else 0


def _print_server_errors(findings: Sequence[Finding]) -> None:
    """Say on stderr why no worker may be alive: a worker does not start on a server that it cannot work with."""
    for finding in findings:
        if finding.severity.value == "error":
            print_stderr(f"ecs-queue: {finding.sentence}")


def _worker_to_dict(worker: WorkerInfo) -> dict[str, Any]:
    """Return JSON-ready facts. Rates are calls a second over the last minute; a time that is None means never."""
    import msgspec

    facts: dict[str, Any] = msgspec.to_builtins(worker)
    for name in ("started_at", "last_seen_at"):
        facts[name] = format_timestamp(facts[name])
    for name in ("launch_rate", "start_call_rate", "spot_call_rate", "read_call_rate"):
        facts[name] = None if facts[name] is None else round(facts[name], 3)
    for name, age in (("polled_at", facts.pop("broker_poll_age")), ("described_at", facts.pop("describe_age"))):
        facts[name] = None if age is None else format_timestamp(worker.last_seen_at - age)
    return facts


def _row(worker: WorkerInfo, now: float) -> list[str]:
    heartbeat_age = now - worker.last_seen_at
    start_calls = _usage(worker.start_call_rate, worker.start_call_limit)
    if worker.spot_call_rate is not None:
        start_calls += f" + {_usage(worker.spot_call_rate, worker.start_call_limit)} Spot"
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


def summarize_workers(found: Sequence[WorkerInfo]) -> str:
    """Return how many workers there are, what they launch and how much of AWS's rate limits they use."""
    from ecs_queue.monitoring.quota_use import measure_quota_use

    versions = {worker.version for worker in found}
    parts = [
        describe_number(len(found), "worker"),
        f"{sum(worker.launch_rate for worker in found):.1f} launches/s",
        *(f"{use.calls} {_calls_of_limit(use.rate, use.limit)}" for use in measure_quota_use(found)),
    ]
    if len(versions) > 1:
        parts.append(f"{len(versions)} versions")
    return ", ".join(parts)


def _calls_of_limit(calls: float, limit: float) -> str:
    return f"{calls:.1f} of {limit:g}/s" if limit else f"{calls:.1f}/s, no limit"
