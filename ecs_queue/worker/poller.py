"""Follows launched tasks to their end: due records, in batches of 100, with DescribeTasks at most at the quota.

No worker is special: `Ledger.lease_due` leases what it hands out, and when this worker dies the records come due again
elsewhere. Two trackers on one task do no harm: an outcome is a compare-and-set.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

from ecs_queue.crash_points import crash_point
from ecs_queue.ecs.clients import Target
from ecs_queue.ecs.gateway import DESCRIBE_BATCH_SIZE
from ecs_queue.errors import PermanentError, RetryableError
from ecs_queue.protocol.decisions import build_lost_update, decide_missing
from ecs_queue.protocol.ecs_results import EcsError, EcsErrorKind
from ecs_queue.protocol.operations import TaskUpdate
from ecs_queue.protocol.record import Record
from ecs_queue.protocol.state_machine import is_list_only
from ecs_queue.protocol.states import State
from ecs_queue.runtask.launch_spec import build_queued_task
from ecs_queue.worker.context import WorkerContext
from ecs_queue.worker.fair_queue import AMBIGUOUS_PRIORITY, Job, JobKind
from ecs_queue.worker.missing_tasks import MissingTasks
from ecs_queue.worker.rate_limiter import RateLimiter
from ecs_queue.worker.reconciler import Reconciler
from ecs_queue.worker.thread_pool import LaunchThreadPool

#: The most records that one round takes: ten describe calls.
_ROUND_SIZE = 1000
#: Seconds between rounds: how long a marked stop may wait for somebody to see it.
_INTERVAL = 0.25
#: How often the number of tasks in flight is read, which the polling adapts to, and what is over is forgotten. Seconds.
_MAINTENANCE_INTERVAL = 5.0
#: Seconds until the next look after trouble, and after trouble that will not pass by itself.
_ERROR_DELAY, _LASTING_ERROR_DELAY = 2.0, 60.0
#: How often, and after how many seconds, a suspect asks for its turn before it is left for later.
_LOCK_ATTEMPTS, _LOCK_DELAY = 20, 0.05
#: A cluster that does not exist must have been missed for so many times the grace time (an hour by default).
_CLUSTER_GONE_FACTOR = 6
#: Seconds until a launch in doubt is looked at again for which there was no room.
_POOL_FULL_DELAY = 2.0


class Poller:
    """`recover` takes LAUNCHING records whose lease is over, with the quota whose token it is given.

    One thread calls `step`.
    """

    def __init__(
        self, context: WorkerContext, thread_pool: LaunchThreadPool, recover: Callable[[Record, RateLimiter], None]
    ) -> None:
        self._context = context
        self._thread_pool = thread_pool
        self._recover = recover
        self._missing = MissingTasks(context.monotonic, context.config.settle_seconds)
        self.reconciler = Reconciler(context, thread_pool)
        self._poison_lock = threading.Lock()
        self._maintained_at = float("-inf")

    def step(self) -> float:
        """One round; how many seconds to rest before the next."""
        due = self._context.ledger.lease_due(_ROUND_SIZE)
        if due:
            crash_point("poller.leased")
        self._maintain(bool(due))
        self._submit_recoveries([record for record in due if record.state is State.LAUNCHING])
        batches: dict[str, list[Record]] = {}
        for record in due:
            if record.state is State.LAUNCHED:
                batches.setdefault(self._context.verifier.encoded_target(record), []).append(record)
        for encoded, records in batches.items():
            self._poll_target(encoded, records)
        return 0.0 if len(due) == _ROUND_SIZE else _INTERVAL

    def _submit_recoveries(self, records: Sequence[Record]) -> None:
        """As many as there is room for: after an outage there may be thousands, and each comes due again and again."""
        later: dict[str, float] = {}
        now = self._context.ledger.now() if records else 0.0
        for record in records:
            if self._thread_pool.remaining_capacity(record.queue, JobKind.RECOVER):
                self._context.telemetry.emit("launch.lease_expired", id=record.id, launch=record.launch)
                self._thread_pool.submit(self._build_recovery_job(record, now))
            else:
                later[record.id] = _POOL_FULL_DELAY
        if later:
            self._context.ledger.reschedule_poll(later)

    def _build_recovery_job(self, record: Record, now: float) -> Job:
        """With the token of the call that it will most probably be."""
        parts = self._context
        looks = is_list_only(record, now, parts.config.startup_allowance)
        quota = parts.read_limiter if looks else parts.run_task_limiter
        target: Target | None = None
        with suppress(PermanentError):  # `recover` tells of it
            target = Target.decode(parts.verifier.encoded_target(record))
        permit = None if target is None else quota.limit_for(target)
        recover = partial(self._recover, record, quota)
        if record.abandoned_claims:  # no word came of its last holder: it died?
            recover = partial(self._recover_exclusively, record, quota, target)
        return Job(recover, JobKind.RECOVER, record.queue, AMBIGUOUS_PRIORITY, permit)

    def _recover_exclusively(self, record: Record, limiter: RateLimiter, target: Target | None) -> None:
        """One suspect at a time: it may break this worker, and the others must not be counted with it.

        `target`: where the token is for; None: there is none.
        """
        for _ in range(_LOCK_ATTEMPTS):
            if self._poison_lock.acquire(blocking=False):
                try:
                    self._recover(record, limiter)
                finally:
                    self._poison_lock.release()
                return
            if self._context.wait_for_stop(_LOCK_DELAY):
                break
        if target is not None:
            limiter.return_token(target)
        self._context.ledger.reschedule_poll({record.id: _POOL_FULL_DELAY})

    def _poll_target(self, encoded: str, records: list[Record]) -> None:
        try:
            target = Target.decode(encoded)
        except PermanentError as error:
            if encoded:  # else it is only this worker that has no configuration for their queue
                self._end_unreadable_stopped(records, str(error))
            self._reschedule_failed(records, str(error), _LASTING_ERROR_DELAY)
            return
        self._register_in_flight(records)
        self._describe_in_batches(target, records, DESCRIBE_BATCH_SIZE)

    def _describe_in_batches(self, target: Target, records: list[Record], size: int) -> None:
        """As many as the quota allows now; the others' looks are put off, and another account's need not wait."""
        for start in range(0, len(records), size):
            wait = self._context.read_limiter.try_acquire(
                target, expected_calls=math.ceil((len(records) - start) / size)
            )
            if wait:
                late = records[start:]
                self._context.ledger.reschedule_poll(
                    dict.fromkeys((record.id for record in late), max(wait, _INTERVAL))
                )
                return
            self._describe_batch(target, records[start : start + size])

    def _end_unreadable_stopped(self, records: Sequence[Record], reason: str) -> None:
        """A newer worker may know the target. Somebody who asks for a stop must not wait for one: UNKNOWN."""
        stopped = [record for record in records if record.stop_requested_by]
        news = [
            build_lost_update(
                record, f"it was to be stopped (by {record.stop_requested_by}), but {reason} Stop {record.arn} by hand"
            )
            for record in stopped
        ]
        if not news:
            return
        answers = self._context.ledger.update_tasks(news)
        crash_point("poller.unreadable_ended")
        for record, outcome, answer in zip(stopped, news, answers, strict=True):
            self.reconciler.handle_outcome_result(record, outcome, answer)

    def _register_in_flight(self, records: Sequence[Record]) -> None:
        """Launched elsewhere, followed here from now on: fetch what the due records leave out."""
        unknown = self._context.in_flight.untracked_ids([record.id for record in records])
        for record in self._context.ledger.get(unknown) if unknown else ():
            if record is not None and record.state is State.LAUNCHED and record.request:
                request = self._context.verifier.decode_request_or_none(record)
                if request is None:
                    continue  # a newer worker's: it is followed all the same
                self._context.in_flight.add(record.arn, build_queued_task(request, record.attempt, record.not_before))

    def _describe_batch(self, target: Target, batch: list[Record]) -> None:
        """The token of this call has been taken."""
        shown = self._context.gateway.describe_tasks(target, [record.arn for record in batch])
        crash_point("poller.described")
        trouble = shown.error
        if trouble is not None and trouble.kind is EcsErrorKind.INVALID and len(batch) > 1:
            # One bad ARN spoils the batch: find it by halves.
            self._describe_in_batches(target, batch, (len(batch) + 1) // 2)
            return
        if trouble is not None and trouble.kind is EcsErrorKind.THROTTLED:
            self._context.read_limiter.report_throttled(target)
        queues = {record.queue for record in batch}
        if trouble is None:
            self._context.circuit_breakers.clear_read_errors(queues, "DescribeTasks")
            by_arn = {str(task.get("taskArn")): task for task in shown.tasks}
            self._reconcile_batch(target, batch, by_arn, dict.fromkeys(shown.missing_arns, ""))
            return
        for queue in queues:
            self._context.circuit_breakers.report_read_error(queue, "DescribeTasks", trouble)
        if trouble.kind is EcsErrorKind.CLUSTER_NOT_FOUND:
            self._reconcile_batch(target, batch, {}, dict.fromkeys((record.arn for record in batch), trouble.reason))
        else:
            self._reschedule_failed(batch, trouble.reason, _retry_delay(trouble))

    def _reconcile_batch(
        self, target: Target, batch: list[Record], by_arn: Mapping[str, Mapping[str, Any]], missing: Mapping[str, str]
    ) -> None:
        """`missing`: the ARNs that ECS does not know, each with the reason when there is more to say than that."""
        now = self._context.ledger.now()
        looks: dict[str, float] = {}
        news: list[TaskUpdate] = []
        records = {record.id: record for record in batch}
        for record in batch:
            found = self._reconcile_record(target, record, by_arn.get(record.arn), missing.get(record.arn), now)
            if isinstance(found, TaskUpdate):
                news.append(found)
            else:
                looks[record.id] = found
        if looks:
            self._context.ledger.reschedule_poll(looks)
            crash_point("poller.rescheduled")
        answers = self._context.ledger.update_tasks(news)
        if news:
            crash_point("poller.outcomes_written")
        for outcome, answer in zip(news, answers, strict=True):
            self.reconciler.handle_outcome_result(records[outcome.id], outcome, answer)

    def _reconcile_record(
        self, target: Target, record: Record, task: Mapping[str, Any] | None, missing: str | None, now: float
    ) -> TaskUpdate | float:
        """News for the ledger, or in how many seconds to look again."""
        if task is None:
            return _ERROR_DELAY if missing is None else self._handle_missing(record, missing, now)
        self._missing.clear(record.arn)
        try:
            return self.reconciler.reconcile_poll(target, record, task, now)
        except RetryableError:
            raise
        except Exception as error:  # noqa: BLE001 - one task that nobody can read must not hide the others
            reason = f"{record.arn}: {type(error).__name__}: {error}"
            self._context.telemetry.emit("describe_tasks.failed", tasks=1, reason=reason)
            return _LASTING_ERROR_DELAY

    def _handle_missing(self, record: Record, ecs_reason: str, now: float) -> TaskUpdate | float:
        """MISSING: right after RunTask it means "not visible yet"; only after the grace time is the task lost.

        `why`: the cluster is gone, says ECS. Wrong credentials look the same, so that is given more time.
        """
        self._context.telemetry.emit("task.missing", id=record.id, arn=record.arn)
        grace = self._context.config.settle_seconds * (_CLUSTER_GONE_FACTOR if ecs_reason else 1)
        gone_for = min(self._missing.mark_missing(record.arn), now - record.launched_at)
        if gone_for >= grace and not self._context.poll_schedule.may_be_lost(record, now - gone_for, now):
            grace = math.inf  # its end may be among the events
        found = decide_missing(record, gone_for, grace, ecs_reason)
        if isinstance(found, TaskUpdate):
            told = {"id": record.id, "arn": record.arn}
            inputs = {"record": record, "missing_for": gone_for, "grace": grace, "ecs_reason": ecs_reason}
            self._context.telemetry.emit("decision.missing_task", **told, **inputs, decision=found)
            self._missing.clear(record.arn)
        return found

    def _reschedule_failed(self, records: Sequence[Record], reason: str, wait: float) -> None:
        self._context.telemetry.emit("describe_tasks.failed", tasks=len(records), reason=reason)
        self._context.ledger.reschedule_poll(dict.fromkeys((record.id for record in records), wait))

    def _maintain(self, has_work: bool) -> None:
        """Now and then: forget what is over, and count what all workers follow, for the quota is shared."""
        if self._context.monotonic() - self._maintained_at < _MAINTENANCE_INTERVAL:
            return
        self._maintained_at = self._context.monotonic()
        self._context.in_flight.forget_untouched()
        self._missing.forget_old()
        self.reconciler.forget_old()
        # With events hardly anything is due, and what they tell of is given its next look by this number, too.
        if has_work or self._context.config.uses_events():
            counts = self._context.ledger.count_by_state().values()
            self._context.poll_schedule.in_flight = sum(states.get(State.LAUNCHED, 0) for states in counts)


def _retry_delay(error: EcsError) -> float:
    lasting = error.kind in (EcsErrorKind.INVALID, EcsErrorKind.DENIED)
    return _LASTING_ERROR_DELAY if lasting else _ERROR_DELAY
