"""`top`: a live table of the queues, the workers and the last ends."""

from __future__ import annotations

import heapq
import itertools
import os
import select
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from ecs_queue.cli.queues import QUEUE_HEADERS, queue_row, read_queues
from ecs_queue.cli.ui.durations import POSITIVE_DURATION, format_duration
from ecs_queue.cli.ui.labels import name_by_labels
from ecs_queue.cli.ui.options import SharedOptions, open_client, pass_options, shared_options
from ecs_queue.cli.ui.output import (
    Row,
    can_draw,
    fit_columns,
    is_terminal,
    print_sentence,
    print_table,
    rich_table,
    truncate,
)
from ecs_queue.cli.ui.record_view import format_run_time, ran_to_exit
from ecs_queue.cli.workers import summarize_workers
from ecs_queue.client.records import PAGE_SIZE, iter_records

if TYPE_CHECKING:
    from ecs_queue.client.client import EcsQueue
    from ecs_queue.ledger.base import WorkerInfo
    from ecs_queue.protocol.record import Record
    from ecs_queue.runner.alarm import Alarm

#: The rows of each table; a terminal cuts what is below its last line.
_MAX_WORKERS, _MAX_ENDS = 8, 8
#: The ledger lists ended requests by the time at which it forgets them: the last ends are among this number.
_MAX_RECENT = 1000
#: Where more requests than this are live, no ends are shown: the ledger lists live requests first.
_MAX_RECORDS = 4 * PAGE_SIZE
#: Those of `queues` without the weight, which does not change. A narrow terminal has no room for the last ones.
_QUEUE_HEADERS = (*QUEUE_HEADERS[:-3], "ends", "state", "limit")
_WORKER_HEADERS = ("worker", "launching", "launched", "ended", "rate", "health")
_END_HEADERS = ("ended", "id", "state", "exit", "ran", "labels", "reason")
_NO_WORKER = "no worker is alive: start one with `ecs-queue worker`"
#: Ctrl-C without the terminal's signal, Ctrl-D and q.
_END_KEYS = frozenset(b"qQ\x03\x04")


@dataclass(frozen=True, repr=False)  # labels and reasons are other people's texts
class Screen:
    """What is shown at a time: a sentence, and tables as headers and rows."""

    head: str
    tables: Sequence[tuple[Row, Sequence[Row]]]


@click.command(short_help="Watch queues, workers and ends.")
@click.option(
    "--interval", type=POSITIVE_DURATION, default="2", show_default=True, metavar="S", help="Show it again every S."
)
@shared_options
@pass_options
def top(options: SharedOptions, interval: float) -> None:
    """Watch the queues, the workers and the last ends until q or Ctrl-C.

    The queues are those of `ecs-queue queues` with the ends a second of each, and the workers those of
    `ecs-queue workers`, the ones that are not healthy first. Last ends are left out where more than 2,000 requests
    are live. Without a terminal it is shown once; `queues`, `workers` and `tasks` print JSON for programs.

    \b
    Examples:
      ecs-queue top
      ecs-queue top --interval 10 --namespace etl

    Exit status: 0 after q and Ctrl-C.
    """
    options.configure_logging()
    with open_client(options) as client:
        reader = ScreenReader(client)
        if not can_draw():
            _print_once(reader.read())
            return
        try:
            _show_live(reader, interval)
        except KeyboardInterrupt:
            return


class ScreenReader:
    """Reads what is shown, and the rates since it was read last."""

    def __init__(self, client: EcsQueue) -> None:
        self._client = client
        self._previous: dict[str, int] = {}
        self._previous_at = 0.0

    def read(self) -> Screen:
        """Return the present state of the namespace."""
        ledger = self._client.ledger
        now = ledger.now()
        rates = self._ends_per_second(now)
        queues = [_queue_row(facts, rates, now) for facts in read_queues(self._client)]
        alive = sorted(ledger.list_workers(), key=lambda worker: (worker.health == "ok", worker.name))
        summary = summarize_workers(alive) if alive else _NO_WORKER
        tables: list[tuple[Row, Sequence[Row]]] = [(_QUEUE_HEADERS, queues)]
        if alive:
            tables.append((_WORKER_HEADERS, [_worker_row(worker) for worker in alive[:_MAX_WORKERS]]))
        ends = [_end_row(record, now) for record in self._last_ends()]
        if ends:
            tables.append((_END_HEADERS, ends))
        return Screen(f"{self._client.config.namespace}: {summary}", tables)

    def _ends_per_second(self, now: float) -> Mapping[str, str]:
        """Return the ends a second of each queue since the last call; none at the first one."""
        from ecs_queue.protocol.states import TERMINAL_STATES

        counts = self._client.ledger.count_by_state()
        ended = {queue: sum(states.get(end, 0) for end in TERMINAL_STATES) for queue, states in counts.items()}
        seconds, previous = now - self._previous_at, self._previous
        is_first, self._previous, self._previous_at = not self._previous_at, ended, now
        if is_first or seconds <= 0:
            return {}
        return {queue: f"{(number - previous.get(queue, 0)) / seconds:.1f}/s" for queue, number in ended.items()}

    def _last_ends(self) -> list[Record]:
        records = itertools.islice(iter_records(self._client.ledger, lambda _: True), _MAX_RECORDS)
        ended = itertools.islice((record for record in records if record.is_terminal), _MAX_RECENT)
        return heapq.nlargest(_MAX_ENDS, ended, key=lambda record: record.finished_at)


def _queue_row(facts: Mapping[str, Any], rates: Mapping[str, str], now: float) -> list[str]:
    *numbers, limit, _, state = queue_row(facts, now)
    return [*numbers, rates.get(facts["queue"], "-"), state, limit]


def _worker_row(worker: WorkerInfo) -> list[str]:
    launching = f"{worker.launches_in_progress}/{worker.concurrency}"
    totals = (str(worker.launched_total), str(worker.ended_total))
    return [worker.name, launching, *totals, f"{worker.launch_rate:.1f}/s", worker.health]


def _end_row(record: Record, now: float) -> list[str]:
    exit_code = "" if record.exit_code is None else str(record.exit_code)
    reason = "" if ran_to_exit(record.state.value, record.exit_code) else truncate(record.reason, 60)
    ago = f"{format_duration(now - record.finished_at)} ago"
    facts = (exit_code, format_run_time(record, now), truncate(name_by_labels(record), 40))
    return [ago, record.id, record.state.value, *facts, reason]


def _print_once(screen: Screen) -> None:
    print_sentence(screen.head)
    for headers, rows in screen.tables:
        print_sentence("")
        print_table(headers, rows)


def _show_live(reader: ScreenReader, interval: float) -> None:
    from rich.console import Console
    from rich.live import Live

    from ecs_queue.cli.ui.given_back_terminal import SCREEN, give_back_terminal
    from ecs_queue.runner.alarm import Alarm

    console = Console()
    shown = reader.read()
    live = Live(get_renderable=lambda: _render(shown, console.width), console=console, screen=True, auto_refresh=False)
    redraw = Alarm()
    with closing(redraw), give_back_terminal(sys.stdout, SCREEN, redraw.set), read_keys() as keys, live:
        while True:
            next_look = time.monotonic() + interval
            while (left := next_look - time.monotonic()) > 0:
                redraw.clear()
                live.refresh()
                if keys.is_end_pressed(left, redraw):
                    return
            shown = reader.read()


def _render(screen: Screen, width: int) -> Any:
    from rich.console import Group
    from rich.text import Text

    tables = [rich_table(*fit_columns(headers, rows, width), "ellipsis") for headers, rows in screen.tables]
    return Group(Text(screen.head, style="bold"), *tables, Text("q ends", style="dim"))


class Keys:
    """Waits for a key that ends the view; without a terminal on stdin it only waits."""

    def __init__(self, number: int | None) -> None:
        self._number = number

    def is_end_pressed(self, seconds: float, interruption: Alarm) -> bool:
        """Return True as soon as q is pressed or stdin has ended; False after `seconds`, or once it is interrupted."""
        descriptors = {interruption.fileno()} if self._number is None else {interruption.fileno(), self._number}
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            ready = select.select(descriptors, [], [], left)[0]
            if self._number in ready:
                typed = os.read(self._number, 64)
                if not typed or _END_KEYS.intersection(typed):
                    return True
            elif ready:
                break
        return False


@contextmanager
def read_keys() -> Iterator[Keys]:
    """Give keys as they are pressed, without an echo; put the terminal back at the end."""
    import termios
    import tty

    if not is_terminal(sys.stdin):
        yield Keys(None)
        return
    number = sys.stdin.fileno()
    before = termios.tcgetattr(number)
    try:
        tty.setcbreak(number)
        yield Keys(number)
    finally:
        termios.tcsetattr(number, termios.TCSADRAIN, before)
