"""`pools`: shows the runners of warm pools; drains the pools of queues."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from ecs_queue.cli.ui.durations import format_duration, format_timestamp
from ecs_queue.cli.ui.options import (
    SharedOptions,
    command_options,
    open_client,
    pass_options,
    queue_name,
    shared_options,
)
from ecs_queue.cli.ui.output import describe_number, print_json, print_stderr, print_stdout, print_table

if TYPE_CHECKING:
    from ecs_queue.ledger.base import Ledger
    from ecs_queue.protocol.runs import Run

#: How often a drain looks again at runners that have taken their command meanwhile.
_MAX_DRAIN_ROUNDS = 5
_HEADERS = ("queue", "pool", "starting", "busy", "idle", "leaving", "silent", "commands", "oldest")


@click.group(short_help="Show the runners of warm pools; drain pools.", invoke_without_command=True)
@command_options
@click.pass_context
def pools(context: click.Context, options: SharedOptions, as_json: bool) -> None:
    """Show the runners of each warm pool, and what they do.

    `starting` runners have not come yet, `leaving` ones finish their command and then exit, `silent` ones have not
    called for runner_ttl. `commands` counts what the runners that are there were given, and `oldest` is the age of the
    oldest one.

    \b
    Examples:
      ecs-queue pools
      ecs-queue pools --json | jq -r 'select(.idle > 10) | .pool'
      ecs-queue pools drain etl           let the runners of etl leave
    """
    if context.invoked_subcommand is not None:
        return
    options.configure_logging()
    with open_client(options) as client:
        runs, now, ttl = client.ledger.list_runs(), client.ledger.now(), client.config.runner_ttl
    found = list(summarize_pools(runs, now, ttl))
    if as_json:
        for facts in found:
            print_json({**facts, "oldest": format_timestamp(facts["oldest"])})
    elif found:
        print_table(_HEADERS, [_row(facts, now) for facts in found])
    else:
        print_stderr("there is no runner: a queue with warm_seconds has some once a request was launched")


@pools.command(short_help="Let the runners of queues leave.")
@click.argument("queues", type=queue_name, nargs=-1, required=True, metavar="QUEUE...")
@shared_options
@pass_options
def drain(options: SharedOptions, queues: Sequence[str]) -> None:
    """Let the runners of these queues leave: idle ones at once, others after their command.

    They get no further request. The request of a runner that has not taken it yet is queued again, and the runner
    leaves when it comes. What is queued starts new runners, unless the queue is paused or warm_seconds is 0 at the
    workers.

    \b
    Example:
      ecs-queue pools drain etl reports
    """
    options.configure_logging()
    with open_client(options) as client:
        for queue in queues:
            number = drain_queue(client.ledger, queue)
            print_stdout(f"{queue}: {describe_number(number, 'runner')} will leave")


def drain_queue(ledger: Ledger, queue: str) -> int:
    """Let the runners of a queue leave, and return how many will. Requests that no runner has taken are queued again.

    Runners that are started meanwhile are not among them.
    """
    from ecs_queue.protocol.operations import ResultCode
    from ecs_queue.protocol.runs import RunPhase, queue_of_pool

    names = [run.name for run in ledger.list_runs() if queue_of_pool(run.pool) == queue and not run.closed]
    number = 0
    for _ in range(_MAX_DRAIN_ROUNDS):
        # Idle ones first: a claim gives them nothing then. What a runner takes before it is put back is closed next.
        number += ledger.drain_runs(names)
        untaken = [run for run in ledger.read_runs(names) if run is not None and run.phase is RunPhase.ASSIGNED]
        if not untaken:
            break
        results = ledger.put_back([run.id for run in untaken])
        number += sum(result.code is ResultCode.REQUEUED for result in results)
        names = [run.name for run, result in zip(untaken, results, strict=True) if result.code is ResultCode.STALE]
    return number


def summarize_pools(runs: Iterable[Run], now: float, runner_ttl: float) -> Iterable[dict[str, Any]]:
    """Yield the facts of each pool that has runners. What has left is not counted."""
    from ecs_queue.protocol.runs import RunnerActivity, find_activity, queue_of_pool

    by_pool: defaultdict[str, list[tuple[RunnerActivity, Run]]] = defaultdict(list)
    for run in runs:
        if activity := find_activity(run, now, runner_ttl):
            by_pool[run.pool].append((activity, run))
    for pool, members in sorted(by_pool.items()):
        activities = [activity for activity, _ in members]
        numbers = {activity.value: activities.count(activity) for activity in RunnerActivity}
        yield {
            "pool": pool,
            "queue": queue_of_pool(pool),
            **numbers,
            "commands": sum(run.turn for _, run in members),
            "oldest": min(run.born_at for _, run in members),
        }


def _row(facts: Mapping[str, Any], now: float) -> list[str]:
    numbers = [str(facts[name]) for name in _HEADERS[2:-1]]
    return [facts["queue"], facts["pool"].rpartition(".")[2], *numbers, format_duration(now - facts["oldest"])]
