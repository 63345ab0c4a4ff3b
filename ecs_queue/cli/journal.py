"""`journal`: every envelope, decision and answer as events; look at them, follow them, take them away."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from fnmatch import fnmatchcase
from typing import IO, TYPE_CHECKING, Any

import click

from ecs_queue.cli.ages import Since, since
from ecs_queue.cli.eventview import detail_of, moment_of, show_event
from ecs_queue.cli.options import InOrder, Options, json_option, load_shared, pass_options, shared_options
from ecs_queue.cli.output import say, show_json, show_table
from ecs_queue.errors import UsageError

if TYPE_CHECKING:
    from ecs_queue.journal import JournalEvent, RedisJournal

NOT_FOUND = 1
STDOUT = "-"
#: How long one read of `tail -f` waits: as long as Ctrl-C may have to. Seconds.
_BLOCK = 1.0
#: What `tail -f` follows from when nothing has been written yet.
_BEFORE_ALL = "0-0.0"


@contextmanager
def opened_journal(options: Options) -> Iterator[RedisJournal]:
    """The journal by the configuration, closed at the end."""
    from ecs_queue.journal import open_journal

    with closing(open_journal(load_shared(options))) as found:
        yield found


@click.group(cls=InOrder, short_help="Every decision and answer: look, follow, export.")
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
def show(options: Options, /, id: str, envelope: bool, as_json: bool) -> int:
    """Show the events of one request, in the order in which they happened.

    With --json each event is an object on a line of its own, as `journal export` writes it: v, seq, at (seconds since
    the epoch, server's clock), name, id, worker, data.

    \b
    Examples:
      ecs-queue journal show nightly-etl
      ecs-queue journal show nightly-etl --json | jq 'select(.name == "decision.call") | .data.answer'
      ecs-queue journal show nightly-etl --envelope

    Exit status: 1 when the journal has no such request.
    """
    options.start_logging()
    with opened_journal(options) as found:
        events = list(found.events(id))
        if not events:
            say(f"the journal has no request {id}: {_why_none(found, 'it was never submitted, or was dropped since')}")
            return NOT_FOUND
        if envelope:
            return _show_envelope(id, found.request(id))
    if as_json:
        for event in events:
            show_json(_object_of(event))
        return 0
    first = events[0].at
    show_table(
        ("AT", "AFTER", "EVENT", "WORKER", "WHAT"),
        [(moment_of(e.at), f"{e.at - first:.3f} s", e.name, e.worker or "-", detail_of(e)) for e in events],
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
def tail(options: Options, /, follow: bool, lines: int, as_json: bool, **given: Any) -> int:
    """Show the newest events, and with -f what comes after them.

    \b
    Examples:
      ecs-queue journal tail
      ecs-queue journal tail -f --event 'launch.*' --event request.ended
      ecs-queue journal tail -f -n 0 --json | jq -c 'select(.data.state == "FAILED")'

    Exit status: 1 when the journal is empty; 130 after Ctrl-C.
    """
    options.start_logging()
    wanted = _Wanted(frozenset(given["ids"]), given["names"], given["worker"])
    with opened_journal(options) as found:
        newest = found.last_seq()
        if not newest and not follow:
            say(_why_none(found, "the journal is empty"))
            return NOT_FOUND
        for event in _newest(found, wanted, lines, newest):
            show_event(event, as_json)
        newest = newest or _BEFORE_ALL
        while follow:
            for event in found.tail(newest, _BLOCK):
                newest = event.seq
                if wanted.has(event):
                    show_event(event, as_json)
    return 0


@journal.command(short_help="As a file of JSON lines.")
@click.option("-o", "--output", default=STDOUT, metavar="FILE", help="Where to; without it, or with -, stdout.")
@click.option("--since", type=since, metavar="WHEN", help="Only from then on: 2h, 7d, or 2025-01-31T12:00:00Z.")
@click.option("--until", type=since, metavar="WHEN", help="Only until then.")
@click.option("--id", "ids", multiple=True, metavar="ID", help="Only of this request; may be given again.")
@json_option
@shared_options
@pass_options
def export(options: Options, /, output: str, ids: tuple[str, ...], as_json: bool, **times: Since | None) -> int:
    """Write the journal as JSON lines, one event a line: for `replay FILE`, `journal import`, or your own tools.

    On stderr it says how many events that were; with --json, as an object on stdout when FILE is given.

    \b
    Examples:
      ecs-queue journal export -o journal.jsonl
      ecs-queue journal export --since 30m | jq -r 'select(.name == "request.ended") | .data.state'
      ecs-queue journal export --id nightly-etl -o incident.jsonl

    Exit status: 1 when there was nothing to write.
    """
    from ecs_queue.journal.export import write_events

    options.start_logging()
    with opened_journal(options) as found:
        now = found.now()
        start, end = (None if moment is None else moment.at(now) for moment in (times["since"], times["until"]))
        chosen = [found.events(id, start, end) for id in dict.fromkeys(ids)] or [found.all(start, end)]
        with _opened(output) as sink:
            number = write_events(itertools.chain.from_iterable(chosen), sink)
        if not number:
            say(_why_none(found, "there are no such events"))
            return NOT_FOUND
    if as_json and output != STDOUT:
        show_json({"events": number, "file": output})
    else:
        say(f"{number} events" if output == STDOUT else f"{number} events in {output}")
    return 0


@journal.command("import", short_help="Read an exported file back.")
@click.argument("file", metavar="FILE")
@click.option("--append", is_flag=True, help="Although the namespace has a journal already.")
@json_option
@shared_options
@pass_options
def import_(options: Options, /, file: str, append: bool, as_json: bool) -> None:
    """Read an exported journal into the journal of a namespace, to look at it there.

    Each event keeps its time and its worker, and gets a new place in the order. A last line that was cut is left
    out; any other line that is no event means that nothing is read. Take a namespace of its own for it: without
    --append a journal that has events already is not touched.

    \b
    Examples:
      ecs-queue journal import incident.jsonl --namespace incident
      ecs-queue journal show nightly-etl --namespace incident
    """
    from ecs_queue.journal.export import read_events
    from ecs_queue.journal.restore import restore

    options.start_logging()
    config = load_shared(options)
    events = list(read_events(file, say))  # all of it is checked before anything is written
    with opened_journal(options) as found:
        if found.last_seq() and not append:
            raise UsageError(
                f"the journal of namespace {config.namespace} has events already: import into a namespace of its own "
                "(--namespace NAME), or give --append; nothing was imported"
            )
        restore(events, found)
    if as_json:
        show_json({"events": len(events), "namespace": config.namespace})
    else:
        say(f"{len(events)} events imported into namespace {config.namespace}")


class _Wanted:
    """What `tail` lets through. Nothing given of a kind: all of it."""

    def __init__(self, ids: frozenset[str], names: tuple[str, ...], worker: str | None) -> None:
        self._ids, self._names, self._worker = ids, names, worker

    def has(self, event: JournalEvent) -> bool:
        return (
            (not self._ids or event.id in self._ids)
            and (not self._names or any(fnmatchcase(event.name, name) for name in self._names))
            and (self._worker is None or event.worker == self._worker)
        )


def _newest(found: RedisJournal, wanted: _Wanted, number: int, last: str) -> list[JournalEvent]:
    """The newest wanted ones up to `last`, oldest first; looked for from the end, page by page."""
    from ecs_queue.journal.base import seq_key

    newest: list[JournalEvent] = []
    for page in found.backwards():
        if len(newest) >= number:
            break
        newest = [*(e for e in page if wanted.has(e) and seq_key(e.seq) <= seq_key(last)), *newest]
    return newest[len(newest) - number :] if len(newest) > number else newest


def _show_envelope(id: str, envelope: bytes | None) -> int:
    if envelope is None:
        say(f"the journal has events of {id}, but not its envelope: it was dropped since, or its client keeps none")
        return NOT_FOUND
    click.echo(envelope)
    return 0


def _object_of(event: JournalEvent) -> dict[str, Any]:
    import msgspec

    built: dict[str, Any] = msgspec.to_builtins(event)
    return built


def _why_none(found: RedisJournal, otherwise: str) -> str:
    if found.last_seq():
        return otherwise
    return "the journal is empty; workers write it unless `journal` is off (`ecs-queue config` shows it)"


@contextmanager
def _opened(output: str) -> Iterator[IO[bytes]]:
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
