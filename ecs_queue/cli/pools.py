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

    They get no further request. What is submitted afterwards starts new runners, unless the queue is paused or
    warm_seconds is 0 at the workers. Runners that have not taken their command yet are left: repeat it for them.

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
    """Let the runners of a queue leave, and return how many will."""
    from ecs_queue.protocol.runs import queue_of_pool

    names = {run.pool for run in ledger.list_runs()}
    return ledger.drain_pools(sorted(name for name in names if queue_of_pool(name) == queue))


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
