"""Stops the tasks of silent runners without a command: a frozen one would be paid for without end."""

from __future__ import annotations

from ecs_queue.crash_points import crash_point
from ecs_queue.errors import ConfigError
from ecs_queue.protocol.ecs_results import EcsErrorKind
from ecs_queue.protocol.runs import Run, queue_of_pool
from ecs_queue.worker.context import WorkerContext

_INTERVAL = 60.0
_BATCH = 100


class SilentRunners:
    """One thread calls `step`."""

    def __init__(self, context: WorkerContext) -> None:
        self._context = context

    def step(self) -> float:
        """Close what is silent and stop its tasks; return the seconds until the next round."""
        closed = self._context.ledger.close_silent(_BATCH)  # and a barrier: no request is given to them any more
        if closed:
            crash_point("silent_runners.closed")
        for run in closed:
            self._stop(run)
        return _INTERVAL

    def _stop(self, run: Run) -> None:
        context = self._context
        try:
            target = context.target_for(queue_of_pool(run.pool))
        except ConfigError:
            return
        if target.encode() != run.target:  # a text of the ledger names a role and an endpoint: it is not followed
            return
        context.telemetry.emit("runner.silent", run=run.name, pool=run.pool, arn=run.arn)
        context.stop_task_limiter.charge(target)
        error = context.gateway.stop_task(target, run.arn, "ecs-queue: this runner does not answer any more").error
        crash_point("silent_runners.stopped")
        if error is None or error.kind is EcsErrorKind.TASK_NOT_FOUND:
            context.ledger.forget_runner(run.name)
