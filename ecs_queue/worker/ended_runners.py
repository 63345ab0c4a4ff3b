"""Journals the ends of runners that have left, with what `ecs-queue cost` adds up, and drops their runs.

No record has the task of a runner that left while it was idle, so no poll of a request shows its end. A closed idle run
is never assigned again. Dropping it changes nothing for its runner: an absent run counts as closed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ecs_queue.crash_points import crash_point
from ecs_queue.ecs.clients import Target
from ecs_queue.ecs.gateway import DESCRIBE_BATCH_SIZE
from ecs_queue.errors import ConfigError
from ecs_queue.protocol.ecs_results import EcsErrorKind
from ecs_queue.protocol.record import build_started_by
from ecs_queue.protocol.runs import CLOSED_BY_ECS, Run, RunPhase, queue_of_pool
from ecs_queue.worker.context import WorkerContext

#: Time between rounds, and after a round that has not asked about all. Seconds.
_INTERVAL, _SHORT_INTERVAL = 60.0, 30.0
#: A round takes a token of this bucket, so that all workers together read the runs about so often.
_BUCKET = "ended_runners"
#: DescribeTasks calls of one round, at most: requests have the same quota.
_MAX_CALLS = 10
#: What of a task is journalled: its size, its times and why it stopped, nothing of its commands.
_MEMBERS = (
    *("taskArn", "cpu", "memory", "launchType", "capacityProviderName", "platformFamily", "lastStatus"),
    *("createdAt", "pullStartedAt", "pullStoppedAt", "startedAt", "stoppingAt", "stoppedAt", "stopCode"),
    "stoppedReason",
)


class EndedRunners:
    """One thread calls `step`. An end may be journalled twice; who reads it counts a task once."""

    def __init__(self, context: WorkerContext) -> None:
        self._context = context
        self._calls = 0
        self._is_incomplete = False

    def step(self) -> float:
        """Ask ECS about the tasks of runners that have left; return the seconds until the next round."""
        granted, wait = self._context.ledger.take_tokens(_BUCKET, 1, 1 / _SHORT_INTERVAL, 1)
        if not granted:
            return wait
        self._calls, self._is_incomplete = 0, False
        by_target: dict[Target, list[Run]] = {}
        for run in self._context.ledger.list_runs():
            if run.phase is not RunPhase.IDLE or not run.closed:
                continue
            if run.closed == CLOSED_BY_ECS:  # the poll of its request showed the end of its task
                self._context.ledger.forget_runner(run.name)
            elif run.arn and (target := self._find_target(run)) is not None:
                by_target.setdefault(target, []).append(run)
        for target, runs in by_target.items():
            self._describe(target, sorted(runs, key=lambda run: run.seen_at), DESCRIBE_BATCH_SIZE)
        return _SHORT_INTERVAL if self._is_incomplete else _INTERVAL

    def _find_target(self, run: Run) -> Target | None:
        """Where the task of a run is; None if this worker has another configuration of its queue."""
        try:
            target = self._context.target_for(queue_of_pool(run.pool))
        except ConfigError:
            return None
        # A text of the ledger names a role and an endpoint: it is not followed.
        return target if target.encode() == run.target else None

    def _describe(self, target: Target, runs: Sequence[Run], size: int) -> None:
        """Ask about runs in batches, as far as the rate limit allows now; an error ends the round of its target."""
        for start in range(0, len(runs), size):
            if self._calls >= _MAX_CALLS or self._context.read_limiter.try_acquire(target):
                self._is_incomplete = True
                return
            self._calls += 1
            if not self._describe_batch(target, runs[start : start + size]):
                return

    def _describe_batch(self, target: Target, runs: Sequence[Run]) -> bool:
        """Make one DescribeTasks call, whose token was taken; return whether another one is of use."""
        context = self._context
        result = context.gateway.describe_tasks(target, list(dict.fromkeys(run.arn for run in runs)))
        crash_point("ended_runners.described")
        error = result.error
        if error is None:
            self._note_ends(runs, {str(task.get("taskArn")): task for task in result.tasks}, result.missing_arns)
            return True
        if error.kind is EcsErrorKind.INVALID and len(runs) > 1:  # ECS rejects the whole batch for one bad ARN
            self._describe(target, runs, (len(runs) + 1) // 2)
            return True
        if error.kind is EcsErrorKind.INVALID:
            context.ledger.forget_runner(runs[0].name)
            return True
        if error.kind is EcsErrorKind.THROTTLED:
            context.read_limiter.report_throttled(target)
        context.telemetry.emit("describe_tasks.failed", tasks=len(runs), reason=error.reason)
        return False

    def _note_ends(self, runs: Iterable[Run], shown: Mapping[str, Mapping[str, Any]], missing: Sequence[str]) -> None:
        """Journal what has stopped and drop its run; drop also what ECS knows no more, or what is another's task."""
        context, now = self._context, self._context.ledger.now()
        for run in runs:
            task = shown.get(run.arn)
            if task is None:
                is_over = run.arn in missing and now - run.seen_at >= context.config.settle_seconds
            elif task.get("startedBy") != build_started_by(context.config.namespace, *_split_name(run.name)):
                is_over = True  # the runner's process has said which task it is, and it was not that
            elif is_over := task.get("lastStatus") == "STOPPED":
                self._journal(run, task)
                crash_point("ended_runners.journalled")
            if is_over:
                context.ledger.forget_runner(run.name)

    def _journal(self, run: Run, task: Mapping[str, Any]) -> None:
        self._context.telemetry.emit(
            "runner.ended",
            run=run.name,
            pool=run.pool,
            arn=run.arn,
            turn=run.turn,
            closed=run.closed,
            task={member: task[member] for member in _MEMBERS if task.get(member) is not None},
        )


def _split_name(name: str) -> tuple[str, str, int]:
    """The id, the nonce and the launch that the name of a run consists of."""
    record_id, _, rest = name.partition(".")
    nonce, _, launch = rest.partition(".")
    return record_id, nonce, int(launch) if launch.isdecimal() else 0
