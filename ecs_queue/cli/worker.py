"""`worker`: a launcher worker in the foreground, until it is told to stop."""

from __future__ import annotations

import gc
import logging
import os
import re
import threading
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING

import click

from ecs_queue.cli.ui.logging_setup import LOG_FORMATS
from ecs_queue.cli.ui.options import SharedOptions, json_option, load_shared_config, pass_options, shared_options
from ecs_queue.cli.ui.output import print_json, print_stderr
from ecs_queue.errors import UsageError

if TYPE_CHECKING:
    from ecs_queue.cli.ui.signals import StopSignals
    from ecs_queue.config import Config
    from ecs_queue.worker.worker import Worker

logger = logging.getLogger("ecs_queue")

#: The names that a queue may have in a request.
_QUEUE_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")
#: Python's own are 700, 10, 10: in a busy worker, which makes few cycles, its collections took 4 % of the time.
_GC_THRESHOLDS = (10_000, 20, 20)
#: How often the end is looked for after a stop, while a second signal may come. Seconds.
_POLL_INTERVAL_SECONDS = 0.05


@click.command(short_help="Launch what is submitted.")
@click.option("--queues", default="default", show_default=True, metavar="A,B", help="The queues it takes from.")
@click.option(
    "--concurrency", type=click.IntRange(1), metavar="N", help="RunTask calls at the same time (configuration: 32)."
)
@click.option("--name", default="", metavar="NAME", help="What it is called; by default host, pid and a random part.")
@click.option(
    "--log-format", type=click.Choice(LOG_FORMATS), default="text", show_default=True, help="One line an event."
)
@json_option
@shared_options
@pass_options
def worker(
    options: SharedOptions, queues: str, concurrency: int | None, name: str, log_format: str, as_json: bool
) -> None:
    """Take requests from queues, launch them as ECS tasks, follow them to their end.

    Start as many as you like, wherever they reach Redis and AWS; none is special, and killing any loses nothing.
    AWS credentials come from the usual places. The log goes to stderr, one line an event; with --json a line on
    stdout says when it is ready.

    \b
    Examples:
      ecs-queue worker
      ecs-queue worker --queues etl,reports --concurrency 64 --log-format json

    SIGTERM or Ctrl-C: it finishes the calls in hand, gives back what it has not started, and ends within 10
    seconds; the tasks themselves run on, other workers follow them. A second one ends it at once.

    Exit status: 0 after an orderly stop; 2 for a configuration error, a server that cannot be reached at the
    start, or a queue that it could not launch anything for; 143 or 130 after a second SIGTERM or Ctrl-C.
    """
    from ecs_queue.broker import open_broker
    from ecs_queue.journal import open_journal_store
    from ecs_queue.ledger import open_ledger

    options.configure_logging("info", log_format)
    if concurrency is not None:
        options.overrides["concurrency"] = str(concurrency)
    names = _parse_queue_names(queues)
    config = load_shared_config(options)
    with ExitStack() as opened:
        ledger, broker = (
            opened.enter_context(closing(open_ledger(config))),
            opened.enter_context(closing(open_broker(config))),
        )
        journal = open_journal_store(config)
        if journal is not None:
            opened.callback(journal.close)
        broker.check()
        ledger.now()
        from ecs_queue.worker.worker import Worker

        made = Worker(config, broker, ledger, queues=names, name=name, journal=journal)
        made.check()
        _run(made, config, as_json)


def _run(worker: Worker, config: Config, as_json: bool) -> None:
    from ecs_queue.cli.ui.signals import StopSignals

    gc.collect()
    gc.freeze()  # what is here now stays to the end
    gc.set_threshold(*_GC_THRESHOLDS)
    with StopSignals() as signals:
        worker.start()
        if not logger.isEnabledFor(logging.INFO):  # else the log has just said so
            print_stderr(f"worker {worker.name} takes from {', '.join(worker.queues)}")
        if as_json:
            ready = {"worker": worker.name, "pid": os.getpid(), "queues": worker.queues}
            print_json({**ready, "namespace": config.namespace, "concurrency": config.concurrency})
        signals.wait(None)
        _stop(worker, signals)


def _stop(worker: Worker, signals: StopSignals) -> None:
    """In order, unless a second signal comes first."""
    ended: list[bool] = []
    worker.stop()
    joining = threading.Thread(target=lambda: ended.append(worker.join()), name="join", daemon=True)
    joining.start()
    while joining.is_alive():
        again = signals.wait(_POLL_INTERVAL_SECONDS)
        if again is not None:
            print_stderr(f"worker {worker.name} ends at once; other workers take over what it had in hand")
            os._exit(128 + again)
    if not any(ended):
        # A call that AWS does not answer would hold the interpreter up; whoever takes its lease over finishes it.
        print_stderr(f"worker {worker.name} leaves calls without an answer; other workers take them over")
        os._exit(0)


def _parse_queue_names(text: str) -> list[str]:
    names = list(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    if not names:
        raise UsageError("--queues: expected names separated by commas, such as default,etl, found none")
    for name in names:
        if not _QUEUE_NAME.fullmatch(name):
            raise UsageError(f"--queues: expected names of 1 to 64 of A-Z a-z 0-9 _ . -, found {name!r}")
    return names
