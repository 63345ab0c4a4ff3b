"""A journal with every kind of decision, made by a worker on a fake ECS.

`python -m tests.journal.golden_journal > tests/journal/golden/vN.jsonl` makes the golden file of a new version.
The files of older versions are not changed.
"""

from __future__ import annotations

import sys
from typing import Any

import msgspec

from ecs_queue.journal import JournalEvent
from ecs_queue.journal.codec import decode_event, encode_event
from ecs_queue.journal.jsonl import encode_line
from ecs_queue.protocol.ecs_results import RunTaskResult, RunTaskResultKind
from ecs_queue.protocol.record import build_started_by
from ecs_queue.protocol.runs import RunEnd
from tests.fake_ecs import DENIED, LostResult
from tests.worker.harness import WorkerHarness
from tests.worker.warm_harness import WARM, settle, start

OURS = "arn:aws:ecs:us-east-1:123456789012:task/jobs/ours"


class RecordingSink:
    """A sink that encodes each event at once, with the time of the harness."""

    def __init__(self, harness: WorkerHarness, first: int = 0) -> None:
        self._harness = harness
        self._first = first
        self.events: list[JournalEvent] = []
        harness.worker.context.telemetry.add_sink(self.record_event)

    def record_event(self, name: str, fields: dict[str, Any]) -> None:
        raw = msgspec.json.decode(encode_event(self._harness.clock(), name, fields))
        self.events.append(decode_event({**raw, "seq": f"{self._first + len(self.events) + 1}-0.0", "worker": "w"}))


def expect_no_closing_line(warning: str) -> None:
    """The warning about a file of the first version, which had no closing line."""
    assert "has no closing line" in warning, warning


def record_every_decision() -> list[JournalEvent]:
    """Run every scenario, and return the events of all of them."""
    harness = WorkerHarness()
    sink = RecordingSink(harness)
    for record_part in (
        _endings,
        _run_task_results,
        _record_token_conflicts,
        _ambiguous_calls,
        _record_stops,
        _forgotten_task,
    ):
        record_part(harness)
    return sink.events + record_runner_end(len(sink.events))


def record_runner_end(first: int) -> list[JournalEvent]:
    """A command of a warm queue that fails under retry rules; its events are numbered from `first` + 1 on."""
    rules = '[{"on_exit_code": "3", "action": "retry", "delay": 60}]'
    harness = WorkerHarness(WARM | {"AIRFLOW__AWS_ECS_EXECUTOR__RETRY_RULES": rules})
    sink = RecordingSink(harness, first)
    runner = start(harness, "warm")
    runner.next(RunEnd(turn=1, exit_code=3))
    settle(harness)
    return sink.events


def _endings(harness: WorkerHarness) -> None:
    """Success, failure, relaunch, start failure, interruption."""
    environment = [{"name": "API_TOKEN", "value": "hunter2"}]
    arn = harness.launch("ok", executor_config={"environment": environment})
    harness.advance(1)
    harness.ecs.mark_running(arn)
    harness.advance(1)
    harness.ecs.finish(arn)
    failed, relaunched = harness.launch("failed"), harness.launch("relaunched", relaunch="any_failure")
    for ended in (failed, relaunched):
        harness.ecs.finish(ended, exit_code=3)
    harness.ecs.fail_to_start(harness.launch("never"))
    harness.ecs.interrupt(harness.launch("spot", relaunch="interrupted"))
    harness.advance_in_steps(70)
    for task in harness.ecs.live_tasks():
        harness.ecs.finish(task["taskArn"])
    harness.advance_in_steps(15)


def _run_task_results(harness: WorkerHarness) -> None:
    """Each kind of result of RunTask."""
    kinds = (
        RunTaskResultKind.THROTTLED,
        RunTaskResultKind.NEVER_SENT,
        RunTaskResultKind.CAPACITY,
        RunTaskResultKind.START_FAILURE,
        RunTaskResultKind.PERMANENT,
    )
    for kind in kinds:
        reason = f"ECS said {kind.value} to postgres://jobs:hunter2@db/x"
        harness.ecs.run_task_results.append(RunTaskResult(kind, reason=reason, error_code=kind.value))
        harness.worker.handle_message(harness.new_envelope(f"answered-{kind.value.replace('_', '-')}"))
    harness.ecs.run_task_results.append(LostResult.SERVER_ERROR)
    harness.worker.handle_message(harness.new_envelope("answered-5xx"))
    harness.advance_in_steps(140, step=10)


def _record_token_conflicts(harness: WorkerHarness) -> None:
    """Token conflicts with our task, with a foreign task, and with a task that is not described."""
    body = harness.put_request("conflict-ours")
    harness.ecs.add_task(OURS, build_started_by("ecs-queue", "conflict-ours", harness.record("conflict-ours").nonce, 1))
    harness.ecs.add_task(f"{OURS}-not", "other/owner")
    for record_id, named in (("conflict-ours", OURS), ("conflict-other", f"{OURS}-not"), ("conflict-gone", "arn:x")):
        harness.ecs.run_task_results.append(
            RunTaskResult(RunTaskResultKind.CONFLICT, reason="token used", conflicting_arns=(named,))
        )
        harness.worker.handle_message(body if record_id == "conflict-ours" else harness.new_envelope(record_id))


def _ambiguous_calls(harness: WorkerHarness) -> None:
    """Calls whose response was lost, and ListTasks calls that search for their tasks."""
    for record_id, lost in (("ambiguous-found", LostResult.IMMEDIATE), ("ambiguous-absent", LostResult.NO_EFFECT)):
        harness.ecs.run_task_results.append(lost)
        harness.worker.handle_message(harness.new_envelope(record_id))
        harness.memory_ledger.stop([record_id], "alice")
    harness.ecs.list_error = DENIED
    harness.advance_in_steps(20)
    harness.ecs.list_error = None
    harness.advance_in_steps(800, step=40)


def _record_stops(harness: WorkerHarness) -> None:
    """Stops by a user, and by the time limit."""
    harness.ecs.mark_running(harness.launch("stopped"))
    harness.ecs.mark_running(harness.launch("slow", time_limit=5.0))
    harness.advance(1)
    harness.memory_ledger.stop(["stopped"], "alice")
    harness.advance_in_steps(15)


def _forgotten_task(harness: WorkerHarness) -> None:
    """A task that ECS forgets."""
    harness.ecs.hidden_arns.add(harness.launch("forgotten"))
    harness.advance_in_steps(700, step=50)


if __name__ == "__main__":
    for event in record_every_decision():
        sys.stdout.buffer.write(encode_line(event) + b"\n")
