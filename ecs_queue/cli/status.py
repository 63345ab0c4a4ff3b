"""`status`: shows the queues, or every fact about one request and its timeline."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from ecs_queue.cli.ui.awaited_log import last_lines, print_last_lines
from ecs_queue.cli.ui.completion import complete_id
from ecs_queue.cli.ui.durations import format_timestamp
from ecs_queue.cli.ui.exit_status import EXIT_FAILURE
from ecs_queue.cli.ui.options import SharedOptions, command_options, open_client
from ecs_queue.cli.ui.output import (
    print_facts,
    print_fields,
    print_json,
    print_sentence,
    print_stderr,
    print_table,
)
from ecs_queue.cli.ui.record_view import record_lines, record_to_dict
from ecs_queue.cli.ui.records import (
    STATE_NAMES,
    describe_default_server,
    find_reached_limit,
    list_queues,
    read_backlog,
    report_health,
)
from ecs_queue.cli.ui.timeline_view import (
    print_timeline,
    read_timeline,
    timeline_summary,
    timeline_to_dicts,
    warn_about_events,
)
from ecs_queue.cli.ui.watch import show_repeatedly, watch_option
from ecs_queue.client.records import find_record

if TYPE_CHECKING:
    from ecs_queue.client.client import EcsQueue
    from ecs_queue.ledger.base import WorkerInfo


@click.command(short_help="Show all queues, or one request.")
@click.argument("id", required=False, shell_complete=complete_id, metavar="[ID|TASK-ARN]")
@click.option("--no-logs", is_flag=True, help="Leave out the last lines of a container that failed.")
@click.option("--logs", is_flag=True, help="With --json: include them.")
@watch_option
@command_options
def status(
    options: SharedOptions, id: str | None, no_logs: bool, logs: bool, watch: float | None, as_json: bool
) -> int:
    """Show all queues, or one request.

    Without an ID: each queue with its requests by state, its backlog (messages that wait in the broker), how many of
    its QUEUED requests are delayed (their time has not come) and its live workers. QUEUED, LAUNCHING and LAUNCHED are
    the present numbers; the other states count since the namespace was created.

    With an ID, or the ARN of the ECS task: all facts about the request and its timeline. The timeline shows for
    each attempt its worker, its task, how it ended, and how long it waited, launched, was provisioned, pulled the
    image, ran and stopped. Without a journal only the last attempt is known, and no image pull. A limit that the
    request waits for is that of the configuration of this command; workers may have another one. The command and
    the environment are never shown, because they may hold secrets. Of a container that failed the last 10 lines are
    shown, where they can be read within 3 seconds; `ecs-queue logs ID` shows all.

    \b
    Examples:
      ecs-queue status
      ecs-queue status nightly-etl
      ecs-queue status --watch
      ecs-queue status nightly-etl --json | jq -r .state

    Exit status: 1 when the request is not known, and without an ID when a worker is not healthy or an item of the
    ledger is broken; otherwise as for every command.
    """
    options.configure_logging()
    with open_client(options) as client:
        if id is None:
            return show_repeatedly(watch, as_json, lambda: _print_queues(client, as_json))
        with_logs = not no_logs and (logs or not as_json)
        return show_repeatedly(watch, as_json, lambda: _print_request(client, id, as_json, with_logs))


def _print_request(client: EcsQueue, name: str, as_json: bool, with_logs: bool) -> int:
    """Print the record and the timeline; when the record is gone, what the journal has."""
    record = find_record(client.ledger, name)
    timeline = read_timeline(client, record, record.id if record else name)
    warn_about_events(timeline)
    if timeline is None:
        print_stderr(f"ecs-queue: no request {name} is known: it was never submitted, or its retention time is over")
        return EXIT_FAILURE
    facts = {"id": timeline.id, **timeline_summary(timeline)} if record is None else record_to_dict(record)
    if as_json:
        if record is not None:
            facts["waits_for"] = find_reached_limit(client, record) or None
            facts["queue_paused_since"] = format_timestamp(client.ledger.list_paused_queues().get(record.queue, 0.0))
        output = {"last_lines": last_lines(client, record)} if with_logs and record else {}
        print_json({**facts, "timeline": timeline_to_dicts(timeline), **output})
        return 0
    now = client.ledger.now()
    if record is None:
        print_stderr("ecs-queue: its retention time in the ledger is over; this is what the journal has")
        print_facts(facts)
    else:
        print_fields(record_lines(record, now, client.ledger.list_paused_queues(), find_reached_limit(client, record)))
    print_timeline(timeline, now)
    if with_logs:
        print_last_lines(client, record)
    return 0


def _print_queues(client: EcsQueue, as_json: bool) -> int:
    counts, alive = client.ledger.count_by_state(), client.ledger.list_workers()
    rows = []
    names = list_queues(client, alive, counts)
    delayed = client.ledger.count_delayed(names)
    for name in names:
        states = {state.value: number for state, number in counts.get(name, {}).items()}
        states = {state: states.get(state, 0) for state in STATE_NAMES}
        serving = [worker.name for worker in alive if name in worker.queues]
        backlog = read_backlog(client, name)
        if as_json:
            facts = {"queue": name, "backlog": backlog, "delayed": delayed[name]}
            print_json({**facts, "states": states, "workers": serving})
        numbers = [len(serving), "?" if backlog is None else backlog, *states.values(), delayed[name]]
        rows.append([name, *map(str, numbers)])
    if not as_json:
        print_table(("queue", "workers", "backlog", *STATE_NAMES, "delayed"), rows)
        print_sentence(_workers_summary(alive))
        if not alive and (default_server := describe_default_server(client.config)):
            print_sentence(default_server)
    return report_health(client.ledger, alive)


def _workers_summary(alive: Sequence[WorkerInfo]) -> str:
    if not alive:
        return "no worker is alive: start one with `ecs-queue worker`"
    unhealthy = [f"{worker.name}: {worker.health}" for worker in alive if worker.health != "ok"]
    number = "1 worker is" if len(alive) == 1 else f"{len(alive)} workers are"
    return f"{number} alive" + (f"; {'; '.join(unhealthy)}" if unhealthy else ", all healthy")
