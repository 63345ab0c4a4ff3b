"""`status`: shows the queues, or every fact about one request and its timeline."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from ecs_queue.cli.ui.exit_status import EXIT_FAILURE
from ecs_queue.cli.ui.options import SharedOptions, command_options, open_client, open_journal_reader
from ecs_queue.cli.ui.output import print_facts, print_fields, print_json, print_stderr, print_stdout, print_table
from ecs_queue.cli.ui.record_view import record_lines, record_to_dict
from ecs_queue.cli.ui.records import STATE_NAMES, find_record, list_queues, read_backlog
from ecs_queue.cli.ui.timeline_view import print_timeline, timeline_summary, timeline_to_dicts
from ecs_queue.errors import JournalUnavailable

if TYPE_CHECKING:
    from ecs_queue.client.client import EcsQueue
    from ecs_queue.journal.timeline import Timeline
    from ecs_queue.ledger.base import WorkerInfo
    from ecs_queue.protocol.record import Record


@click.command(short_help="Show all queues, or one request.")
@click.argument("id", required=False, metavar="[ID|TASK-ARN]")
@command_options
def status(options: SharedOptions, id: str | None, as_json: bool) -> int:
    """Show all queues, or one request.

    Without an ID: each queue with its requests by state, its backlog (messages that wait in the broker) and its
    live workers. QUEUED, LAUNCHING and LAUNCHED are the present numbers; the other states count since the
    namespace was created.

    With an ID, or the ARN of the ECS task: all facts about the request and its timeline. The timeline shows for
    each attempt its worker, its task, how it ended, and how long it waited, launched, was provisioned, pulled the
    image, ran and stopped. Without a journal only the last attempt is known, and no image pull. The command and
    the environment are never shown, because they may hold secrets.

    \b
    Examples:
      ecs-queue status
      ecs-queue status nightly-etl
      ecs-queue status nightly-etl --json | jq -r .state

    Exit status: 1 when the request is not known; otherwise as for every command.
    """
    options.configure_logging()
    with open_client(options) as client:
        if id is None:
            _print_queues(client, as_json)
            return 0
        return _print_request(client, id, as_json)


def _print_request(client: EcsQueue, name: str, as_json: bool) -> int:
    """Print the record and the timeline; when the record is gone, what the journal has."""
    record = find_record(client.ledger, name)
    timeline = _read_timeline(client, record, record.id if record else name)
    if timeline is None:
        print_stderr(f"ecs-queue: no request {name} is known: it was never submitted, or its retention time is over")
        return EXIT_FAILURE
    facts = {"id": timeline.id, **timeline_summary(timeline)} if record is None else record_to_dict(record)
    if as_json:
        print_json({**facts, "timeline": timeline_to_dicts(timeline)})
        return 0
    now = client.ledger.now()
    if record is None:
        print_stderr("ecs-queue: its retention time in the ledger is over; this is what the journal has")
        print_facts(facts)
    else:
        print_fields(record_lines(record, now))
    print_timeline(timeline, now)
    return 0


def _read_timeline(client: EcsQueue, record: Record | None, record_id: str) -> Timeline | None:
    from ecs_queue.journal.timeline import build_timeline

    try:
        with open_journal_reader(client.config) as journal:
            return build_timeline(record, journal.request_events(record_id), record_id)
    except JournalUnavailable as error:  # the record alone gives the last attempt
        print_stderr(f"ecs-queue: {error}")
        return build_timeline(record, (), record_id)


def _print_queues(client: EcsQueue, as_json: bool) -> None:
    counts, alive = client.ledger.count_by_state(), client.ledger.list_workers()
    rows = []
    for name in list_queues(client, alive, counts):
        states = {state.value: number for state, number in counts.get(name, {}).items()}
        states = {state: states.get(state, 0) for state in STATE_NAMES}
        serving = [worker.name for worker in alive if name in worker.queues]
        backlog = read_backlog(client, name)
        if as_json:
            print_json({"queue": name, "backlog": backlog, "states": states, "workers": serving})
        rows.append([name, str(len(serving)), "?" if backlog is None else str(backlog), *map(str, states.values())])
    if not as_json:
        print_table(("queue", "workers", "backlog", *STATE_NAMES), rows)
        print_stdout(_workers_summary(alive))


def _workers_summary(alive: Sequence[WorkerInfo]) -> str:
    if not alive:
        return "no worker is alive: start one with `ecs-queue worker`"
    unhealthy = [f"{worker.name}: {worker.health}" for worker in alive if worker.health != "ok"]
    number = "1 worker is" if len(alive) == 1 else f"{len(alive)} workers are"
    return f"{number} alive" + (f"; {'; '.join(unhealthy)}" if unhealthy else ", all healthy")
