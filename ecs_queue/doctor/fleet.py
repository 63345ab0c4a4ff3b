"""The installation as the ledger and the broker see it: workers, backlog, queues that nobody serves."""

from __future__ import annotations

from collections.abc import Iterator

from ecs_queue.broker.base import Broker
from ecs_queue.config import Config
from ecs_queue.core.states import State
from ecs_queue.doctor.finding import Finding, Report
from ecs_queue.errors import BrokerUnavailable, LedgerUnavailable
from ecs_queue.ledger.base import Ledger, WorkerInfo

_LIVE = (State.QUEUED, State.LAUNCHING, State.LAUNCHED)


def examine_fleet(config: Config, broker: Broker, ledger: Ledger, version: str) -> Iterator[Finding]:
    """What only ledger and broker together can tell."""
    report = Report("installation")
    try:
        broker.check()
    except BrokerUnavailable as error:
        yield report.wrong("fleet.broker", str(error), "mend the broker first")
        return
    try:
        workers, counts = ledger.workers(), ledger.counts()
    except LedgerUnavailable as error:
        yield report.wrong("fleet.ledger", str(error), "mend the ledger first")
        return
    yield _alive(report, workers)
    yield from _health(workers)
    yield from _versions(report, workers, version)
    served = {queue for worker in workers for queue in worker.queues}
    live = {queue: sum(states.get(state, 0) for state in _LIVE) for queue, states in counts.items()}
    waiting = {queue: number for queue, number in live.items() if number and queue not in served}
    for queue, number in sorted(waiting.items()):
        yield Report(queue).wrong(
            "fleet.unserved", f"{number} live requests, and no worker serves this queue", _serve(queue)
        )
    if (
        config.max_in_flight
        and sum(states.get(State.LAUNCHED, 0) for states in counts.values()) >= config.max_in_flight
    ):
        text = f"max_in_flight = {config.max_in_flight} is reached: launches wait for tasks to end"
        yield report.note("fleet.max_in_flight", text)


def _serve(queue: str) -> str:
    return f"start one: ecs-queue worker --queues {queue}"


def _alive(report: Report, workers: list[WorkerInfo]) -> Finding:
    if not workers:
        return report.warning("fleet.workers", "no worker is alive", "start one: ecs-queue worker")
    names = ", ".join(worker.name for worker in workers[:5]) + (" ..." if len(workers) > 5 else "")
    return report.ok("fleet.workers", f"{len(workers)} alive: {names}")


def _health(workers: list[WorkerInfo]) -> Iterator[Finding]:
    for worker in workers:
        if worker.health != "ok":
            yield Report(f"worker {worker.name}").wrong(
                "fleet.health", worker.health, "mend what it names; the worker tries again by itself"
            )


def _versions(report: Report, workers: list[WorkerInfo], version: str) -> Iterator[Finding]:
    others = sorted({worker.version for worker in workers} - {version})
    if others:
        text = f"workers of version {', '.join(others)} beside this {version}"
        yield report.note("fleet.versions", text, "fine during a rolling update; else bring all to one version")


def examine_settings(config: Config) -> Iterator[Finding]:
    """What the loader cannot refuse and still deserves a word."""
    report = Report("configuration")
    yield report.ok("config.valid", f"namespace {config.namespace}, {len(config.profiles())} profile(s)")
    if config.retry_base_seconds < 2:
        text = f"retry_base_seconds = {config.retry_base_seconds:g} is below 2"
        advice = "only for tests: a fail-over that loses a second could lose two launch numbers"
        yield report.warning("config.retry", text, advice)
    if config.settle_seconds < 300:
        text = f"settle_seconds = {config.settle_seconds:g}: AWS accepts a signed call for 300 s"
        advice = "leave it at 600 on AWS: a delayed call could start a second task"
        yield report.warning("config.settle", text, advice)
