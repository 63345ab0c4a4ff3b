"""`queues`: shows each queue's load and limits; pauses and resumes queues."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from ecs_queue.cli.ui.completion import complete_queue
from ecs_queue.cli.ui.durations import format_duration, format_timestamp
from ecs_queue.cli.ui.options import (
    SharedOptions,
    command_options,
    open_client,
    pass_options,
    queue_name,
    shared_options,
)
from ecs_queue.cli.ui.output import describe_number, print_json, print_stdout, print_table
from ecs_queue.cli.ui.records import list_queues, read_backlog, warn_unserved_queues

if TYPE_CHECKING:
    from ecs_queue.client.client import EcsQueue

QUEUE_HEADERS = ("queue", "workers", "backlog", "queued", "in flight", "limit", "weight", "state")


@click.group(short_help="Show the queues; pause and resume them.", invoke_without_command=True)
@command_options
@click.pass_context
def queues(context: click.Context, options: SharedOptions, as_json: bool) -> None:
    """Show each queue's load, its limits, and whether it is paused.

    `backlog` counts messages that wait in the broker, `queued` requests that are not launched yet, `in flight`
    tasks that are being launched or run. `limit` and `weight` are max_in_flight and weight of the queue's profile
    in the configuration of this command. A queue is full when its limit is reached; with max_starting, the state
    shows how many tasks start while no further one may; with max_per_key, how many requests wait because their key is
    full; with launch_rate, how many launches a second it makes at most.

    \b
    Examples:
      ecs-queue queues
      ecs-queue queues pause etl          launch no more requests of etl
      ecs-queue queues resume etl
      ecs-queue queues --json | jq -r 'select(.paused_since) | .queue'
    """
    if context.invoked_subcommand is not None:
        return
    options.configure_logging()
    with open_client(options) as client:
        found = list(read_queues(client))
        now = client.ledger.now()
    if as_json:
        for facts in found:
            print_json({**facts, "paused_since": format_timestamp(facts["paused_since"])})
        return
    print_table(QUEUE_HEADERS, [queue_row(facts, now) for facts in found])


@queues.command(short_help="Launch no more requests of queues.")
@click.argument("names", type=queue_name, shell_complete=complete_queue, nargs=-1, required=True, metavar="QUEUE...")
@shared_options
@pass_options
def pause(options: SharedOptions, names: Sequence[str]) -> None:
    """Launch no more requests of these queues until they are resumed.

    From now on no worker starts a task of them. Tasks in flight go on, submitted requests wait, and requests with
    a deadline still expire.

    \b
    Example:
      ecs-queue queues pause etl reports
    """
    options.configure_logging()
    with open_client(options) as client:
        client.pause(*names)
        for name in names:
            print_stdout(f"{name}: paused")
        warn_unserved_queues(client, names, expects_launch=False)


@queues.command(short_help="Launch requests of paused queues again.")
@click.argument("names", type=queue_name, shell_complete=complete_queue, nargs=-1, required=True, metavar="QUEUE...")
@shared_options
@pass_options
def resume(options: SharedOptions, names: Sequence[str]) -> None:
    """Launch requests of paused queues again. Workers follow within about a second.

    \b
    Example:
      ecs-queue queues resume etl reports
    """
    options.configure_logging()
    with open_client(options) as client:
        paused = client.resume(*names)
    for name in names:
        print_stdout(f"{name}: resumed" if name in paused else f"{name}: was not paused")


def read_queues(client: EcsQueue) -> Iterator[dict[str, Any]]:
    """Yield the load and the limits of each known queue."""
    ledger = client.ledger
    counts, paused, alive = ledger.count_by_state(), ledger.list_paused_queues(), ledger.list_workers()
    names = list(list_queues(client, alive, counts, paused))
    starting, key_waiting = ledger.count_starting(names), ledger.count_waiting_for_keys(names)
    for name in names:
        states = {state.value: number for state, number in counts.get(name, {}).items()}
        profile = client.config.profile(name)
        yield {
            "queue": name,
            "workers": [worker.name for worker in alive if name in worker.queues],
            "backlog": read_backlog(client, name),
            "queued": states.get("QUEUED", 0),
            "in_flight": states.get("LAUNCHING", 0) + states.get("LAUNCHED", 0),
            "max_in_flight": profile.max_in_flight or None,
            "starting": starting[name],
            "max_starting": profile.max_starting or None,
            "max_per_key": profile.max_per_key or None,
            "key_waiting": key_waiting[name],
            "launch_rate": profile.launch_rate or None,
            "weight": profile.weight,
            "paused_since": paused.get(name),
        }


def queue_row(facts: Mapping[str, Any], now: float) -> list[str]:
    """Return what a table shows of what `read_queues` yields; `now` is the ledger's clock."""
    limit = facts["max_in_flight"]
    state = f"at most {facts['launch_rate']:g} a second" if facts["launch_rate"] else "active"
    if facts["key_waiting"]:
        state = f"{describe_number(facts['key_waiting'], 'request')} waiting for a key"
    if facts["max_starting"] and facts["starting"] >= facts["max_starting"]:
        state = f"{facts['starting']} of {facts['max_starting']} starting"
    if limit and facts["in_flight"] >= limit:
        state = "full"
    if facts["paused_since"]:
        state = f"paused for {format_duration(now - facts['paused_since'])}"
    backlog = "?" if facts["backlog"] is None else str(facts["backlog"])
    numbers = (str(facts["queued"]), str(facts["in_flight"]), str(limit or "none"), str(facts["weight"]))
    return [facts["queue"], str(len(facts["workers"])), backlog, *numbers, state]
