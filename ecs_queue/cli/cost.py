"""`cost`: what tasks used, from the journal, and what they cost by the configured prices."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from ecs_queue.cli.ui.durations import TimeBound, parse_time_bound
from ecs_queue.cli.ui.options import SharedOptions, command_options, load_shared_config, open_journal_reader
from ecs_queue.cli.ui.output import describe_number, print_json, print_stderr, print_table

if TYPE_CHECKING:
    from ecs_queue.config import Config
    from ecs_queue.journal.cost import CostRow, CostTotals

#: With --since, how long before it what runners did is read: their idle time needs each of their commands.
_RUNNER_SECONDS = 86400.0
_HEADERS = ("capacity", "use", "tasks", "vCPU-seconds", "GB-seconds", "cost")


def _parse_by(text: str) -> str:
    if text == "dag":
        return "label:dag_id"
    if text == "queue" or (text.startswith("label:") and len(text) > len("label:")):
        return text
    raise click.BadParameter(f"expected queue, dag or label:KEY, found {text!r}")


@click.command(short_help="Show what tasks used and cost.")
@click.option(
    "--by",
    type=_parse_by,
    default="queue",
    show_default=True,
    metavar="WHAT",
    help="Group by queue, by dag (the label dag_id), or by label:KEY.",
)
@click.option(
    "--since",
    type=parse_time_bound,
    metavar="WHEN",
    help="Only tasks whose end was seen since then: 2h, 7d, or 2025-01-31T12:00:00Z.  [all that the journal keeps]",
)
@command_options
def cost(options: SharedOptions, /, by: str, since: TimeBound | None, as_json: bool) -> None:
    """Show vCPU-seconds and GB-seconds of the tasks that have ended, from the journal.

    A task counts from the start of its image's pull to its end, as Fargate bills it: rounded up to a second, a minute
    at least. Money is shown for Fargate and Fargate Spot, by the key `prices` of [ecs_queue]; there are no prices
    without it. The row `idle` is time of warm pools' runners without a command. stderr says what is not counted.
    Reading the journal needs the rights of an operator.

    \b
    Examples:
      ecs-queue cost --since 7d
      ecs-queue cost --by label:team
      ecs-queue cost --by dag --json | jq -s 'map(.cost // 0) | add'
    """
    import msgspec

    from ecs_queue.journal.cost import EVENT_NAMES, CostMeter
    from ecs_queue.journal.selection import EventFilter, select_events

    options.configure_logging()
    config = load_shared_config(options)
    with open_journal_reader(config) as reader:
        start = None if since is None else since.resolve(reader.now())
        meter = CostMeter(by, start or 0.0)
        for event in select_events(reader, EventFilter(names=EVENT_NAMES), find_reading_start(config, start)):
            meter.add(event)
    totals = meter.totals(config.prices or ())
    if as_json:
        for row in totals.rows:
            print_json(msgspec.to_builtins(row))
    elif totals.rows:
        print_table((by.removeprefix("label:"), *_HEADERS), [_cells(row) for row in totals.rows])
        if not config.prices:
            print_stderr("no cost: `prices` of [ecs_queue] are not set")
    _print_gaps(totals)
    if not (totals.rows or totals.without_end or totals.unusable):
        print_stderr("the journal has no end of a task in this time; workers write it unless `journal` is off")


def find_reading_start(config: Config, since: float | None) -> float | None:
    """Return from when on events are read, to count the ends since then: with warm pools from earlier on."""
    has_runners = any(profile.warm_seconds for profile in config.profiles())
    return max(0.0, since - _RUNNER_SECONDS) if since is not None and has_runners else since


def _cells(row: CostRow) -> list[str]:
    money = "-" if row.cost is None else f"{row.cost:.4f}"
    used = (f"{row.vcpu_seconds:.0f}", f"{row.gb_seconds:.0f}")
    return [row.group or "-", row.capacity, row.use, str(row.tasks), *used, money]


def _print_gaps(totals: CostTotals) -> None:
    """Say on stderr what the rows leave out."""
    if totals.without_end:
        number = describe_number(totals.without_end, "task")
        print_stderr(f"{number} not counted, still running or not seen to end: the journal has no end")
    if totals.unusable:
        print_stderr(f"{describe_number(totals.unusable, 'task')} not counted: ECS gave no size or no times")
    if totals.idle_unknown:
        number = describe_number(totals.idle_unknown, "runner")
        print_stderr(f"the idle time of {number} is in the row run: the journal does not have all their commands")
    if totals.unverified:
        print_stderr(f"{describe_number(totals.unverified, 'end')} NOT VERIFIED: no signing key wrote them")
