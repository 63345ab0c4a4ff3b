"""`tasks`: lists and counts requests."""

from __future__ import annotations

import itertools
import shlex
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from ecs_queue.cli.ui.durations import TimeBound, format_duration, parse_time_bound
from ecs_queue.cli.ui.labels import name_by_labels, parse_labels
from ecs_queue.cli.ui.numbers import count
from ecs_queue.cli.ui.options import SharedOptions, command_options, open_client
from ecs_queue.cli.ui.output import (
    STATE_STYLES,
    describe_number,
    fits_terminal,
    is_terminal,
    print_json,
    print_stderr,
    print_table,
    sanitize,
    style,
    truncate,
    wrap_for_terminal,
    write_stdout,
)
from ecs_queue.cli.ui.record_view import format_run_time, ran_to_exit, record_to_dict
from ecs_queue.cli.ui.records import STATE_NAMES, warn_unserved_queues
from ecs_queue.cli.ui.selection import selection_options
from ecs_queue.cli.ui.watch import show_repeatedly, watch_option
from ecs_queue.client.records import PAGE_SIZE
from ecs_queue.errors import EcsQueueError, UsageError

if TYPE_CHECKING:
    from ecs_queue.client.client import EcsQueue
    from ecs_queue.messages.keyring import Keyring
    from ecs_queue.protocol.record import Record

#: How many requests people see unless --limit says more. A list for a program is never cut without --limit.
_DEFAULT_LIMIT = 50
_HEADERS = ("id", "labels", "command", "state", "queue", "attempts", "exit", "age", "run time", "reason")
#: How much of labels and of a command a row shows. Characters.
_MAX_NAME_LENGTH = 60


@click.command(short_help="List or count requests.")
@selection_options(STATE_NAMES, state_help="Only requests in this state", queue_help="Only requests of this queue.")
@click.option(
    "--since", type=parse_time_bound, metavar="AGE|TIME", help="Only submitted since then: 30m, 2h, 2025-01-31T12:00Z."
)
@click.option("--owner", metavar="NAME", help="Only requests whose results go to this owner.")
@click.option("--reason", metavar="TEXT", help="Only requests whose reason contains TEXT, in upper or lower case.")
@click.option(
    "--label", "labels", multiple=True, metavar="KEY=VALUE", help="Only requests with this label; repeatable: with all."
)
@click.option("--key", metavar="KEY", help="Only requests with this concurrency key.")
@click.option("--limit", type=count(1), help="Maximum number to list.  [50; with --json no limit]")
@click.option("--counts", is_flag=True, help="Count all selected requests by queue and state instead.")
@click.option("--reveal", is_flag=True, help="Also show the beginning of each command that has not ended.")
@watch_option
@command_options
def tasks(
    options: SharedOptions,
    /,
    states: Sequence[str],
    limit: int | None,
    counts: bool,
    reveal: bool,
    watch: float | None,
    as_json: bool,
    **filters: Any,
) -> int:
    """List requests: first the live ones, newest first, then the ended ones, the last ends first.

    Where more than 1,000 results wait to be confirmed by their owners, or with --json without --limit, ended requests
    come as the ledger lists them: those results stand before the others.

    Labels stand beside the id; a task of Airflow whose request has them (`airflow_labels`) is DAG/TASK/RUN. A command
    may hold secrets, so its beginning is shown only with --reveal, and only until the request has ended, because the
    ledger erases it then.

    --counts reads every record of the ledger. `ecs-queue status` counts without reading them, but cannot filter.

    \b
    Examples:
      ecs-queue tasks --state launched
      ecs-queue tasks --state failed --state removed --queue etl --since 2h --limit 200
      ecs-queue tasks --label team=data --state failed
      ecs-queue tasks --key customer-7 --state queued
      ecs-queue tasks --reason CannotPull --since 1d --counts
      ecs-queue tasks --json | jq -r 'select(.exit_code == 137) | .id'
    """
    options.configure_logging()
    if reveal and (counts or as_json):
        raise UsageError("tasks: --reveal is for the list that people read, not for --counts or --json")
    filters["labels"] = parse_labels(filters["labels"]) or None
    is_filtered = bool(states) or any(value is not None for value in filters.values())
    since: TimeBound | None = filters.pop("since")
    with open_client(options) as client:

        def show() -> None:
            moment = None if since is None else since.moment()
            find = partial(client.tasks, states=states, since=moment, **filters)
            is_empty = False
            if counts:
                is_empty = not _print_counts(find(), as_json, is_filtered=is_filtered)
            elif as_json:
                _print_json_records(find(limit=None if limit is None else limit + 1), limit)
            else:
                is_empty = not _print_page(client, find, limit or _DEFAULT_LIMIT, reveal, is_filtered=is_filtered)
            if is_empty and filters["queue"] is not None:
                warn_unserved_queues(client, [filters["queue"]], expects_launch=False)

        return show_repeatedly(watch, as_json, show)


def _print_json_records(records: Iterator[Record], limit: int | None) -> None:
    """Print the first `limit` records, and a sentence if there is one more."""
    for record in itertools.islice(records, limit):
        print_json(record_to_dict(record))
    if limit is not None and next(records, None) is not None:
        print_stderr(_cut_message(limit))


def _print_page(
    client: EcsQueue, find: Callable[..., Iterator[Record]], limit: int, reveal: bool, *, is_filtered: bool
) -> int:
    """Print the first `limit` requests as a table, and a sentence if there are more; return how many were found."""
    now = client.ledger.now()
    records = list(itertools.islice(find(limit=limit + 1), limit + 1))
    commands = _read_commands(client, records) if reveal else ()
    _print_records(records, limit, now, commands, is_filtered=is_filtered)
    return len(records)


def _print_records(
    records: Sequence[Record], limit: int, now: float, commands: Sequence[str] = (), *, is_filtered: bool = True
) -> None:
    if not records:
        print_stderr("no such requests" if is_filtered else "no requests")
        return
    texts = commands or [""] * len(records)
    rows = [_row(record, command, now) for record, command in zip(records[:limit], texts, strict=False)]
    unused = {position for position in (1, 2) if not any(row[position] for row in rows)}
    headers, *shown = [[cell for at, cell in enumerate(row) if at not in unused] for row in (_HEADERS, *rows)]
    if fits_terminal(headers, shown):
        print_table(headers, shown)
    else:
        for row in rows:
            _print_block(row)
    if len(records) > limit:
        print_stderr(_cut_message(limit))


def _cut_message(limit: int) -> str:
    return f"the newest {limit}, there are more: --limit shows and --counts counts them"


def _print_counts(records: Iterator[Record], as_json: bool, *, is_filtered: bool = True) -> int:
    """Print the number of requests by queue and state; return the number of queues."""
    queues: dict[str, Counter[str]] = {}
    for record in records:
        queues.setdefault(record.queue, Counter())[record.state.value] += 1
    if as_json:
        for name, states in sorted(queues.items()):
            every = {state: states[state] for state in STATE_NAMES}
            print_json({"queue": name, "requests": states.total(), "states": every})
        return len(queues)
    if not queues:
        print_stderr("no such requests" if is_filtered else "no requests")
        return 0
    lines = [(name or "(none)", states) for name, states in sorted(queues.items())]
    everything = sum(queues.values(), Counter[str]())
    if len(lines) > 1:
        lines.append(("all", everything))
    shown = [state for state in STATE_NAMES if everything[state]]
    rows = [[name, str(states.total()), *(str(states[state]) for state in shown)] for name, states in lines]
    print_table(("queue", "requests", *shown), rows)
    return len(queues)


def _print_block(row: Sequence[str]) -> None:
    """Print a request on a narrow terminal, with its id unbroken so that it can be copied."""
    record_id, name, command, state, queue, attempts, exit_code, age, ran, reason = row
    write_stdout(f"{sanitize(record_id)}  {style(state, fg=STATE_STYLES.get(state, 'reset'))}")
    optional = [f"{name} {value}" for name, value in (("ran", ran), ("exit", exit_code)) if value]
    facts = [f"queue {queue}", f"queued {age} ago", describe_number(int(attempts), "attempt"), *optional]
    for line in filter(None, (name, command, ", ".join(facts), reason)):
        write_stdout(f"  {wrap_for_terminal(sanitize(line), 2)}")


def _read_commands(client: EcsQueue, records: Sequence[Record]) -> list[str]:
    """Return the beginning of each command; "" after the end, and in brackets why one cannot be read.

    Raises:
        MissingRight: The user of the server may not read payloads.
    """
    ids = [record.id for record in records]
    parts = (ids[start : start + PAGE_SIZE] for start in range(0, len(ids), PAGE_SIZE))
    found = itertools.chain.from_iterable(map(client.ledger.get_with_payload, parts))
    return [_command_text(record, client.keyring) for record in found]


def _command_text(record: Record | None, keyring: Keyring) -> str:
    from ecs_queue.messages.envelope import decode_record_request

    if record is None or not record.request:
        return ""
    try:
        command = shlex.join(decode_record_request(record, keyring).command)
    except EcsQueueError as error:
        return f"({truncate(str(error), _MAX_NAME_LENGTH)})"
    return truncate(sanitize(command), _MAX_NAME_LENGTH)


def _row(record: Record, command: str, now: float) -> list[str]:
    exit_code = "" if record.exit_code is None else str(record.exit_code)
    attempts = str(record.attempts_made)
    times = (format_duration(now - record.created_at), format_run_time(record, now))
    # On a terminal a reason that only repeats the exit code would take the room of the others.
    is_routine = is_terminal() and ran_to_exit(record.state.value, record.exit_code)
    reason = "" if is_routine else truncate(record.reason, 60)
    if not record.is_terminal and record.delayed_until > now:
        reason = f"delayed for {format_duration(record.delayed_until - now)} more"
    name = truncate(name_by_labels(record), _MAX_NAME_LENGTH)
    return [record.id, name, command, record.state.value, record.queue, attempts, exit_code, *times, reason]
