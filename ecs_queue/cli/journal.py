"""`journal`: every envelope, decision and answer as events; look at them, follow them, take them away."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from fnmatch import fnmatchcase
from typing import IO, TYPE_CHECKING, Any

import click

from ecs_queue.cli.ui.durations import TimeBound, parse_time_bound
from ecs_queue.cli.ui.event_view import format_event_fields, format_timestamp_ms, print_event
from ecs_queue.cli.ui.options import (
    OrderedGroup,
    SharedOptions,
    json_option,
    load_shared_config,
    pass_options,
    shared_options,
)
from ecs_queue.cli.ui.output import print_json, print_stderr, print_table
from ecs_queue.errors import UsageError

if TYPE_CHECKING:
    from ecs_queue.journal import JournalEvent, RedisJournal

EXIT_NOT_FOUND = 1
STDOUT = "-"
#: How long one read of `tail -f` waits: as long as Ctrl-C may have to. Seconds.
_READ_TIMEOUT_SECONDS = 1.0
#: What `tail -f` follows from when nothing has been written yet.
_FIRST_POSITION = "0-0.0"


@contextmanager
def open_journal_reader(options: SharedOptions) -> Iterator[RedisJournal]:
    """The journal by the configuration, closed at the end."""
    from ecs_queue.journal import open_journal

    with closing(open_journal(load_shared_config(options))) as found:
        yield found


@click.group(cls=OrderedGroup, short_help="Every decision and answer: look, follow, export.")
@shared_options
def journal() -> None:
    """Look at the journal: every envelope, decision and ECS answer, event by event.

    Workers and clients write it beside the ledger (configuration: journal, journal_megabytes,
    journal_retention_seconds). Passwords, tokens and the like are replaced by [redacted] before they get there.

    \b
    Examples:
      ecs-queue journal show nightly-etl
      ecs-queue journal tail -f --event 'launch.*'
      ecs-queue journal export --since 2h -o journal.jsonl
    """


@journal.command(short_help="The events of one request.")
@click.argument("id")
@click.option("--envelope", is_flag=True, help="Only the request itself, as JSON.")
@json_option
@shared_options
@pass_options
def show(options: SharedOptions, /, id: str, envelope: bool, as_json: bool) -> int:
    """Show the events of one request, in the order in which they happened.

    With --json each event is an object on a line of its own, as `journal export` writes it: v, seq, at (seconds since
    the epoch, server's clock), name, id, worker, data.

    \b
    Examples:
      ecs-queue journal show nightly-etl
      ecs-queue journal show nightly-etl --json | jq 'select(.name == "decision.run_task") | .data.answer'
      ecs-queue journal show nightly-etl --envelope

    Exit status: 1 when the journal has no such request.
    """
    from ecs_queue.journal.base import newest_envelope

    options.configure_logging()
    with open_journal_reader(options) as found:
        events = list(found.request_events(id))
        if not events:
            cause = _empty_message(found, "it was never submitted, or was dropped since")
            print_stderr(f"the journal has no request {id}: {cause}")
            return EXIT_NOT_FOUND
        if envelope:
            return _print_envelope(id, newest_envelope(events))
    if as_json:
        for event in events:
            print_json(_event_to_dict(event))
        return 0
    first = events[0].at
    print_table(
        ("AT", "AFTER", "EVENT", "WORKER", "WHAT"),
        [
            (format_timestamp_ms(e.at), f"{e.at - first:.3f} s", e.name, e.worker or "-", format_event_fields(e))
            for e in events
        ],
    )
    return 0


@journal.command(short_help="The newest events; -f follows.")
@click.option("-f", "--follow", is_flag=True, help="Go on with what is written from now on, until Ctrl-C.")
@click.option("-n", "--lines", type=click.IntRange(0), default=20, show_default=True, help="Begin with so many.")
@click.option("--id", "ids", multiple=True, metavar="ID", help="Only of this request; may be given again.")
@click.option("--event", "names", multiple=True, metavar="NAME", help="Only of this name; * is anything.")
@click.option("--worker", metavar="NAME", help="Only what this worker wrote.")
@json_option
@shared_options
@pass_options
def tail(options: SharedOptions, /, follow: bool, lines: int, as_json: bool, **given: Any) -> int:
    """Show the newest events, and with -f what comes after them.

    \b
    Examples:
      ecs-queue journal tail
      ecs-queue journal tail -f --event 'launch.*' --event request.ended
      ecs-queue journal tail -f -n 0 --json | jq -c 'select(.data.state == "FAILED")'

    Exit status: 1 when the journal is empty; 130 after Ctrl-C.
    """
    options.configure_logging()
    wanted = _EventFilter(frozenset(given["ids"]), given["names"], given["worker"])
    with open_journal_reader(options) as found:
        newest = found.last_seq()
        if not newest and not follow:
            print_stderr(_empty_message(found, "the journal is empty"))
            return EXIT_NOT_FOUND
        for event in _read_newest(found, wanted, lines, newest):
            print_event(event, as_json)
        newest = newest or _FIRST_POSITION
        while follow:
            for event in found.tail(newest, _READ_TIMEOUT_SECONDS):
                newest = event.seq
                if wanted.matches(event):
                    print_event(event, as_json)
    return 0


@journal.command(short_help="As a file of JSON lines.")
@click.option("-o", "--output", default=STDOUT, metavar="FILE", help="Where to; without it, or with -, stdout.")
@click.option(
    "--since", type=parse_time_bound, metavar="WHEN", help="Only from then on: 2h, 7d, or 2025-01-31T12:00:00Z."
)
@click.option("--until", type=parse_time_bound, metavar="WHEN", help="Only until then.")
@click.option("--id", "ids", multiple=True, metavar="ID", help="Only of this request; may be given again.")
@json_option
@shared_options
@pass_options
def export(
    options: SharedOptions, /, output: str, ids: tuple[str, ...], as_json: bool, **times: TimeBound | None
) -> int:
    """Write the journal as JSON lines, one event a line: for `replay FILE`, `journal import`, or your own tools.

    On stderr it says how many events that were; with --json, as an object on stdout when FILE is given.

    \b
    Examples:
      ecs-queue journal export -o journal.jsonl
      ecs-queue journal export --since 30m | jq -r 'select(.name == "request.ended") | .data.state'
      ecs-queue journal export --id nightly-etl -o incident.jsonl

    Exit status: 1 when there was nothing to write.
    """
    from ecs_queue.journal.jsonl import write_events

    options.configure_logging()
    with open_journal_reader(options) as found:
        now = found.now()
        start, end = (None if moment is None else moment.resolve(now) for moment in (times["since"], times["until"]))
        chosen = [found.request_events(id, start, end) for id in dict.fromkeys(ids)] or [found.all_events(start, end)]
        with _open_output(output) as sink:
            number = write_events(itertools.chain.from_iterable(chosen), sink)
        if not number:
            print_stderr(_empty_message(found, "there are no such events"))
            return EXIT_NOT_FOUND
    if as_json and output != STDOUT:
        print_json({"events": number, "file": output})
    else:
        print_stderr(f"{number} events" if output == STDOUT else f"{number} events in {output}")
    return 0


@journal.command("import", short_help="Read an exported file back.")
@click.argument("file", metavar="FILE")
@click.option("--append", is_flag=True, help="Although the namespace has a journal already.")
@json_option
@shared_options
@pass_options
def import_events(options: SharedOptions, /, file: str, append: bool, as_json: bool) -> None:
    """Read an exported journal into the journal of a namespace, to look at it there.

    Each event keeps its time and its worker, and gets a new place in the order. A last line that was cut is left
    out; any other line that is no event means that nothing is read. Take a namespace of its own for it: without
    --append a journal that has events already is not touched.

    \b
    Examples:
      ecs-queue journal import incident.jsonl --namespace incident
      ecs-queue journal show nightly-etl --namespace incident
    """
    from ecs_queue.journal.jsonl import import_events, read_events

    options.configure_logging()
    config = load_shared_config(options)
    events = list(read_events(file, print_stderr))  # all of it is checked before anything is written
    with open_journal_reader(options) as found:
        if found.last_seq() and not append:
            raise UsageError(
                f"the journal of namespace {config.namespace} has events already: import into a namespace of its own "
                "(--namespace NAME), or give --append; nothing was imported"
            )
        import_events(events, found)
    if as_json:
        print_json({"events": len(events), "namespace": config.namespace})
    else:
        print_stderr(f"{len(events)} events imported into namespace {config.namespace}")


class _EventFilter:
    """What `tail` lets through. Nothing given of a kind: all of it."""

    def __init__(self, ids: frozenset[str], names: tuple[str, ...], worker: str | None) -> None:
        self._ids, self._names, self._worker = ids, names, worker

    def matches(self, event: JournalEvent) -> bool:
        return (
            (not self._ids or event.id in self._ids)
            and (not self._names or any(fnmatchcase(event.name, name) for name in self._names))
            and (self._worker is None or event.worker == self._worker)
        )


def _read_newest(reader: RedisJournal, event_filter: _EventFilter, number: int, last: str) -> list[JournalEvent]:
    """The newest wanted ones up to `last`, oldest first; looked for from the end, page by page."""
    from ecs_queue.journal.base import seq_sort_key

    newest: list[JournalEvent] = []
    for page in reader.pages_newest_first():
        if len(newest) >= number:
            break
        newest = [*(e for e in page if event_filter.matches(e) and seq_sort_key(e.seq) <= seq_sort_key(last)), *newest]
    return newest[len(newest) - number :] if len(newest) > number else newest


def _print_envelope(id: str, envelope: bytes | None) -> int:
    if envelope is None:
        print_stderr(
            f"the journal has events of {id}, but not its envelope: it was dropped since, or its client keeps none"
        )
        return EXIT_NOT_FOUND
    click.echo(envelope)
    return 0


def _event_to_dict(event: JournalEvent) -> dict[str, Any]:
    import msgspec

    built: dict[str, Any] = msgspec.to_builtins(event)
    return built


def _empty_message(reader: RedisJournal, otherwise: str) -> str:
    if reader.last_seq():
        return otherwise
    return "the journal is empty; workers write it unless `journal` is off (`ecs-queue config` shows it)"


@contextmanager
def _open_output(output: str) -> Iterator[IO[bytes]]:
    if output == STDOUT:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    try:
        sink = open(output, "wb")  # noqa: SIM115 - closed below
    except OSError as error:
        raise UsageError(f"--output {output}: {error.strerror}; nothing was exported") from None
    with sink:
        yield sink
