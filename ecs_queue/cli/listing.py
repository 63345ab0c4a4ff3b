"""`tasks`: requests, filtered, listed and counted."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from ecs_queue.cli.ages import Since, since
from ecs_queue.cli.facts import age_of, facts_of, is_usual, run_time_of
from ecs_queue.cli.look import STATES, records_of
from ecs_queue.cli.options import Options, json_option, opened_queue, pass_options, shared_options
from ecs_queue.cli.output import STYLES, clean, fits, is_watched, say, shortened, show_json, show_table

if TYPE_CHECKING:
    from ecs_queue.core.record import Record

_PAGE = 500
_HEADERS = ("id", "state", "queue", "attempts", "exit", "age", "run time", "reason")
#: Columns that a reason needs to be readable.
_LEAST_REASON = 16


@dataclass(frozen=True)
class Wanted:
    """Which requests are meant; what is None or empty leaves none out."""

    states: frozenset[str] = frozenset()
    queue: str | None = None
    since: Since | None = None
    owner: str | None = None
    reason: str | None = None

    def fits(self, record: Record, now: float) -> bool:
        """Whether it is meant. `now`: the ledger's clock."""
        return (
            (not self.states or record.state.value in self.states)
            and self.queue in (None, record.queue)
            and (self.since is None or record.created_at >= self.since.at(now))
            and self.owner in (None, record.owner)
            and (self.reason is None or self.reason.lower() in record.reason.lower())
        )


@click.command(short_help="List requests, newest first.")
@click.option(
    "--state",
    "states",
    multiple=True,
    type=click.Choice(STATES, case_sensitive=False),
    metavar="STATE",
    help=f"Only requests in this state, any case; may be repeated. {', '.join(STATES)}.",
)
@click.option("--queue", metavar="NAME", help="Only requests of this queue.")
@click.option("--since", type=since, metavar="AGE|TIME", help="Only those submitted since: 30m, 2h, 2025-01-31T12:00Z.")
@click.option("--owner", metavar="NAME", help="Only requests whose results go to this owner.")
@click.option("--reason", metavar="TEXT", help="Only requests whose reason has this in it, in any case.")
@click.option("--limit", type=click.IntRange(1), default=50, show_default=True, help="At most so many.")
@click.option("--counts", is_flag=True, help="Count all of them by queue and state instead of listing.")
@json_option
@shared_options
@pass_options
def tasks(options: Options, /, states: Sequence[str], limit: int, counts: bool, as_json: bool, **given: Any) -> None:
    """List requests, newest first: those that are live, then those that have ended.

    --counts reads every record that the ledger has, `status` counts without that; only the one can filter.

    \b
    Examples:
      ecs-queue tasks --state launched
      ecs-queue tasks --state failed --state removed --queue etl --since 2h --limit 200
      ecs-queue tasks --reason CannotPull --since 1d --counts
      ecs-queue tasks --json | jq -r 'select(.exit_code == 137) | .id'
    """
    options.start_logging()
    wanted = Wanted(states=frozenset(state.upper() for state in states), **given)
    with opened_queue(options) as client:
        now = client.ledger.now()
        page = _PAGE if counts else min(limit + 1, _PAGE)
        found = records_of(client.ledger, lambda record: wanted.fits(record, now), page)
        if counts:
            _show_counts(found, as_json)
        elif as_json:
            for record in itertools.islice(found, limit):
                show_json(facts_of(record))
        else:
            _show_list(list(itertools.islice(found, limit + 1)), limit, now)


def _show_list(records: Sequence[Record], limit: int, now: float) -> None:
    if not records:
        say("no such requests")
        return
    rows = [_row(record, now) for record in records[:limit]]
    if is_watched():
        rows = [_without_the_obvious(record, row) for record, row in zip(records, rows, strict=False)]
    reasons = _LEAST_REASON if any(row[-1] for row in rows) else 0
    if fits(_HEADERS, [row[:-1] for row in rows], reasons):
        show_table(_HEADERS, rows)
    else:
        for row in rows:
            _show_block(row)
    if len(records) > limit:
        say(f"the newest {limit}, there are more: --limit shows and --counts counts them")


def _show_counts(found: Iterator[Record], as_json: bool) -> None:
    queues: dict[str, Counter[str]] = {}
    for record in found:
        queues.setdefault(record.queue, Counter())[record.state.value] += 1
    if as_json:
        for name, states in sorted(queues.items()):
            every = {state: states[state] for state in STATES}
            show_json({"queue": name, "requests": states.total(), "states": every})
        return
    shown = [state for state in STATES if any(states[state] for states in queues.values())]
    rows = [
        [name or "(none)", str(states.total()), *(str(states[state]) for state in shown)]
        for name, states in sorted(queues.items())
    ]
    if len(rows) > 1:
        everything = sum(queues.values(), Counter[str]())
        rows.append(["all", str(everything.total()), *(str(everything[state]) for state in shown)])
    if rows:
        show_table(("queue", "requests", *shown), rows)
    else:
        say("no such requests")


def _show_block(row: Sequence[str]) -> None:
    """A request on a narrow terminal: an id that is broken in two cannot be copied."""
    record_id, state, queue, attempts, exit_code, age, ran, reason = row
    click.echo(f"{clean(record_id)}  {click.style(state, fg=STYLES.get(state))}  {clean(queue)}")
    words = [
        f"queued {age} ago",
        f"attempt {attempts}",
        f"ran {ran}" if ran else "",
        f"exit {exit_code}" if exit_code else "",
    ]
    for line in (", ".join(filter(None, words)), reason):
        if line:
            click.echo(f"  {clean(line)}")


def _without_the_obvious(record: Record, row: list[str]) -> list[str]:
    """Where the exit code says it all, the reason only takes room."""
    return [*row[:-1], ""] if is_usual(record.state.value, record.exit_code) else row


def _row(record: Record, now: float) -> list[str]:
    exit_code = "" if record.exit_code is None else str(record.exit_code)
    attempts = str(record.attempts if record.ended else record.attempt)
    times = (age_of(record, now), run_time_of(record, now))
    reason = shortened(record.reason, 60)
    return [record.id, record.state.value, record.queue, attempts, exit_code, *times, reason]
