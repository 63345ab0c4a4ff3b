"""Checks the workers, the queues without a worker, and settings of the configuration that are risky."""

from __future__ import annotations

from collections.abc import Iterator

from ecs_queue.broker.base import Broker
from ecs_queue.config import Config
from ecs_queue.doctor.finding import Finding, Reporter
from ecs_queue.errors import BrokerUnavailable, LedgerUnavailable
from ecs_queue.ledger.base import Ledger, WorkerInfo
from ecs_queue.protocol.states import State

_LIVE_STATES = (State.QUEUED, State.LAUNCHING, State.LAUNCHED)


def check_workers(config: Config, broker: Broker, ledger: Ledger, version: str) -> Iterator[Finding]:
    """Check the live workers, and the queues that none of them serves. `version` is that of this process."""
    reporter = Reporter("installation")
    try:
        broker.check()
    except BrokerUnavailable as error:
        yield reporter.error("broker.reachable", str(error), "correct the broker first")
        return
    try:
        workers, counts = ledger.list_workers(), ledger.count_by_state()
    except LedgerUnavailable as error:
        yield reporter.error("ledger.reachable", str(error), "correct the ledger first")
        return
    yield _alive_workers(reporter, workers)
    yield from _unhealthy_workers(workers)
    yield from _version_mix(reporter, workers, version)
    served = {queue for worker in workers for queue in worker.queues}
    live = {queue: sum(states.get(state, 0) for state in _LIVE_STATES) for queue, states in counts.items()}
    waiting = {queue: number for queue, number in live.items() if number and queue not in served}
    for queue, number in sorted(waiting.items()):
        text = f"{number} live requests, and no worker serves this queue"
        advice = f"start one: ecs-queue worker --queues {queue}"
        yield Reporter(queue).error("queues.unserved", text, advice)
    launched = sum(states.get(State.LAUNCHED, 0) for states in counts.values())
    if config.max_in_flight and launched >= config.max_in_flight:
        text = f"max_in_flight = {config.max_in_flight} is reached: launches wait for tasks to end"
        yield reporter.info("config.max_in_flight", text)


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


def _version_mix(reporter: Reporter, workers: list[WorkerInfo], version: str) -> Iterator[Finding]:
    others = sorted({worker.version for worker in workers} - {version})
    if others:
        text = f"workers of version {', '.join(others)} beside this {version}"
        yield reporter.info("workers.versions", text, "fine during a rolling update; else bring all to one version")


def check_config(config: Config) -> Iterator[Finding]:
    """Check values that are allowed, but only make sense in tests."""
    reporter = Reporter("configuration")
    yield reporter.ok("config.valid", f"namespace {config.namespace}, {len(config.profiles())} profile(s)")
    if config.retry_base_seconds < 2:
        text = f"retry_base_seconds = {config.retry_base_seconds:g} is below 2"
        advice = "only for tests: a fail-over that loses a second could lose two launch numbers"
        yield reporter.warning("config.retry_base_seconds", text, advice)
    if config.settle_seconds < 300:
        text = f"settle_seconds = {config.settle_seconds:g}: AWS accepts a signed call for 300 s"
        advice = "leave it at 600 on AWS: a delayed call could start a second task"
        yield reporter.warning("config.settle_seconds", text, advice)
