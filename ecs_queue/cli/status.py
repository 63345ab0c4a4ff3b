"""`status`: what the ledger and the journal say, for people and machines; and how requests are found."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import click

from ecs_queue.cli.ui.options import SharedOptions, json_option, open_client, pass_options, shared_options
from ecs_queue.cli.ui.output import print_fields, print_json, print_stderr, print_stdout, print_table
from ecs_queue.cli.ui.record_view import record_lines, record_to_dict
from ecs_queue.cli.ui.timeline_view import print_timeline, timeline_summary, timeline_to_dicts
from ecs_queue.errors import BrokerUnavailable, JournalUnavailable

if TYPE_CHECKING:
    from ecs_queue.client.client import EcsQueue
    from ecs_queue.journal.timeline import Timeline
    from ecs_queue.ledger.base import Ledger, WorkerInfo
    from ecs_queue.protocol.record import Record

#: As `ecs_queue.protocol.states.State` has them; a test compares.
STATE_NAMES = ("QUEUED", "LAUNCHING", "LAUNCHED", "SUCCESS", "FAILED", "REMOVED", "REVOKED", "EXPIRED", "UNKNOWN")
EXIT_NOT_FOUND = 1
_PAGE_SIZE = 500
#: An ARN is indexed while its task is live; among the finished it is looked for in so many of the newest.
_MAX_ARN_SEARCH = 20_000


@click.command(short_help="Show how things stand, or one request.")
@click.argument("id", required=False, metavar="[ID|TASK-ARN]")
@json_option
@shared_options
@pass_options
def status(options: SharedOptions, id: str | None, as_json: bool) -> int:
    """Show how things stand, or one request.

    Without an ID: each queue with its requests by state, the messages waiting in it (backlog), and the workers
    that take from it. QUEUED, LAUNCHING and LAUNCHED are the numbers of now, the others count from the
    namespace's beginning.

    With an ID, or the ARN of its ECS task: every fact known about the request, and its timeline: each attempt with
    its wait, launch, provisioning, image pull, run and stop, how it ended, its task and its worker. Without a
    journal only the last attempt is known, and no image pull. Its command and environment are never shown, they
    may hold secrets.

    \b
    Examples:
      ecs-queue status
      ecs-queue status nightly-etl
      ecs-queue status nightly-etl --json | jq -r .state

    Exit status: 1 when no such request is known; otherwise as for every command.
    """
    options.configure_logging()
    with open_client(options) as queue:
        if id is None:
            _print_queues(queue, as_json)
            return 0
        return _print_request(queue, id, as_json)


def find_record(ledger: Ledger, name: str) -> Record | None:
    """The record of an id or of a task's ARN."""
    if ":" not in name:
        return ledger.get([name])[0]
    record_id = ledger.find_id_by_arn(name)
    if record_id is not None:
        return ledger.get([record_id])[0]
    newest = itertools.islice(iter_records(ledger, lambda _: True, _PAGE_SIZE), _MAX_ARN_SEARCH)
    return next((record for record in newest if record.arn == name), None)


def iter_records(ledger: Ledger, matches: Callable[[Record], bool], page: int) -> Iterator[Record]:
    """Records that fit, newest first, each once though it may move while the pages are read."""
    seen: set[tuple[str, str]] = set()
    cursor = ""
    while True:
        records, cursor = ledger.list_records(cursor, page)
        for record in records:
            if matches(record) and (record.id, record.nonce) not in seen:
                seen.add((record.id, record.nonce))
                yield record
        if not cursor:
            return


def _print_request(queue: EcsQueue, name: str, as_json: bool) -> int:
    """The facts of the ledger and the timeline; what the ledger does not know any more, the journal may."""
    record = find_record(queue.ledger, name)
    timeline = _read_timeline(queue, record, record.id if record else name)
    if timeline is None:
        print_stderr(f"ecs-queue: no request {name} is known: it was never submitted, or its retention time is over")
        return EXIT_NOT_FOUND
    facts = {"id": timeline.id, **timeline_summary(timeline)} if record is None else record_to_dict(record)
    if as_json:
        print_json({**facts, "timeline": timeline_to_dicts(timeline)})
        return 0
    now = queue.ledger.now()
    if record is None:
        print_stderr("ecs-queue: its retention time in the ledger is over; this is what the journal has")
        print_fields([(key.replace("_", " "), "" if value is None else str(value)) for key, value in facts.items()])
    else:
        print_fields(record_lines(record, now))
    print_timeline(timeline, now)
    return 0


def _read_timeline(queue: EcsQueue, record: Record | None, record_id: str) -> Timeline | None:
    from ecs_queue.cli.ui.journal_access import open_journal_reader
    from ecs_queue.journal.timeline import build_timeline

    try:
        with open_journal_reader(queue.config) as journal:
            return build_timeline(record, journal.request_events(record_id), record_id)
    except JournalUnavailable as error:  # the ledger still has the truth
        print_stderr(f"ecs-queue: {error}")
        return build_timeline(record, (), record_id)


def _print_queues(client: EcsQueue, as_json: bool) -> None:
    counts, alive = client.ledger.count_by_state(), client.ledger.list_workers()
    names = {"default", *counts, *(profile.queue for profile in client.config.profiles())}
    names.discard("")  # what a stop left for requests that never came
    names.update(name for worker in alive for name in worker.queues)
    rows = []
    for name in sorted(names):
        states = {state.value: number for state, number in counts.get(name, {}).items()}
        serving = [worker.name for worker in alive if name in worker.queues]
        backlog = read_backlog(client, name)
        if as_json:
            every = {state: states.get(state, 0) for state in STATE_NAMES}
            print_json({"queue": name, "backlog": backlog, "states": every, "workers": serving})
        shown = "?" if backlog is None else str(backlog)
        rows.append([name, str(len(serving)), shown, *(str(states.get(state, 0)) for state in STATE_NAMES)])
    if not as_json:
        print_table(("queue", "workers", "backlog", *STATE_NAMES), rows)
        print_stdout(_workers_summary(alive))


def read_backlog(client: EcsQueue, queue: str) -> int | None:
    """Messages waiting in the queue; None, and a sentence, when the broker cannot be asked."""
    try:
        return client.backlog(queue)
    except BrokerUnavailable as error:  # the ledger still has the truth
        print_stderr(f"ecs-queue: {error}")
        return None


def _workers_summary(alive: Sequence[WorkerInfo]) -> str:
    if not alive:
        return "no worker is alive: start one with `ecs-queue worker`"
    ill = [f"{worker.name}: {worker.health}" for worker in alive if worker.health != "ok"]
    number = "1 worker is" if len(alive) == 1 else f"{len(alive)} workers are"
    return f"{number} alive" + (f"; {'; '.join(ill)}" if ill else ", all healthy")
