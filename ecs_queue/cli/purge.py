"""`purge`: ends all requests of a queue that wait for a launch."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from ecs_queue.cli.ui.completion import complete_queue
from ecs_queue.cli.ui.options import SharedOptions, as_option, command_options, open_client, queue_name
from ecs_queue.cli.ui.output import describe_number, print_json, print_stderr
from ecs_queue.cli.ui.records import read_backlog, warn_unserved_queues

if TYPE_CHECKING:
    from ecs_queue.client.client import EcsQueue

_BATCH_SIZE = 500


@click.command(short_help="End all waiting requests of a queue.")
@click.argument("queue", type=queue_name, shell_complete=complete_queue, metavar="QUEUE")
@click.option("--yes", is_flag=True, help="Do it; otherwise only count them.")
@as_option
@command_options
def purge(options: SharedOptions, queue: str, yes: bool, as_json: bool) -> int:
    """End all requests of a queue that wait for a launch, as REVOKED: their owners get results.

    Also a request that is delayed, or waits for another attempt, is one that waits. Nothing that runs or may run is
    stopped, not even what is launched while the command works (`ecs-queue stop --queue` stops that too). The messages
    of revoked requests stay in the broker, and workers drop them as they arrive. A request that another program
    published, and that no worker has received yet, is not known and stays: pause the queue while you purge, and purge
    again when its backlog is received.

    \b
    Examples:
      ecs-queue purge etl          says how many there are
      ecs-queue purge etl --yes    ends them
    """
    options.configure_logging()
    with open_client(options) as client:
        ids = [record.id for record in client.tasks(states=["QUEUED"], queue=queue) if record.queue]
        if not yes:
            _print_count(client, queue, len(ids), as_json)
        if not ids:
            warn_unserved_queues(client, [queue], expects_launch=False)
        if not yes:
            return 0
        ended = 0
        for start in range(0, len(ids), _BATCH_SIZE):
            for record in client.purge_requests(ids[start : start + _BATCH_SIZE]):
                ended += 1
                if as_json:
                    print_json({"id": record.id, "state": record.state.value, "result": "revoked"})
    left = len(ids) - ended
    others = f"; {left} did not wait any more, and nothing was done to {'it' if left == 1 else 'them'}" if left else ""
    print_stderr(f"{ended} of {len(ids)} were revoked{others}")
    return 0


def _print_count(client: EcsQueue, queue: str, number: int, as_json: bool) -> None:
    backlog = read_backlog(client, queue)
    if as_json:
        print_json({"queue": queue, "selected": number, "revoked": 0, "backlog": backlog})
    messages = "" if backlog is None else f" ({describe_number(backlog, 'message')} in the broker)"
    requests = describe_number(number, "waiting request")
    print_stderr(f"{requests} of {queue} would be revoked{messages}; dry run: nothing was done, --yes does it")
