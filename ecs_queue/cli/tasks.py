"""`tasks`: requests, filtered, listed and counted."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from ecs_queue.cli.status import STATE_NAMES, iter_records
from ecs_queue.cli.ui.durations import TimeBound, parse_time_bound
from ecs_queue.cli.ui.options import SharedOptions, json_option, open_client, pass_options, shared_options
from ecs_queue.cli.ui.output import (
    STATE_STYLES,
    fits_terminal,
    is_terminal,
    print_json,
    print_stderr,
    print_table,
    sanitize,
    truncate,
)
from ecs_queue.cli.ui.record_view import format_age, format_run_time, ran_to_exit, record_to_dict

if TYPE_CHECKING:
    from ecs_queue.protocol.record import Record

_PAGE_SIZE = 500
_HEADERS = ("id", "state", "queue", "attempts", "exit", "age", "run time", "reason")
#: Columns that a reason needs to be readable.
_MIN_REASON_WIDTH = 16


@dataclass(frozen=True)
class TaskFilter:
    """Which requests are meant; what is None or empty leaves none out."""

    states: frozenset[str] = frozenset()
    queue: str | None = None
    since: TimeBound | None = None
    owner: str | None = None
    reason: str | None = None

    def matches(self, record: Record, now: float) -> bool:
        """Whether it is meant. `now`: the ledger's clock."""
        return (
            (not self.states or record.state.value in self.states)
            and self.queue in (None, record.queue)
            and (self.since is None or record.created_at >= self.since.resolve(now))
            and self.owner in (None, record.owner)
            and (self.reason is None or self.reason.lower() in record.reason.lower())
        )


@click.command(short_help="List requests, newest first.")
@click.option(
    "--state",
    "states",
    multiple=True,
    type=click.Choice(STATE_NAMES, case_sensitive=False),
    metavar="STATE",
    help=f"Only requests in this state, any case; may be repeated. {', '.join(STATE_NAMES)}.",
)
@click.option("--queue", metavar="NAME", help="Only requests of this queue.")
@click.option(
    "--since", type=parse_time_bound, metavar="AGE|TIME", help="Only those submitted since: 30m, 2h, 2025-01-31T12:00Z."
)
@click.option("--owner", metavar="NAME", help="Only requests whose results go to this owner.")
@click.option("--reason", metavar="TEXT", help="Only requests whose reason has this in it, in any case.")
@click.option("--limit", type=click.IntRange(1), default=50, show_default=True, help="At most so many.")
@click.option("--counts", is_flag=True, help="Count all of them by queue and state instead of listing.")
@json_option
@shared_options
@pass_options
def tasks(
    options: SharedOptions, /, states: Sequence[str], limit: int, counts: bool, as_json: bool, **given: Any
) -> None:
    """List requests, newest first: those that are live, then those that have ended.

    --counts reads every record that the ledger has, `status` counts without that; only the one can filter.

    \b
    Examples:
      ecs-queue tasks --state launched
      ecs-queue tasks --state failed --state removed --queue etl --since 2h --limit 200
      ecs-queue tasks --reason CannotPull --since 1d --counts
      ecs-queue tasks --json | jq -r 'select(.exit_code == 137) | .id'
    """
    options.configure_logging()
    wanted = TaskFilter(states=frozenset(state.upper() for state in states), **given)
    with open_client(options) as client:
        now = client.ledger.now()
        page = _PAGE_SIZE if counts else min(limit + 1, _PAGE_SIZE)
        found = iter_records(client.ledger, lambda record: wanted.matches(record, now), page)
        if counts:
            _print_counts(found, as_json)
        elif as_json:
            for record in itertools.islice(found, limit):
                print_json(record_to_dict(record))
        else:
            _print_records(list(itertools.islice(found, limit + 1)), limit, now)


def _print_records(records: Sequence[Record], limit: int, now: float) -> None:
    if not records:
        print_stderr("no such requests")
        return
    rows = [_row(record, now) for record in records[:limit]]
    if is_terminal():
        rows = [_without_routine_reason(record, row) for record, row in zip(records, rows, strict=False)]
    reasons = _MIN_REASON_WIDTH if any(row[-1] for row in rows) else 0
    if fits_terminal(_HEADERS, [row[:-1] for row in rows], reasons):
        print_table(_HEADERS, rows)
    else:
        for row in rows:
            _print_block(row)
    if len(records) > limit:
        print_stderr(f"the newest {limit}, there are more: --limit shows and --counts counts them")


def _print_counts(records: Iterator[Record], as_json: bool) -> None:
    queues: dict[str, Counter[str]] = {}
    for record in records:
        queues.setdefault(record.queue, Counter())[record.state.value] += 1
    if as_json:
        for name, states in sorted(queues.items()):
            every = {state: states[state] for state in STATE_NAMES}
            print_json({"queue": name, "requests": states.total(), "states": every})
        return
    shown = [state for state in STATE_NAMES if any(states[state] for states in queues.values())]
    rows = [
        [name or "(none)", str(states.total()), *(str(states[state]) for state in shown)]
        for name, states in sorted(queues.items())
    ]
    if len(rows) > 1:
        everything = sum(queues.values(), Counter[str]())
        rows.append(["all", str(everything.total()), *(str(everything[state]) for state in shown)])
    if rows:
        print_table(("queue", "requests", *shown), rows)
    else:
        print_stderr("no such requests")


def _print_block(row: Sequence[str]) -> None:
    """A request on a narrow terminal: an id that is broken in two cannot be copied."""
    record_id, state, queue, attempts, exit_code, age, ran, reason = row
    click.echo(f"{sanitize(record_id)}  {click.style(state, fg=STATE_STYLES.get(state))}  {sanitize(queue)}")
    words = [
        f"queued {age} ago",
        f"attempt {attempts}",
        f"ran {ran}" if ran else "",
        f"exit {exit_code}" if exit_code else "",
    ]
    for line in (", ".join(filter(None, words)), reason):
        if line:
            click.echo(f"  {sanitize(line)}")


def _without_routine_reason(record: Record, row: list[str]) -> list[str]:
    """Where the exit code says it all, the reason only takes room."""
    return [*row[:-1], ""] if ran_to_exit(record.state.value, record.exit_code) else row


def _row(record: Record, now: float) -> list[str]:
    exit_code = "" if record.exit_code is None else str(record.exit_code)
    attempts = str(record.attempts if record.is_terminal else record.attempt)
    times = (format_age(record, now), format_run_time(record, now))
    reason = truncate(record.reason, 60)
    return [record.id, record.state.value, record.queue, attempts, exit_code, *times, reason]
