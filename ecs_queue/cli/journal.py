"""`journal`: shows, follows, exports and imports the journal."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import click

from ecs_queue.cli.ui.durations import TimeBound, format_timestamp_ms, parse_time_bound
from ecs_queue.cli.ui.event_view import format_event_fields, print_event
from ecs_queue.cli.ui.exit_status import EXIT_FAILURE
from ecs_queue.cli.ui.numbers import count
from ecs_queue.cli.ui.options import (
    OrderedGroup,
    SharedOptions,
    command_options,
    load_shared_config,
    open_journal_reader,
    shared_options,
)
from ecs_queue.cli.ui.output import STDIO, print_json, print_stderr, print_table, replace_output, write_stdout
from ecs_queue.errors import UsageError

if TYPE_CHECKING:
    from ecs_queue.config import Config
    from ecs_queue.journal import JournalEvent, RedisJournal


@click.group(cls=OrderedGroup, short_help="Show, follow and export the journal.")
@shared_options
def journal() -> None:
    """Work with the journal: every envelope, decision and answer of ECS as events.

    Workers and clients write it beside the ledger (configuration: journal, journal_megabytes,
    journal_retention_seconds). They replace environment values, passwords, tokens and the like by [redacted] before
    they write (journal_redaction); with encryption_keys, commands and environments are encrypted.

    \b
    Examples:
      ecs-queue journal show nightly-etl
      ecs-queue journal tail -f --event 'launch.*'
      ecs-queue journal export --since 2h -o journal.jsonl
    """


@journal.command(short_help="Show the events of one request.")
@click.argument("id")
@click.option("--envelope", is_flag=True, help="Only print the request itself, as JSON.")
@click.option("--reveal", is_flag=True, help="With --json or --envelope: decrypt encrypted payloads.")
@command_options
def show(options: SharedOptions, /, id: str, envelope: bool, reveal: bool, as_json: bool) -> int:
    """Show the events of one request, in the order in which they happened.

    With --json each event is an object on a line of its own, as `journal export` writes it: v, seq, at (seconds since
    the epoch by the server's clock), name, id, worker, data; where signing_keys are set also verified.

    --json and --envelope show the command and the run_task arguments, without what journal_redaction hides: by default
    the values of environment variables. With encryption_keys they are encrypted, and --reveal shows them whole.

    \b
    Examples:
      ecs-queue journal show nightly-etl
      ecs-queue journal show nightly-etl --json | jq 'select(.name == "decision.run_task") | .data.result'
      ecs-queue journal show nightly-etl --envelope

    Exit status: 1 when the journal has no such request.
    """
    from ecs_queue.journal.base import newest_envelope

    options.configure_logging()
    if reveal and not (as_json or envelope):
        raise UsageError("journal show: --reveal has no effect without --json or --envelope; leave it out")
    config = load_shared_config(options)
    with open_journal_reader(config) as reader:
        events = list(reader.request_events(id))
        if not events:
            cause = _empty_message(reader, "it was never submitted, or the journal has dropped it since")
            print_stderr(f"the journal has no request {id}: {cause}")
            return EXIT_FAILURE
    if reveal:
        events = _reveal(config, events)
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
@click.option("-n", "--lines", type=count(0), default=20, show_default=True, help="How many events to begin with.")
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
    from ecs_queue.journal.selection import EventFilter, follow_events, read_newest

    options.configure_logging()
    event_filter = EventFilter(filters["ids"], filters["names"], filters["worker"])
    with open_journal_reader(load_shared_config(options)) as reader:
        newest = reader.last_seq()
        if not newest and not follow:
            print_stderr(_empty_message(reader, "the journal is empty"))
            return EXIT_FAILURE
        for event in read_newest(reader, event_filter, lines, newest):
            print_event(event, as_json)
        for event in follow_events(reader, event_filter, newest) if follow else ():
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

    stderr says how many events were written; with --json and FILE an object on stdout does. The last line has the
    number of events: a file without it is a part. FILE is written beside its place and put there when it is complete;
    an error leaves what was there. Signed events stay signed: `replay FILE` verifies them on any machine that has the
    keys.

    \b
    Examples:
      ecs-queue journal export -o journal.jsonl
      ecs-queue journal export --since 30m | jq -r 'select(.name == "request.ended") | .data.state'
      ecs-queue journal export --id nightly-etl -o incident.jsonl

    Exit status: 1 when there was nothing to write.
    """
    from ecs_queue.journal.jsonl import write_events
    from ecs_queue.journal.selection import EventFilter, select_events

    options.configure_logging()
    with open_journal_reader(load_shared_config(options)) as reader:
        now = reader.now()
        start, end = (None if bound is None else bound.resolve(now) for bound in (times["since"], times["until"]))
        events = select_events(reader, EventFilter(ids), start, end)
        first = next(events, None)
        if first is None:
            print_stderr(_empty_message(reader, "there are no such events"))
            return EXIT_FAILURE
        with replace_output(output, "nothing was exported") as sink:
            number = write_events(itertools.chain((first,), events), sink)
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

    Where signing_keys are set, verified events are signed anew for the namespace. The others are imported without a
    signature, and stay unverified.

    \b
    Examples:
      ecs-queue journal import incident.jsonl --namespace incident
      ecs-queue journal show nightly-etl --namespace incident
    """
    from ecs_queue.config.keyring import open_keyring
    from ecs_queue.journal import open_event_encoder
    from ecs_queue.journal.jsonl import import_events, read_events

    options.configure_logging()
    config = load_shared_config(options)
    keyring = open_keyring(config)
    count = sum(1 for _ in read_events(file, print_stderr, keyring, config.journal_element_bytes))  # checks all lines
    with open_journal_reader(config) as reader:
        if reader.last_seq() and not append:
            raise UsageError(
                f"the journal of namespace {config.namespace} has events already: import into a namespace of its own "
                "(--namespace NAME), or give --append; nothing was imported"
            )
        warned: list[str] = []  # the first reading has printed the warnings
        events = read_events(file, warned.append, keyring, config.journal_element_bytes)
        unsigned = import_events(events, reader, open_event_encoder(config))
    if as_json:
        print_json({"events": count, "namespace": config.namespace})
    else:
        print_stderr(f"{count} events imported into namespace {config.namespace}")
    if unsigned:
        print_stderr(f"{unsigned} of them are NOT VERIFIED, and imported without a signature")


def _reveal(config: Config, events: list[JournalEvent]) -> list[JournalEvent]:
    """Return the events with their payloads decrypted, and say on stderr how many stay encrypted."""
    from ecs_queue.config.keyring import open_keyring
    from ecs_queue.replay.sealed import is_sealed, open_sealed

    opened = list(open_sealed(events, open_keyring(config)))
    if closed := sum(map(is_sealed, opened)):
        print_stderr(f"{closed} events stay encrypted: none of the encryption_keys here opens them")
    return opened


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
