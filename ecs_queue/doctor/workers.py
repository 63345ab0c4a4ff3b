"""Checks the workers, the queues without a worker, and settings of the configuration that are risky."""

from __future__ import annotations

import shlex
import stat
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from ecs_queue.broker.base import Broker
from ecs_queue.broker_url import holds_no_records
from ecs_queue.config import Config
from ecs_queue.errors import BrokerUnavailable, LedgerUnavailable, MissingRight, UnusableServer
from ecs_queue.findings import Finding, Reporter
from ecs_queue.ledger.base import Ledger, WorkerInfo
from ecs_queue.protocol.states import State

#: Broken items that are named; the rest is counted.
_MAX_BROKEN_ITEMS = 10
_LIVE_STATES = (State.QUEUED, State.LAUNCHING, State.LAUNCHED)


def check_workers(config: Config, broker: Broker, ledger: Ledger, version: str) -> Iterator[Finding]:
    """Check the live workers, and the queues that none of them serves. `version` is that of this process."""
    reporter = Reporter("installation")
    try:
        if not holds_no_records(config.broker_url):  # `check_broker` has the errors of RabbitMQ and SQS
            broker.check()
    except (BrokerUnavailable, MissingRight, UnusableServer) as error:
        yield reporter.error("broker.reachable", str(error), "correct the broker first")
        if config.broker_url == config.ledger_url:
            return
    try:
        workers, counts = ledger.list_workers(), ledger.count_by_state()
        queues = {*counts, *(profile.queue for profile in config.profiles())} - {""}
        key_waiting = ledger.count_waiting_for_keys(sorted(queues))
    except (LedgerUnavailable, MissingRight, UnusableServer) as error:
        yield reporter.error("ledger.reachable", str(error), "correct the ledger first")
        return
    yield _alive_workers(reporter, workers)
    yield from _unhealthy_workers(workers)
    yield from _broken_items(ledger)
    yield from _version_mix(reporter, workers, version)
    served = {queue for worker in workers for queue in worker.queues}
    live = {queue: sum(states.get(state, 0) for state in _LIVE_STATES) for queue, states in counts.items()}
    waiting = {queue: number for queue, number in live.items() if number and queue not in served}
    for queue, number in sorted(waiting.items()):
        text = f"{number} live request{'s' if number > 1 else ''}, and no worker serves this queue"
        advice = f"start one: ecs-queue worker --queues {queue}"
        yield Reporter(queue).error("queues.unserved", text, advice)
    launched = sum(states.get(State.LAUNCHED, 0) for states in counts.values())
    if config.max_in_flight and launched >= config.max_in_flight:
        text = f"max_in_flight = {config.max_in_flight} is reached: launches wait for tasks to end"
        yield reporter.info("config.max_in_flight", text)
    for queue, number in key_waiting.items():
        yield from _full_keys(config, queue, number)


def _full_keys(config: Config, queue: str, waiting: int) -> Iterator[Finding]:
    """What is found about a queue some of whose requests wait for their concurrency key, and about its limit."""
    reporter, profile = Reporter(queue), config.profile(queue)
    limit = profile.max_per_key
    bound = min(filter(None, (profile.max_in_flight, config.max_in_flight)), default=0)
    if waiting and limit:
        text = f"{waiting} requests wait for their concurrency key; max_per_key is {limit} in this configuration"
        yield reporter.info("queues.max_per_key", text)
    elif waiting:
        text = f"{waiting} requests wait for their concurrency key, and max_per_key is 0 here: the workers have a limit"
        yield reporter.warning("queues.max_per_key", text, "give this command the configuration of the workers")
    if bound and limit >= bound:
        text = f"max_per_key = {limit} limits nothing: max_in_flight = {bound} is reached first"
        yield reporter.warning("queues.max_per_key", text, "lower max_per_key, or set it to 0")


def _alive_workers(reporter: Reporter, workers: list[WorkerInfo]) -> Finding:
    if not workers:
        return reporter.warning("workers.alive", "no worker is alive", "start one: ecs-queue worker")
    names = ", ".join(worker.name for worker in workers[:5]) + (" ..." if len(workers) > 5 else "")
    return reporter.ok("workers.alive", f"{len(workers)} alive: {names}")


def _unhealthy_workers(workers: list[WorkerInfo]) -> Iterator[Finding]:
    for worker in workers:
        if worker.health != "ok":
            yield Reporter(f"worker {worker.name}").error(
                "workers.health", worker.health, "correct what it names; the worker tries again by itself"
            )


def _broken_items(ledger: Ledger) -> Iterator[Finding]:
    items = ledger.list_broken()
    for item in items[:_MAX_BROKEN_ITEMS]:
        key = item.key.encode(errors="backslashreplace").decode()
        advice = f"ecs-queue broken show {key}"
        yield Reporter("ledger").error("ledger.broken", f"{key} cannot be used: {item.reason}", advice)
    if len(items) > _MAX_BROKEN_ITEMS:
        text = f"{len(items) - _MAX_BROKEN_ITEMS} more items cannot be used"
        yield Reporter("ledger").error("ledger.broken", text, "ecs-queue broken list")


def _version_mix(reporter: Reporter, workers: list[WorkerInfo], version: str) -> Iterator[Finding]:
    others = sorted({worker.version for worker in workers} - {version})
    if others:
        text = f"workers of version {', '.join(others)} beside this {version}"
        yield reporter.info("workers.versions", text, "fine during a rolling update; else bring all to one version")


def check_config(config: Config) -> Iterator[Finding]:
    """Check values that are allowed, but only make sense in tests."""
    reporter = Reporter("configuration")
    yield reporter.ok("config.valid", f"namespace {config.namespace}, {len(config.profiles())} profile(s)")
    yield from check_secret_files(config)
    for profile in config.profiles():
        if profile.max_starting and not profile.start_timeout:
            text = (
                f"max_starting = {profile.max_starting}, and no start_timeout: tasks that never start block the queue"
            )
            advice = "set start_timeout: some tasks never leave PENDING"
            yield Reporter(profile.queue).warning("config.max_starting", text, advice)
    if config.retry_base_seconds < 2:
        text = f"retry_base_seconds = {config.retry_base_seconds:g} is below 2"
        advice = "only for tests: a fail-over that loses a second could lose two launch numbers"
        yield reporter.warning("config.retry_base_seconds", text, advice)
    if config.settle_seconds < 300:
        text = f"settle_seconds = {config.settle_seconds:g}: AWS accepts a signed call for 300 s"
        advice = "leave it at 600 on AWS: a delayed call could start a second task"
        yield reporter.warning("config.settle_seconds", text, advice)


def check_secret_files(config: Config) -> Iterator[Finding]:
    """Check who may read the files that hold passwords and keys: the configuration's own, and the keys of TLS."""
    reporter = Reporter("configuration")
    queries = [parse_qs(urlsplit(url).query) for url in (config.broker_url, config.ledger_url)]
    tls_keys = [path for query in queries for path in query.get("ssl_keyfile", ())]
    for path in dict.fromkeys((*config.secret_files, *tls_keys)):
        try:
            mode = Path(path).stat().st_mode
        except OSError:
            continue  # the connection reports it, or it was a file of the start only
        if mode & stat.S_IROTH:
            text = f"{path} holds a password or a key, and every user of this machine can read it"
            yield reporter.warning("config.secret_files", text, f"chmod o-rwx {shlex.quote(path)}")
        elif mode & stat.S_IRGRP:
            yield reporter.info("config.secret_files", f"{path} holds a password or a key, and its group can read it")
        else:
            yield reporter.ok("config.secret_files", f"only its owner can read {path}")
