"""`tasks`: lists and counts requests."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import click

from ecs_queue.cli.ui.completion import complete_queue
from ecs_queue.cli.ui.durations import TimeBound, format_duration, parse_time_bound
from ecs_queue.cli.ui.labels import parse_labels
from ecs_queue.cli.ui.numbers import count
from ecs_queue.cli.ui.options import SharedOptions, command_options, open_client, queue_name
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
from ecs_queue.cli.ui.records import STATE_NAMES
from ecs_queue.cli.ui.watch import show_repeatedly, watch_option

if TYPE_CHECKING:
    from ecs_queue.protocol.record import Record

#: How many requests people see unless --limit says more. A list for a program is never cut without --limit.
_DEFAULT_LIMIT = 50
_HEADERS = ("id", "state", "queue", "attempts", "exit", "age", "run time", "reason")


@click.command(short_help="List or count requests.")
@click.option(
    "--state",
    "states",
    multiple=True,
    type=click.Choice(STATE_NAMES, case_sensitive=False),
    metavar="STATE",
    help=f"Only requests in this state, in upper or lower case; repeatable. {', '.join(STATE_NAMES)}.",
)
@click.option(
    "--queue", type=queue_name, shell_complete=complete_queue, metavar="NAME", help="Only requests of this queue."
)
@click.option(
    "--since", type=parse_time_bound, metavar="AGE|TIME", help="Only submitted since then: 30m, 2h, 2025-01-31T12:00Z."
)
@click.option("--owner", metavar="NAME", help="Only requests whose results go to this owner.")
@click.option("--reason", metavar="TEXT", help="Only requests whose reason contains TEXT, in upper or lower case.")
@click.option(
    "--label", "labels", multiple=True, metavar="KEY=VALUE", help="Only requests with this label; repeatable: with all."
)
@click.option("--limit", type=count(1), help="Maximum number to list.  [50; with --json no limit]")
@click.option("--counts", is_flag=True, help="Count all selected requests by queue and state instead.")
@watch_option
@command_options
def tasks(
    options: SharedOptions,
    /,
    states: Sequence[str],
    limit: int | None,
    counts: bool,
    watch: float | None,
    as_json: bool,
    **filters: Any,
) -> int:
    """List requests: first the live ones, then the ended ones, each newest first.

    --counts reads every record of the ledger. `ecs-queue status` counts without reading them, but cannot filter.

    \b
    Examples:
      ecs-queue tasks --state launched
      ecs-queue tasks --state failed --state removed --queue etl --since 2h --limit 200
      ecs-queue tasks --label team=data --state failed
      ecs-queue tasks --reason CannotPull --since 1d --counts
      ecs-queue tasks --json | jq -r 'select(.exit_code == 137) | .id'
    """
    options.configure_logging()
    filters["labels"] = parse_labels(filters["labels"]) or None
    is_filtered = bool(states) or any(value is not None for value in filters.values())
    since: TimeBound | None = filters.pop("since")
    with open_client(options) as client:

        def show() -> None:
            now = client.ledger.now()
            # One more than is shown says whether there are more; without JSON 50 are shown by default.
            shown = limit if as_json else limit or _DEFAULT_LIMIT
            most = None if counts or shown is None else shown + 1
            found = client.tasks(states=states, since=None if since is None else since.moment(), limit=most, **filters)
            if counts:
                _print_counts(found, as_json, is_filtered=is_filtered)
            elif as_json:
                for record in itertools.islice(found, limit):
                    print_json(record_to_dict(record))
                if limit is not None and next(found, None) is not None:
                    print_stderr(_cut_message(limit))
            else:
                page = limit or _DEFAULT_LIMIT
                _print_records(list(itertools.islice(found, page + 1)), page, now, is_filtered=is_filtered)

        return show_repeatedly(watch, as_json, show)


def _print_records(records: Sequence[Record], limit: int, now: float, *, is_filtered: bool = True) -> None:
    if not records:
        print_stderr("no such requests" if is_filtered else "no requests")
        return
    rows = [_row(record, now) for record in records[:limit]]
    if fits_terminal(_HEADERS, rows):
        print_table(_HEADERS, rows)
    else:
        for row in rows:
            _print_block(row)
    if len(records) > limit:
        print_stderr(_cut_message(limit))


def _cut_message(limit: int) -> str:
    return f"the newest {limit}, there are more: --limit shows and --counts counts them"


def _print_counts(records: Iterator[Record], as_json: bool, *, is_filtered: bool = True) -> None:
    queues: dict[str, Counter[str]] = {}
    for record in records:
        queues.setdefault(record.queue, Counter())[record.state.value] += 1
    if as_json:
        for name, states in sorted(queues.items()):
            every = {state: states[state] for state in STATE_NAMES}
            print_json({"queue": name, "requests": states.total(), "states": every})
        return
    if not queues:
        print_stderr("no such requests" if is_filtered else "no requests")
        return
    lines = [(name or "(none)", states) for name, states in sorted(queues.items())]
    everything = sum(queues.values(), Counter[str]())
    if len(lines) > 1:
        lines.append(("all", everything))
    shown = [state for state in STATE_NAMES if everything[state]]
    rows = [[name, str(states.total()), *(str(states[state]) for state in shown)] for name, states in lines]
    print_table(("queue", "requests", *shown), rows)


def _print_block(row: Sequence[str]) -> None:
    """Print a request on a narrow terminal, with its id unbroken so that it can be copied."""
    record_id, state, queue, attempts, exit_code, age, ran, reason = row
    write_stdout(f"{sanitize(record_id)}  {style(state, fg=STATE_STYLES.get(state, 'reset'))}")
    optional = [f"{name} {value}" for name, value in (("ran", ran), ("exit", exit_code)) if value]
    facts = [f"queue {queue}", f"queued {age} ago", describe_number(int(attempts), "attempt"), *optional]
    for line in filter(None, (", ".join(facts), reason)):
        write_stdout(f"  {wrap_for_terminal(sanitize(line), 2)}")


def _row(record: Record, now: float) -> list[str]:
    exit_code = "" if record.exit_code is None else str(record.exit_code)
    attempts = str(record.attempts_made)
    times = (format_duration(now - record.created_at), format_run_time(record, now))
    # On a terminal a reason that only repeats the exit code would take the room of the others.
    is_routine = is_terminal() and ran_to_exit(record.state.value, record.exit_code)
    reason = "" if is_routine else truncate(record.reason, 60)
    if not record.is_terminal and record.delayed_until > now:
        reason = f"delayed for {format_duration(record.delayed_until - now)} more"
    return [record.id, record.state.value, record.queue, attempts, exit_code, *times, reason]
