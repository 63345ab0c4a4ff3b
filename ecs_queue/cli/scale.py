"""`scale`: shows how many workers each queue needs, for autoscalers and for people."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from ecs_queue.cli.ui.durations import Duration, format_duration
from ecs_queue.cli.ui.options import SharedOptions, command_options, open_client, queue_name
from ecs_queue.cli.ui.output import print_json, print_table

if TYPE_CHECKING:
    from ecs_queue.monitoring.scaling import ScaleSignal

_HEADERS = ("queue", "workers", "wanted", "backlog", "oldest", "in flight", "state")


@click.command(short_help="Show how many workers each queue needs.")
@click.option("--queue", type=queue_name, metavar="NAME", help="Only this queue.")
@click.option(
    "--within",
    type=Duration(min=1),
    default=60.0,
    show_default=True,
    metavar="S",
    help="The time in which the backlog should be launched.",
)
@command_options
def scale(options: SharedOptions, queue: str | None, within: float, as_json: bool) -> None:
    """Show how many workers each queue needs to launch its backlog in --within, as far as AWS's quota feeds them.

    `wanted` follows from the backlog, from `concurrency`, `run_task_rate` and `max_in_flight` in the configuration of
    this command, and from the tasks in flight. An autoscaler may run it, or ask a worker: /scale?queue=NAME.

    \b
    Examples:
      ecs-queue scale
      ecs-queue scale --queue etl --json | jq .workers_wanted
    """
    from ecs_queue.monitoring.namespace_state import read_namespace_state, scale_signal

    options.configure_logging()
    with open_client(options) as client:
        names = [queue] if queue else [profile.queue for profile in client.config.profiles()]
        state = read_namespace_state(client.ledger, client.backlog, names)
    signals = [
        scale_signal(client.config, state, name, within) for name in ([queue] if queue else sorted(state.queues))
    ]
    if as_json:
        for signal in signals:
            print_json(signal.to_dict())
    else:
        print_table(_HEADERS, [_row(signal) for signal in signals])


def _row(signal: ScaleSignal) -> list[str]:
    return [
        signal.queue,
        str(signal.live_workers),
        str(signal.workers_wanted),
        str(signal.backlog),
        format_duration(signal.oldest_age_seconds) if signal.oldest_age_seconds else "-",
        str(signal.in_flight),
        "paused" if signal.paused else "active",
    ]
