"""Brings records in line with the runs of their runners: when a runner has changed its run, and when a record is due.

The run decides. What this worker has read of it only tells the ledger which end it has verified the MAC of.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ecs_queue.crash_points import crash_point
from ecs_queue.ecs.clients import Target
from ecs_queue.errors import PermanentError
from ecs_queue.protocol import reasons
from ecs_queue.protocol.decisions import NextAction
from ecs_queue.protocol.operations import EndRuling, OperationResult, ResultCode, RunnerTask, SettleRequest
from ecs_queue.protocol.record import STOPPED_BY_START_TIMEOUT, Record
from ecs_queue.protocol.retry import RecordedDraw
from ecs_queue.protocol.runner_ends import decide_runner_end
from ecs_queue.protocol.runs import Run, RunPhase, queue_of_pool
from ecs_queue.worker.completion import Completion
from ecs_queue.worker.context import WorkerContext
from ecs_queue.worker.task_stopper import TaskStopper
from ecs_queue.worker.thread_pool import LaunchThreadPool

#: How long a round waits for a runner, at most, and how many it takes at once.
_WAIT_SECONDS, _BATCH = 1.0, 200
#: How often a round reads a run again whose end has changed since it was read.
_ATTEMPTS = 3
#: Who stops a task whose request has no stop of a caller.
_STOPPED_BY_WORKER = "ecs-queue"


class RunSettler:
    """Thread-safe. One thread calls `step`, the poller `settle_due`."""

    def __init__(self, context: WorkerContext, thread_pool: LaunchThreadPool, task_stopper: TaskStopper) -> None:
        self._context = context
        self._thread_pool = thread_pool
        self._task_stopper = task_stopper
        self._completion = Completion(context)

    def step(self) -> float:
        """Settle what runners have changed; wait for that. Return the seconds until the next round."""
        runs = self._context.ledger.pop_changed_runs(_WAIT_SECONDS, _BATCH)
        if runs:
            crash_point("run_settler.taken")
            self._settle([run.id for run in runs if run.phase is not RunPhase.IDLE], runs)
        return 0.0

    def settle_due(self, records: Sequence[Record]) -> list[Record]:
        """Settle those of the due records that have runs; return the records whose tasks are to be described."""
        with_run = {record.id: record for record in records if record.run}
        if not with_run:
            return list(records)
        runs = self._context.ledger.read_runs([record.run for record in with_run.values()])
        results = self._settle(list(with_run), runs)
        asks = (ResultCode.DESCRIBE_TASK, ResultCode.STOP_TASK)
        unfetched = [run.id for run in runs if run is not None and run.phase is RunPhase.ASSIGNED]
        self._stop_voided([with_run[record_id] for record_id in unfetched if record_id in with_run], results)
        found = [each.record for each in results.values() if each.record is not None and each.code in asks]
        args = {record.id: record.args for record in records}
        for record in found:
            record.args = args[record.id]  # they sign the target
        return [*(record for record in records if not record.run), *found]

    def _stop_voided(self, unfetched: Sequence[Record], results: Mapping[str, OperationResult]) -> None:
        """Stop the tasks of runners whose unfetched commands were taken away, to save what they cost.

        The stop proves nothing. If the worker dies before it, the runner finds its run closed or absent, and exits.
        """
        ended = (ResultCode.REQUEUED, ResultCode.ENDED)
        voided = [record for record in unfetched if record.arn and results[record.id].code in ended]
        tasks = [RunnerTask(record.run, record.arn) for record in voided]
        for record, may_stop in zip(voided, self._context.ledger.may_stop(tasks) if tasks else (), strict=True):
            found = results[record.id].record
            is_late = found is not None and found.reason == reasons.START_TIMED_OUT % record.start_timeout
            if may_stop:
                self._stop(record, STOPPED_BY_START_TIMEOUT if is_late else _STOPPED_BY_WORKER)

    def find_held(self, records: Sequence[Record]) -> set[str]:
        """Return the ids of the records whose present launch a run has."""
        with_run = [record for record in records if record.run]
        runs = self._context.ledger.read_runs([record.run for record in with_run]) if with_run else []
        pairs = zip(with_run, runs, strict=True)
        return {each.id for each, run in pairs if run is not None and run.is_of(each.id, each.nonce, each.launch)}

    def _settle(self, ids: Sequence[str], runs: Sequence[Run | None]) -> dict[str, OperationResult]:
        """Settle records; a run whose end has changed since it was read is read again."""
        by_record = {run.id: run for run in runs if run is not None and run.phase is not RunPhase.IDLE}
        results: dict[str, OperationResult] = {}
        records: dict[str, Record] = {}  # those that were asked for, since their rules may decide
        for _ in range(_ATTEMPTS):
            if not ids:
                break
            requests = [self._build_request(each, by_record.get(each), records.get(each)) for each in ids]
            for request, result in zip(requests, self._context.ledger.settle(requests), strict=True):
                results[request.id] = result
            crash_point("run_settler.settled")
            for record_id in ids:
                self._handle_result(record_id, by_record.get(record_id), results[record_id])
            unread = [each.record for each in results.values() if each.record and each.code is ResultCode.END_UNREAD]
            ids = [record.id for record in unread]
            records = {record.id: record for record in unread}
            found = self._context.ledger.read_runs([record.run for record in unread]) if unread else []
            by_record = {record.id: run for record, run in zip(unread, found, strict=True) if run is not None}
        return results

    def _build_request(self, record_id: str, run: Run | None, record: Record | None) -> SettleRequest:
        end = None if run is None else run.end
        context = self._context
        wait = context.backoff.delay(1, context.rng)
        if run is None or end is None:
            return SettleRequest(id=record_id, wait=wait)
        queue = queue_of_pool(run.pool)
        is_verified = context.runner_keys(queue).verify_end(context.config.namespace, queue, run.name, end)
        if not is_verified:
            context.telemetry.emit("runner.end_rejected", id=record_id, run=run.name, turn=end.turn)
        ruling = EndRuling.UNKNOWN
        if record is not None and is_verified:
            draw = RecordedDraw(context.rng)
            decision = decide_runner_end(record, end, context.backoff, draw)
            ruling, wait = decision.ruling, decision.wait
            inputs = {"record": record, "end": end, "backoff": context.backoff, "draw": draw.value}
            fields = {"id": record_id, "run": run.name, "ruling": ruling.value}
            context.telemetry.emit("decision.runner_end", **fields, **inputs, decision=decision)
        return SettleRequest(id=record_id, end=end, is_verified=is_verified, wait=wait, ruling=ruling)

    def _handle_result(self, record_id: str, run: Run | None, result: OperationResult) -> None:
        context, record = self._context, result.record
        if result.code is ResultCode.END_UNREAD or record is None:
            return
        action = context.decide_next_action("settle", record_id, result.code)
        if action is NextAction.PUBLISH_RESULT:
            self._completion.complete(record)
        elif action is NextAction.AWAIT_RELAUNCH:
            context.tracing.end_runner_attempt(record, run)
            context.telemetry.emit(
                "request.retry_scheduled", id=record.id, attempt=record.attempt, reason=record.reason
            )
        elif action is NextAction.STOP_TASK:
            self._stop(record, record.stop_requested_by)
        if action in (NextAction.PUBLISH_RESULT, NextAction.AWAIT_RELAUNCH):
            context.admission.launch_over(record.queue)
            if run is not None and run.phase is RunPhase.ENDED:
                context.telemetry.emit("runner.idle", run=run.name, pool=run.pool, turn=run.turn, labels=record.labels)
        if run is not None and run.phase is RunPhase.ENDED and action is not NextAction.STOP_TASK and not run.closed:
            self._thread_pool.try_waiting(queue_of_pool(run.pool))

    def _stop(self, record: Record, stop_by: str) -> None:
        """Stop the task of a runner whose run is closed or gone, so that it serves nothing else."""
        try:
            target = Target.decode(self._context.verifier.encoded_target(record))
        except PermanentError:
            return  # another worker may know it: the record comes due again
        self._task_stopper.request_stop(target, record, stop_by)
