"""`journal`: shows, follows, exports and imports the journal."""

from __future__ import annotations

import itertools
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

import click

from ecs_queue.cli.ui.durations import TimeBound, format_timestamp_ms, parse_time_bound
from ecs_queue.cli.ui.event_view import format_event_fields, print_event
from ecs_queue.cli.ui.exit_status import EXIT_FAILURE
from ecs_queue.cli.ui.options import (
    OrderedGroup,
    SharedOptions,
    command_options,
    load_shared_config,
    open_journal_reader,
    shared_options,
)
from ecs_queue.cli.ui.output import STDIO, open_output, print_json, print_stderr, print_table, write_stdout
from ecs_queue.errors import UsageError

if TYPE_CHECKING:
    from ecs_queue.journal import JournalEvent, RedisJournal

#: How long one read of `tail -f` blocks, and so Ctrl-C at most. Seconds.
_READ_TIMEOUT_SECONDS = 1.0
#: Where `tail -f` starts in an empty journal.
_FIRST_POSITION = "0-0.0"


@click.group(cls=OrderedGroup, short_help="Show, follow and export the journal.")
@shared_options
def journal() -> None:
    """Work with the journal: every envelope, decision and answer of ECS as events.

    Workers and clients write it beside the ledger (configuration: journal, journal_megabytes,
    journal_retention_seconds). They replace passwords, tokens and the like by [redacted] before they write.

    \b
    Examples:
      ecs-queue journal show nightly-etl
      ecs-queue journal tail -f --event 'launch.*'
      ecs-queue journal export --since 2h -o journal.jsonl
    """


@journal.command(short_help="Show the events of one request.")
@click.argument("id")
@click.option("--envelope", is_flag=True, help="Only print the request itself, as JSON.")
@command_options
def show(options: SharedOptions, /, id: str, envelope: bool, as_json: bool) -> int:
    """Show the events of one request, in the order in which they happened.

    With --json each event is an object on a line of its own, as `journal export` writes it: v, seq, at (seconds since
    the epoch by the server's clock), name, id, worker, data.

    \b
    Examples:
      ecs-queue journal show nightly-etl
      ecs-queue journal show nightly-etl --json | jq 'select(.name == "decision.run_task") | .data.result'
      ecs-queue journal show nightly-etl --envelope

    Exit status: 1 when the journal has no such request.
    """
    from ecs_queue.journal.base import newest_envelope

    options.configure_logging()
    with open_journal_reader(load_shared_config(options)) as reader:
        events = list(reader.request_events(id))
        if not events:
            cause = _empty_message(reader, "it was never submitted, or the journal has dropped it since")
            print_stderr(f"the journal has no request {id}: {cause}")
            return EXIT_FAILURE
    if envelope:
        return _print_envelope(id, newest_envelope(events))
    if as_json:
        for event in events:
            print_event(event, as_json)
        return 0
    first = events[0].at
    rows = [
        (format_timestamp_ms(e.at), f"{e.at - first:.3f} s", e.name, e.worker or "-", format_event_fields(e))
        for e in events
    ]
    print_table(("AT", "AFTER", "EVENT", "WORKER", "WHAT"), rows)
    return 0


@journal.command(short_help="Show the newest events; -f follows.")
@click.option("-f", "--follow", is_flag=True, help="Also print new events as they are written, until Ctrl-C.")
@click.option(
    "-n", "--lines", type=click.IntRange(0), default=20, show_default=True, help="How many events to begin with."
)
@click.option("--id", "ids", multiple=True, metavar="ID", help="Only events of this request; repeatable.")
@click.option(
    "--event", "names", multiple=True, metavar="NAME", help="Only events of this name; repeatable. * is any text."
)
@click.option("--worker", metavar="NAME", help="Only events that this worker wrote.")
@command_options
def tail(options: SharedOptions, /, follow: bool, lines: int, as_json: bool, **filters: Any) -> int:
    """Show the newest events, and with -f also the events that follow.

    \b
    Examples:
      ecs-queue journal tail
      ecs-queue journal tail -f --event 'launch.*' --event request.ended
      ecs-queue journal tail -f -n 0 --json | jq -c 'select(.data.state == "FAILED")'

    Exit status: 1 when the journal is empty; 130 after Ctrl-C.
    """
    options.configure_logging()
    event_filter = _EventFilter(frozenset(filters["ids"]), filters["names"], filters["worker"])
    with open_journal_reader(load_shared_config(options)) as reader:
        newest = reader.last_seq()
        if not newest and not follow:
            print_stderr(_empty_message(reader, "the journal is empty"))
            return EXIT_FAILURE
        for event in _read_newest(reader, event_filter, lines, newest):
            print_event(event, as_json)
        newest = newest or _FIRST_POSITION
        while follow:
            for event in reader.tail(newest, _READ_TIMEOUT_SECONDS):
                newest = event.seq
                if event_filter.matches(event):
                    print_event(event, as_json)
    return 0


@journal.command(short_help="Write the journal as JSON lines.")
@click.option("-o", "--output", default=STDIO, metavar="FILE", help="File to write; - is stdout, the default.")
@click.option(
    "--since", type=parse_time_bound, metavar="WHEN", help="Only events since then: 2h, 7d, or 2025-01-31T12:00:00Z."
)
@click.option("--until", type=parse_time_bound, metavar="WHEN", help="Only events until then.")
@click.option("--id", "ids", multiple=True, metavar="ID", help="Only events of this request; repeatable.")
@command_options
def export(
    options: SharedOptions, /, output: str, ids: tuple[str, ...], as_json: bool, **times: TimeBound | None
) -> int:
    """Write the journal as JSON lines, one event a line: for `replay FILE`, `journal import`, or your own tools.

    stderr says how many events were written; with --json and FILE an object on stdout does.

    \b
    Examples:
      ecs-queue journal export -o journal.jsonl
      ecs-queue journal export --since 30m | jq -r 'select(.name == "request.ended") | .data.state'
      ecs-queue journal export --id nightly-etl -o incident.jsonl

    Exit status: 1 when there was nothing to write.
    """
    from ecs_queue.journal.jsonl import write_events

    options.configure_logging()
    with open_journal_reader(load_shared_config(options)) as reader:
        now = reader.now()
        start, end = (None if bound is None else bound.resolve(now) for bound in (times["since"], times["until"]))
        chosen = [reader.request_events(id, start, end) for id in dict.fromkeys(ids)] or [reader.all_events(start, end)]
        with open_output(output, "nothing was exported") as sink:
            number = write_events(itertools.chain.from_iterable(chosen), sink)
        if not number:
            print_stderr(_empty_message(reader, "there are no such events"))
            return EXIT_FAILURE
    if as_json and output != STDIO:
        print_json({"events": number, "file": output})
    else:
        print_stderr(f"{number} events" if output == STDIO else f"{number} events in {output}")
    return 0


@journal.command("import", short_help="Import an exported file.")
@click.argument("file", metavar="FILE")
@click.option("--append", is_flag=True, help="Import into a namespace whose journal has events already.")
@command_options
def import_events(options: SharedOptions, /, file: str, append: bool, as_json: bool) -> None:
    """Import an exported journal into the journal of a namespace, to read it there.

    Each event keeps its time and its worker, and gets a new seq. An incomplete last line is skipped; nothing is
    imported when any other line is no event. Use a namespace of its own: without --append nothing is imported
    into a journal that has events already.

    \b
    Examples:
      ecs-queue journal import incident.jsonl --namespace incident
      ecs-queue journal show nightly-etl --namespace incident
    """
    from ecs_queue.journal.jsonl import import_events, read_events

    options.configure_logging()
    config = load_shared_config(options)
    events = list(read_events(file, print_stderr))  # checks all lines before the first is written
    with open_journal_reader(config) as reader:
        if reader.last_seq() and not append:
            raise UsageError(
                f"the journal of namespace {config.namespace} has events already: import into a namespace of its own "
                "(--namespace NAME), or give --append; nothing was imported"
            )
        import_events(events, reader)
    if as_json:
        print_json({"events": len(events), "namespace": config.namespace})
    else:
        print_stderr(f"{len(events)} events imported into namespace {config.namespace}")


class _EventFilter:
    """Selects events for `tail`. An empty filter selects all."""

    def __init__(self, ids: frozenset[str], names: tuple[str, ...], worker: str | None) -> None:
        self._ids, self._names, self._worker = ids, names, worker

    def matches(self, event: JournalEvent) -> bool:
        return (
            (not self._ids or event.id in self._ids)
            and (not self._names or any(fnmatchcase(event.name, name) for name in self._names))
            and (self._worker is None or event.worker == self._worker)
        )


def _read_newest(reader: RedisJournal, event_filter: _EventFilter, number: int, last: str) -> list[JournalEvent]:
    """Return the newest selected events up to `last`, oldest first, reading pages from the end."""
    from ecs_queue.journal.base import seq_sort_key

    newest: list[JournalEvent] = []
    for page in reader.pages_newest_first():
        if len(newest) >= number:
            break
        newest = [*(e for e in page if event_filter.matches(e) and seq_sort_key(e.seq) <= seq_sort_key(last)), *newest]
    return newest[max(0, len(newest) - number) :]


def _print_envelope(id: str, envelope: bytes | None) -> int:
    if envelope is None:
        print_stderr(
            f"the journal has events of {id}, but not its envelope: it was dropped, or its client writes no journal"
        )
        return EXIT_FAILURE
    write_stdout(envelope)
    return 0


def _empty_message(reader: RedisJournal, otherwise: str) -> str:
    """Explain why nothing was found: `otherwise`, unless the journal is empty."""
    if reader.last_seq():
        return otherwise
    return "the journal is empty; workers write it unless `journal` is off (`ecs-queue config` shows it)"
