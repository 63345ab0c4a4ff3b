"""Sends one request through the whole system and reports each step."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ecs_queue.client.client import EcsQueue
from ecs_queue.errors import EcsQueueError, ResultTimeout
from ecs_queue.findings import Finding, Reporter
from ecs_queue.messages.result import TaskResult

STOPPED_BY = "doctor"


def send_canary(client: EcsQueue, queue: str, command: Sequence[str], timeout: float) -> Iterator[Finding]:
    """Submit `command` to the queue and wait for its result; stop it after `timeout` seconds."""
    reporter = Reporter(queue)
    try:
        workers = client.ledger.list_workers()
        handle = client.submit(command, queue=queue, expires_in=timeout)
    except EcsQueueError as error:
        yield reporter.error("canary.submit", str(error), "correct what it names")
        return
    yield reporter.ok("canary.submit", f"request {handle.id} was accepted")
    if not any(queue in worker.queues for worker in workers):
        text = f"no live worker serves this queue; the canary waits for one, at most {timeout:g} s"
        yield reporter.warning("canary.unserved", text, f"start one: ecs-queue worker --queues {queue}")
    try:
        result = handle.result(timeout)
    except ResultTimeout:
        record = client.status(handle.id)
        client.stop(handle.id, by=STOPPED_BY)
        text = f"no result within {timeout:g} s; it was {record.state}: {record.reason or 'no reason known'}"
        advice = f"`ecs-queue status {handle.id}` shows more. It is being stopped. Does a live worker serve {queue}?"
        yield reporter.error("canary.result", text, advice)
        return
    yield _result_finding(reporter, result)


def _result_finding(reporter: Reporter, result: TaskResult) -> Finding:
    took = _elapsed(result, "queued_at", "finished_at")
    launch = _elapsed(result, "queued_at", "launched_at")
    text = f"{result.state} after {took}, launched after {launch}, attempts {result.attempts}: {result.reason}"
    if result.succeeded:
        return reporter.ok("canary.result", text)
    advice = (
        f"`ecs-queue status {result.id}` shows more; check that the image has the command, or choose another one: "
        "--canary-command 'python --version'"
    )
    return reporter.error("canary.result", text, advice)


def _elapsed(result: TaskResult, start: str, end: str) -> str:
    first, last = getattr(result, start), getattr(result, end)
    return "?" if first is None or last is None else f"{(last - first).total_seconds():.1f} s"
