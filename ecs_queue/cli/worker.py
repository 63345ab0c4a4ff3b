"""`worker`: runs a worker in the foreground until SIGTERM, SIGHUP or Ctrl-C."""

from __future__ import annotations

import gc
import logging
import os
import signal
import threading
import time
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING

import click

from ecs_queue.cli.ui.logging_setup import LOG_FORMATS
from ecs_queue.cli.ui.numbers import count
from ecs_queue.cli.ui.options import SharedOptions, command_options, load_shared_config
from ecs_queue.cli.ui.output import print_json, print_stderr
from ecs_queue.errors import UsageError
from ecs_queue.messages.queue_names import QUEUE_NAME_RULE, canonical_queue_name, is_queue_name

if TYPE_CHECKING:
    from ecs_queue.config import Config
    from ecs_queue.local.stop_signals import StopSignals
    from ecs_queue.worker.worker import Worker

logger = logging.getLogger("ecs_queue")

#: Python's defaults are 700, 10, 10. A busy worker makes few cycles, and its collections took 4 % of the time.
_GC_THRESHOLDS = (10_000, 20, 20)
#: How often a stopping worker checks whether it has ended, while it waits for a second signal. Seconds.
_POLL_INTERVAL_SECONDS = 0.05
#: Another SIGTERM within this time is the same one: GNU `timeout` signals its child, and then the child's group too.
_ONE_SIGTERM_SECONDS = 1.0


@click.command(short_help="Launch submitted requests.")
@click.option("--queues", default="default", show_default=True, metavar="A,B", help="Queues to take requests from.")
@click.option(
    "--concurrency",
    type=count(1),
    metavar="N",
    help="Maximum number of RunTask calls at the same time.  [32]",
)
@click.option("--name", default="", metavar="NAME", help="Name of the worker.  [host, pid and a random part]")
@click.option(
    "--metrics-port",
    type=count(1),
    metavar="PORT",
    help="Answer /metrics, /healthz, /readyz and /scale on this port.  [none]",
)
@click.option("--metrics-host", metavar="HOST", help="The address on which it answers.  [127.0.0.1]")
@click.option(
    "--log-format", type=click.Choice(LOG_FORMATS), default="text", show_default=True, help="Format of the log lines."
)
@command_options
def worker(
    options: SharedOptions,
    queues: str,
    concurrency: int | None,
    name: str,
    metrics_port: int | None,
    metrics_host: str | None,
    log_format: str,
    as_json: bool,
) -> None:
    """Take requests from queues, launch them as ECS tasks, and follow the tasks to their end.

    Start any number of workers, wherever they reach Redis and AWS. All are equal, and killing any of them loses
    nothing. AWS credentials come from the usual places. The log goes to stderr, one line an event; with --json a
    line on stdout reports that the worker is ready.

    \b
    Examples:
      ecs-queue worker
      ecs-queue worker --queues etl,reports --concurrency 64 --log-format json
      ecs-queue worker --metrics-port 9464       (then: curl localhost:9464/metrics)

    After SIGTERM, SIGHUP (the end of its terminal) or Ctrl-C the worker finishes its calls to AWS, gives back
    what it has not started, and exits within 10 seconds; the tasks run on, and other workers follow them. A second
    signal ends it at once.

    Exit status: 0 after an orderly stop; 2 for a configuration error, a server that cannot be reached or used at
    the start (the sentence is that of `doctor`), or a queue whose requests it could not launch; 143 or 130 after
    a second SIGTERM or Ctrl-C.
    """
    from ecs_queue.broker import open_broker
    from ecs_queue.journal import open_journal_store
    from ecs_queue.ledger import open_ledger

    options.configure_logging("info", log_format)
    given = {"concurrency": concurrency, "metrics_port": metrics_port, "metrics_host": metrics_host}
    options.overrides.update({key: str(value) for key, value in given.items() if value is not None})
    names = _parse_queue_names(queues)
    if name:
        _check_worker_name(name)
    config = load_shared_config(options)
    with ExitStack() as stack:
        ledger = stack.enter_context(closing(open_ledger(config)))
        broker = stack.enter_context(closing(open_broker(config)))
        journal = open_journal_store(config)
        if journal is not None:
            stack.callback(journal.close)
        broker.check(names)
        ledger.now()
        from ecs_queue.worker.worker import Worker  # slow, and not needed when a server cannot be reached

        created = Worker(config, broker, ledger, queues=names, name=name, journal=journal)
        created.check()
        _run(created, config, as_json)


def _run(worker: Worker, config: Config, as_json: bool) -> None:
    from ecs_queue.local.stop_signals import StopSignals

    gc.collect()
    gc.freeze()  # what exists now stays to the end
    gc.set_threshold(*_GC_THRESHOLDS)
    with StopSignals() as signals:
        worker.start()
        if not logger.isEnabledFor(logging.INFO):  # otherwise the log has just reported it
            print_stderr(f"worker {worker.name} takes from {', '.join(worker.queues)}")
        if as_json:
            ready = {"worker": worker.name, "pid": os.getpid(), "queues": worker.queues}
            print_json({**ready, "namespace": config.namespace, "concurrency": config.concurrency})
        _stop(worker, signals, signals.wait(None))


def _stop(worker: Worker, signals: StopSignals, first: signal.Signals | None) -> None:
    """Stop the worker in order, or at once when a second signal comes."""
    ended: list[bool] = []
    began = time.monotonic()
    worker.stop()
    joiner = threading.Thread(target=lambda: ended.append(worker.join()), name="join", daemon=True)
    joiner.start()
    while joiner.is_alive():
        second = signals.wait(_POLL_INTERVAL_SECONDS)
        if second is signal.SIGTERM is first and time.monotonic() - began < _ONE_SIGTERM_SECONDS:
            continue
        if second is not None:
            print_stderr(f"worker {worker.name} ends at once; other workers take over its requests")
            os._exit(128 + second)
    if not any(ended):
        # A call that AWS never answers would keep the interpreter alive; the next worker to take its lease resolves it.
        print_stderr(f"worker {worker.name} ends with unanswered calls to AWS; other workers resolve them")
        os._exit(0)


def _check_worker_name(name: str) -> None:
    """Raise UsageError for what cannot stand in a record, such as bytes that are no UTF-8."""
    from ecs_queue.messages.labels import NAME_RULE, check_name

    try:
        check_name(name)
    except ValueError:
        raise UsageError(f"--name: expected 1 to {NAME_RULE}, found {name!r:.80}") from None


def _parse_queue_names(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise UsageError("--queues: expected names separated by commas, such as default,etl, found none")
    for name in names:
        if not is_queue_name(name):
            raise UsageError(f"--queues: expected names of {QUEUE_NAME_RULE}, found {name!r}")
    return list(dict.fromkeys(map(canonical_queue_name, names)))
