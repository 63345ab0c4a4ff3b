"""`queues`: what waits in each queue and what it may do; pause and resume."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from ecs_queue.cli.status import read_backlog
from ecs_queue.cli.ui.options import SharedOptions, json_option, open_client, pass_options, shared_options
from ecs_queue.cli.ui.output import format_duration, print_json, print_stderr, print_stdout, print_table

if TYPE_CHECKING:
    from ecs_queue.client.client import EcsQueue
    from ecs_queue.protocol.states import State

_IN_FLIGHT_STATES = ("LAUNCHING", "LAUNCHED")


@click.group(short_help="Show the queues; pause and resume them.", invoke_without_command=True)
@json_option
@shared_options
@pass_options
@click.pass_context
def queues(context: click.Context, options: SharedOptions, as_json: bool) -> None:
    """Show the queues: what waits, what is in flight, how they share the workers, and whether they are paused.

    `backlog`: messages waiting in the broker. `queued`: requests that are not launched yet. `in flight`: tasks
    being launched or running. `limit` and `weight`: max_in_flight and weight of the queue's profile, as this
    command's own configuration has them.

    \b
    Examples:
      ecs-queue queues
      ecs-queue queues pause etl          nothing of etl is launched any more
      ecs-queue queues resume etl
      ecs-queue queues --json | jq -r 'select(.paused_since) | .queue'
    """
    if context.invoked_subcommand is not None:
        return
    options.configure_logging()
    with open_client(options) as client:
        found = _queues_to_dicts(client)
        now = client.ledger.now()
    if as_json:
        for facts in found:
            print_json({**facts, "paused_since": _format_timestamp(facts["paused_since"])})
        return
    headers = ("queue", "workers", "backlog", "queued", "in flight", "limit", "weight", "state")
    print_table(headers, [_row(facts, now) for facts in found])


@queues.command(short_help="Launch nothing more of these queues.")
@click.argument("names", nargs=-1, required=True, metavar="QUEUE...")
@shared_options
@pass_options
def pause(options: SharedOptions, names: Sequence[str]) -> None:
    """Launch nothing more of these queues until they are resumed.

    From now on no worker starts a task of them. What is in flight goes on, what is submitted waits, and what has
    a deadline still expires.

    \b
    Example:
      ecs-queue queues pause etl reports
    """
    options.configure_logging()
    with open_client(options) as client:
        served = {name for worker in client.ledger.list_workers() for name in worker.queues}
        client.ledger.pause_queues(names)
    for name in names:
        print_stdout(f"{name}: paused")
        if name not in served:
            print_stderr(f"ecs-queue: no worker that is alive serves a queue {name}")


@queues.command(short_help="Launch requests of these queues again.")
@click.argument("names", nargs=-1, required=True, metavar="QUEUE...")
@shared_options
@pass_options
def resume(options: SharedOptions, names: Sequence[str]) -> None:
    """Launch requests of these queues again. Workers see it within about a second.

    \b
    Example:
      ecs-queue queues resume etl reports
    """
    options.configure_logging()
    with open_client(options) as client:
        paused = client.ledger.list_paused_queues()
        client.ledger.resume_queues(names)
    for name in names:
        print_stdout(f"{name}: resumed" if name in paused else f"{name}: was not paused")


def _queues_to_dicts(client: EcsQueue) -> list[dict[str, Any]]:
    counts, paused, alive = (
        client.ledger.count_by_state(),
        client.ledger.list_paused_queues(),
        client.ledger.list_workers(),
    )
    names = {"default", *counts, *paused, *(profile.queue for profile in client.config.profiles())}
    names.update(name for worker in alive for name in worker.queues)
    names.discard("")  # what a stop left for requests that never came
    found = []
    for name in sorted(names):
        states = counts.get(name, {})
        profile = client.config.profile(name)
        facts = {
            "queue": name,
            "workers": [worker.name for worker in alive if name in worker.queues],
            "backlog": read_backlog(client, name),
            "queued": _count_in_states(states, ("QUEUED",)),
            "in_flight": _count_in_states(states, _IN_FLIGHT_STATES),
            "max_in_flight": profile.max_in_flight or None,
            "weight": profile.weight,
            "paused_since": paused.get(name),
        }
        found.append(facts)
    return found


def _format_timestamp(epoch_seconds: float | None) -> Any:
    import msgspec

    from ecs_queue.messages.envelope import to_datetime

    return epoch_seconds and msgspec.to_builtins(to_datetime(epoch_seconds))


def _count_in_states(states: Mapping[State, int], wanted: Sequence[str]) -> int:
    return sum(number for state, number in states.items() if state.value in wanted)


def _row(facts: Mapping[str, Any], now: float) -> list[str]:
    since = facts["paused_since"]
    state = f"paused for {format_duration(now - since)}" if since else "active"
    if state == "active" and facts["max_in_flight"] and facts["in_flight"] >= facts["max_in_flight"]:
        state = "full"
    backlog = "?" if facts["backlog"] is None else str(facts["backlog"])
    limit = str(facts["max_in_flight"] or "none")
    numbers = (str(facts["queued"]), str(facts["in_flight"]), limit, str(facts["weight"]))
    return [facts["queue"], str(len(facts["workers"])), backlog, *numbers, state]
