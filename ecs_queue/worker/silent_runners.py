"""Stops the tasks of silent runners without a command: a frozen runner would cost money for ever."""

from __future__ import annotations

import math

from ecs_queue.crash_points import crash_point
from ecs_queue.errors import ConfigError
from ecs_queue.protocol.ecs_results import EcsErrorKind
from ecs_queue.protocol.runs import Run, queue_of_pool
from ecs_queue.worker.context import WorkerContext

_INTERVAL = 60.0
#: How long an order to stop a task has time to be carried out, before it is repeated. Seconds.
_ORDER_SECONDS = 600.0
_PAGE = 100
#: A round takes a token of this bucket, which gets this many in the interval.
_BUCKET, _ROUNDS = "silent_runners", 2


class SilentRunners:
    """One thread calls `step`."""

    def __init__(self, context: WorkerContext) -> None:
        self._context = context
        self._ordered_at: dict[str, float] = {}  # the name of a run -> when ECS took the order to stop its task

    def step(self) -> float:
        """Close what is silent and stop its tasks; return the seconds until the next round."""
        ledger = self._context.ledger
        granted, wait = ledger.take_tokens(_BUCKET, 1, _ROUNDS / _INTERVAL, 1)  # of all workers together
        if not granted:
            return wait
        silent: set[str] = set()
        offset = 0
        while offset >= 0:
            closed, offset = ledger.close_silent(offset, _PAGE)  # and a barrier: they get no further request
            if closed:
                crash_point("silent_runners.closed")
            for run in closed:
                silent.add(run.name)
                if self._context.monotonic() - self._ordered_at.get(run.name, -math.inf) >= _ORDER_SECONDS:
                    self._stop(run)
        self._ordered_at = {name: at for name, at in self._ordered_at.items() if name in silent}
        return _INTERVAL

    def _stop(self, run: Run) -> None:
        """Stop the task of a run. `EndedRunners` drops the run when the task has ended."""
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
        if error is None:
            self._ordered_at[run.name] = context.monotonic()
        elif error.kind is EcsErrorKind.TASK_NOT_FOUND:
            context.ledger.forget_runner(run.name)
