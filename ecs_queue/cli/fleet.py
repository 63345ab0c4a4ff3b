"""`workers`: who is alive, what each does, and what all of them take of AWS's quotas."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from ecs_queue.cli.facts import moment_text
from ecs_queue.cli.options import Options, json_option, opened_queue, pass_options, shared_options
from ecs_queue.cli.output import duration, say, show, show_json, show_rows

if TYPE_CHECKING:
    from ecs_queue.ledger.base import WorkerInfo

_HEADERS = ("name", "queues", "slots", "follows", "launched", "ended", "rate", "quota", "polled", "version", "health")


@click.command(short_help="List the workers that are alive.")
@json_option
@shared_options
@pass_options
def workers(options: Options, as_json: bool) -> None:
    """List the workers that were heard of in the last 15 seconds.

    `slots`: requests it launches right now, of how many at once. `follows`: tasks it has launched or looked at
    lately. `launched`, `ended`: in all. `rate`: launches a second over the last minute. `quota`: what its calls are
    of the configured run_task_rate and describe_tasks_rate, which all workers share. `polled`: how long ago it
    asked the broker and, behind the /, ECS. `health` is ok, or says which queues are paused and why (credentials,
    a missing cluster).

    \b
    Examples:
      ecs-queue workers
      ecs-queue workers --json | jq -r 'select(.health != "ok") | .name + ": " + .health'
    """
    options.start_logging()
    with opened_queue(options) as client:
        found, now = client.ledger.workers(), client.ledger.now()
    if as_json:
        for worker in found:
            show_json(_facts(worker))
    elif found:
        show_rows(_HEADERS, [_row(worker, now) for worker in found])
        show(_together(found))
    else:
        say("no worker is alive: start one with `ecs-queue worker`")


def _facts(worker: WorkerInfo) -> dict[str, Any]:
    """JSON-ready; rates are calls a second over the last minute, `polled_at` and `described_at` None for never."""
    import msgspec

    facts: dict[str, Any] = msgspec.to_builtins(worker)
    for name in ("started_at", "seen_at"):
        facts[name] = moment_text(facts[name])
    for name in ("launch_rate", "start_calls", "read_calls"):
        facts[name] = round(facts[name], 3)
    for name, age in (("polled_at", facts.pop("poll_age")), ("described_at", facts.pop("describe_age"))):
        facts[name] = None if age is None else moment_text(worker.seen_at - age)
    return facts


def _row(worker: WorkerInfo, now: float) -> list[str]:
    silent = now - worker.seen_at
    return [
        worker.name,
        ", ".join(worker.queues),
        f"{worker.launching}/{worker.concurrency}",
        str(worker.following),
        str(worker.launched),
        str(worker.finished),
        f"{worker.launch_rate:.1f}/s",
        f"{_share(worker.start_calls, worker.start_quota)} / {_share(worker.read_calls, worker.read_quota)}",
        f"{_age(worker.poll_age, silent)} / {_age(worker.describe_age, silent)}",
        worker.version,
        worker.health,
    ]


def _share(calls: float, quota: float) -> str:
    return f"{100 * calls / quota:.0f}%" if quota else f"{calls:.1f}/s"


def _age(seconds: float | None, silent: float) -> str:
    return "never" if seconds is None else duration(seconds + silent)


def _together(found: Sequence[WorkerInfo]) -> str:
    starts, reads = sum(worker.start_calls for worker in found), sum(worker.read_calls for worker in found)
    rate = sum(worker.launch_rate for worker in found)
    versions = {worker.version for worker in found}
    words = [
        "1 worker" if len(found) == 1 else f"{len(found)} workers",
        f"{rate:.1f} launches/s",
        f"RunTask and StopTask {_of(starts, max(worker.start_quota for worker in found))}",
        f"DescribeTasks and ListTasks {_of(reads, max(worker.read_quota for worker in found))}",
    ]
    if len(versions) > 1:
        words.append(f"{len(versions)} versions")
    return ", ".join(words)


def _of(calls: float, quota: float) -> str:
    return f"{calls:.1f} of {quota:g}/s" if quota else f"{calls:.1f}/s, no limit"
