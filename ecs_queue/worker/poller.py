"""Follows launched tasks to their end: polls due records in batches of 100, within the DescribeTasks rate limit.

No worker is special: `Ledger.lease_due` leases what it hands out, and when this worker dies the records come due again
elsewhere. Two pollers on one task do no harm, since an update is a compare-and-set.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import msgspec

from ecs_queue.crash_points import crash_point
from ecs_queue.ecs.clients import Target
from ecs_queue.ecs.gateway import DESCRIBE_BATCH_SIZE
from ecs_queue.error_text import typed_error_text
from ecs_queue.errors import MissingRight, PermanentError, RetryableError
from ecs_queue.protocol.decisions import LASTING_READ_ERRORS, build_lost_update, decide_missing
from ecs_queue.protocol.ecs_results import EcsErrorKind
from ecs_queue.protocol.operations import OperationResult, ResultCode, TaskUpdate
from ecs_queue.protocol.polling import poll_interval, repeats_record
from ecs_queue.protocol.record import Record
from ecs_queue.protocol.record_moves import note_observation
from ecs_queue.protocol.state_machine.claims import is_list_only
from ecs_queue.protocol.states import State
from ecs_queue.tasks import EcsExecutorTask, EcsTaskCollection
from ecs_queue.worker.context import WorkerContext
from ecs_queue.worker.fair_queue import AMBIGUOUS_PRIORITY, Job, JobKind
from ecs_queue.worker.missing_tasks import MissingTasks
from ecs_queue.worker.rate_limiter import RateLimiter
from ecs_queue.worker.reconciler import Reconciler
from ecs_queue.worker.run_settler import RunSettler
from ecs_queue.worker.task_stopper import TaskStopper
from ecs_queue.worker.thread_pool import LaunchThreadPool

#: The largest number of records in one round: ten DescribeTasks calls.
_ROUND_SIZE = 1000
#: Time between rounds, and so the longest time until a worker sees a marked stop. Seconds.
_INTERVAL = 0.25
#: How often finished tasks are forgotten, and the number of tasks in flight is read, to which polling adapts. Seconds.
_MAINTENANCE_INTERVAL = 5.0
#: Time until the next poll after an error, and after an error that will not pass by itself. Seconds.
_ERROR_DELAY, _LASTING_ERROR_DELAY = 2.0, 60.0
#: How often, and at which interval in seconds, a poison suspect tries to get its turn before it is put off.
_LOCK_ATTEMPTS, _LOCK_DELAY = 20, 0.05
#: A cluster that does not exist must be missing for this many grace times (an hour by default).
_CLUSTER_GONE_FACTOR = 6
#: Time until an ambiguous launch for which the thread pool had no room is tried again. Seconds.
_POOL_FULL_DELAY = 2.0


class Poller:
    """Polls launched tasks, and submits ambiguous launches whose lease is over to `recover`. One thread calls `step`.

    `recover` gets the record and the rate limiter whose token was taken for it.
    """

    def __init__(
        self, context: WorkerContext, thread_pool: LaunchThreadPool, recover: Callable[[Record, RateLimiter], None]
    ) -> None:
        self._context = context
        self._thread_pool = thread_pool
        self._recover = recover
        self._held = context.held_tasks
        self._has_events = context.config.uses_events()
        self._missing = MissingTasks(context.monotonic, context.config.settle_seconds)
        self._task_stopper = TaskStopper(context, thread_pool)
        self.reconciler = Reconciler(context, self._task_stopper)
        self.run_settler = RunSettler(context, thread_pool, self._task_stopper)
        self._poison_lock = threading.Lock()
        self._maintained_at = float("-inf")
        self._clock_ahead: float | None = None  # the ledger's clock less ours; None: not read in this round

    def step(self) -> float:
        """Poll what is due; return the seconds until the next round."""
        self._clock_ahead = None
        due = self._context.ledger.lease_due(_ROUND_SIZE)
        if due:
            crash_point("poller.leased")
        for record in due:  # what the ledger shows is newer
            self._held.let_go(record.id)
        by_target = self._held.take_due()
        self._maintain(bool(due or by_target))
        self._submit_recoveries([record for record in due if record.state is State.LAUNCHING])
        for record in self.run_settler.settle_due([record for record in due if record.state is State.LAUNCHED]):
            if record.state is State.LAUNCHED:
                by_target.setdefault(self._context.verifier.encoded_target(record), []).append(record)
        for encoded, records in by_target.items():
            self._poll_target(encoded, records)
        return 0.0 if len(due) == _ROUND_SIZE else _INTERVAL

    def give_back(self) -> None:
        """Let other workers poll at once what this one holds; nothing is held any more."""
        ids = self._held.close()
        if ids:
            self._context.ledger.reschedule_poll(dict.fromkeys(ids, 0.0))

    def _submit_recoveries(self, records: Sequence[Record]) -> None:
        """Submit what there is room for: after an outage thousands may be due, and each comes due again and again."""
        delays: dict[str, float] = {}
        now = self._context.ledger.now() if records else 0.0
        for record in records:
            if self._thread_pool.remaining_capacity(record.queue, JobKind.RECOVER):
                self._context.telemetry.emit("launch.lease_expired", id=record.id, launch=record.launch)
                self._thread_pool.submit(self._build_recovery_job(record, now))
            else:
                delays[record.id] = _POOL_FULL_DELAY
        if delays:
            self._context.ledger.reschedule_poll(delays)

    def _build_recovery_job(self, record: Record, now: float) -> Job:
        """Return a job that needs the token of the call that will most probably follow."""
        context = self._context
        list_only = is_list_only(record, now, context.config.startup_allowance)
        limiter = context.read_limiter if list_only else context.launch_limiter(record.queue)
        target: Target | None = None
        with suppress(PermanentError):  # `recover` reports it
            target = Target.decode(context.verifier.encoded_target(record))
        rate_limit = None if target is None else limiter.limit_for(target)
        recover = partial(self._recover, record, limiter)
        if record.abandoned_claims:  # its last holder never reported back: it may have died of this record
            recover = partial(self._recover_exclusively, record, limiter, target)
        return Job(recover, JobKind.RECOVER, record.queue, AMBIGUOUS_PRIORITY, rate_limit)

    def _recover_exclusively(self, record: Record, limiter: RateLimiter, target: Target | None) -> None:
        """Recover one suspect at a time: if it breaks this worker, others must not be counted with it.

        `target` is what the token was taken for; None: there is no token.
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
            if encoded:  # without a target only this worker lacks a configuration for the queue
                self._end_unreadable_stopped(records, str(error))
            self._reschedule_failed(records, str(error), _LASTING_ERROR_DELAY)
        else:
            self._describe_in_batches(target, records, DESCRIBE_BATCH_SIZE)

    def _describe_in_batches(self, target: Target, records: list[Record], size: int) -> None:
        """Describe as many as the rate limit allows now, and put the rest off, so that no other account waits."""
        for start in range(0, len(records), size):
            calls = math.ceil((len(records) - start) / size)
            wait = self._context.read_limiter.try_acquire(target, expected_calls=calls)
            if wait:
                self._put_off(records[start:], max(wait, _INTERVAL))
                return
            self._describe_batch(target, records[start : start + size])

    def _end_unreadable_stopped(self, records: Sequence[Record], reason: str) -> None:
        """End as UNKNOWN what is to be stopped: a newer worker may know the target, but a stop must not wait for it.

        Not what a runner has: its run decides, and the runner itself ends the command.
        """
        marked = [record for record in records if record.stop_requested_by]
        held = self.run_settler.find_held(marked)
        stopped = {record.id: record for record in marked if record.id not in held}
        updates = [
            build_lost_update(
                record, f"it was to be stopped (by {record.stop_requested_by}), but {reason} Stop {record.arn} by hand"
            )
            for record in stopped.values()
        ]
        if updates:
            results = self.reconciler.write_updates(stopped, updates)
            crash_point("poller.unreadable_ended")
            self._handle_results(stopped, updates, results)

    def _describe_batch(self, target: Target, records: list[Record]) -> None:
        """Make one DescribeTasks call, whose token was taken."""
        arns = list(dict.fromkeys(record.arn for record in records))
        result = self._context.gateway.describe_tasks(target, arns)
        crash_point("poller.described")
        error = result.error
        if error is not None and error.kind is EcsErrorKind.INVALID and len(records) > 1:
            # ECS rejects the whole batch for one bad ARN: halve the batch until that ARN is alone.
            self._describe_in_batches(target, records, (len(records) + 1) // 2)
            return
        queues = {record.queue for record in records}
        if error is None:
            self._context.circuit_breakers.clear_read_errors(queues, "DescribeTasks")
            self._reconcile_batch(target, records, result.tasks, dict.fromkeys(result.missing_arns, ""))
            return
        if error.kind is EcsErrorKind.THROTTLED:
            self._context.read_limiter.report_throttled(target)
        for queue in queues:
            self._context.circuit_breakers.report_read_error(queue, "DescribeTasks", error)
        if error.kind is EcsErrorKind.CLUSTER_NOT_FOUND:
            self._reconcile_batch(target, records, (), dict.fromkeys(arns, error.reason))
        else:
            is_lasting = error.kind in LASTING_READ_ERRORS
            self._reschedule_failed(records, error.reason, _LASTING_ERROR_DELAY if is_lasting else _ERROR_DELAY)

    def _reconcile_batch(
        self,
        target: Target,
        records: Sequence[Record],
        tasks: Iterable[Mapping[str, Any]],
        missing: Mapping[str, str],
    ) -> None:
        """Write what has changed; whatever remains in the batch has nothing new and is polled again later.

        `missing` maps each ARN that ECS does not know to ECS's reason, "" without one.
        """
        now = self._ledger_now()
        in_flight, rate = self._context.poll_schedule.in_flight, self._context.config.describe_tasks_rate
        shown = {str(task.get("taskArn")): task for task in tasks}
        waits: list[tuple[Record, float]] = []
        others: list[Record] = []
        for record in records:
            task = shown.get(record.arn)
            if task is not None and not self._has_events and repeats_record(record, task):
                self._missing.clear(record.arn)
                waits.append((record, poll_interval(now - record.launched_at, in_flight, rate)))
            else:
                others.append(record)
        batch = collect_tasks(others)
        by_id = {record.id: record for record in others}
        updates: list[TaskUpdate] = []
        for arn in batch.get_all_arns():
            record, task = by_id[str(batch.arn_to_key[arn])], shown.get(arn)
            if task is not None:
                batch.update_task(EcsExecutorTask.from_boto(task))
            found = self._reconcile_record(target, record, task, missing.get(arn), now)
            if isinstance(found, TaskUpdate):
                batch.pop_by_key(record.id)
                updates.append(found)
            else:
                waits.append((record, found))
        if waits:
            self._poll_again(target, waits)
        if updates:
            self._write_updates(target, by_id, updates)

    def _ledger_now(self) -> float:
        """Return the ledger's clock, which is read once a round."""
        if self._clock_ahead is None:
            self._clock_ahead = self._context.ledger.now() - self._context.monotonic()
        return self._context.monotonic() + self._clock_ahead

    def _poll_again(self, target: Target, waits: Sequence[tuple[Record, float]]) -> None:
        """Poll these records' tasks after their waits in seconds: from memory, or when the ledger has them due."""
        leased = [(record, wait) for record, wait in waits if not self._held.poll_again(record.id, wait)]
        ledger_waits = {record.id: self._held.ledger_wait(record, wait) for record, wait in leased}
        if not leased:
            return
        now = self._context.monotonic()
        self._context.ledger.reschedule_poll(ledger_waits)
        crash_point("poller.rescheduled")
        for record, wait in leased:
            if ledger_waits[record.id] > wait:
                self._held.hold(record, target.encode(), wait, now + ledger_waits[record.id])

    def _put_off(self, records: Sequence[Record], delay: float) -> None:
        """Poll again in `delay` seconds what could not be polled now."""
        delays = {record.id: delay for record in records if not self._held.poll_again(record.id, delay)}
        if delays:
            self._context.ledger.reschedule_poll(delays)

    def _write_updates(self, target: Target, records: Mapping[str, Record], updates: Sequence[TaskUpdate]) -> None:
        """Write updates, and hold the tasks that run on."""
        now = self._context.monotonic()
        written = [self._extend_wait(records[update.id], update) for update in updates]
        results = self.reconciler.write_updates(records, written)
        crash_point("poller.updates_written")
        for update, sent, result in zip(updates, written, results, strict=True):
            self._held.let_go(update.id)
            if result.code is ResultCode.OK and sent.wait > update.wait:
                record = _build_updated(records[update.id], update)
                self._held.hold(record, target.encode(), update.wait, now + sent.wait)
        self._handle_results(records, updates, results)

    def _extend_wait(self, record: Record, update: TaskUpdate) -> TaskUpdate:
        """Return the update with the wait of the ledger: longer than until the next poll, if the task is held."""
        if update.end_state is not None:
            return update
        return msgspec.structs.replace(update, wait=self._held.ledger_wait(record, update.wait))

    def _handle_results(
        self, records: Mapping[str, Record], updates: Sequence[TaskUpdate], results: Sequence[OperationResult]
    ) -> None:
        for update, result in zip(updates, results, strict=True):
            self.reconciler.handle_update_result(records[update.id], update, result)

    def _reconcile_record(
        self, target: Target, record: Record, task: Mapping[str, Any] | None, missing: str | None, now: float
    ) -> TaskUpdate | float:
        """Return the update for the ledger, or the seconds until the next poll."""
        if task is None:
            return _ERROR_DELAY if missing is None else self._handle_missing(record, missing, now)
        self._missing.clear(record.arn)
        try:
            found, observation = self.reconciler.reconcile(target, record, task, now)
            self._context.poll_schedule.note_poll(record, observation, now)
        except (RetryableError, MissingRight):
            raise
        except Exception as error:  # noqa: BLE001 - one task that cannot be read must not hide the others
            reason = f"{record.arn}: {typed_error_text(error)}"
            self._context.telemetry.emit("describe_tasks.failed", tasks=1, reason=reason)
            return _LASTING_ERROR_DELAY
        return found

    def _handle_missing(self, record: Record, ecs_reason: str, now: float) -> TaskUpdate | float:
        """Handle MISSING: right after RunTask it means "not visible yet"; only after the grace time is the task lost.

        `ecs_reason` is set when the cluster is gone. Wrong credentials look the same, so that takes more time.
        """
        context = self._context
        context.telemetry.emit("task.missing", id=record.id, arn=record.arn)
        grace = context.config.settle_seconds * (_CLUSTER_GONE_FACTOR if ecs_reason else 1)
        missing_for = min(self._missing.mark_missing(record.arn), now - record.launched_at)
        if missing_for >= grace and not context.poll_schedule.may_be_lost(record, now - missing_for, now):
            grace = math.inf  # its end may be among the events
        found = decide_missing(record, missing_for, grace, ecs_reason)
        if isinstance(found, TaskUpdate):
            inputs = {"record": record, "missing_for": missing_for, "grace": grace, "ecs_reason": ecs_reason}
            context.telemetry.emit("decision.missing_task", id=record.id, arn=record.arn, **inputs, decision=found)
            self._missing.clear(record.arn)
        return found

    def _reschedule_failed(self, records: Sequence[Record], reason: str, delay: float) -> None:
        self._context.telemetry.emit("describe_tasks.failed", tasks=len(records), reason=reason)
        self._put_off(records, delay)

    def _maintain(self, has_work: bool) -> None:
        """Now and then forget what is over, and count the tasks of all workers, since they share the rate limit."""
        context = self._context
        if context.monotonic() - self._maintained_at < _MAINTENANCE_INTERVAL:
            return
        self._maintained_at = context.monotonic()
        self._missing.forget_old()
        self._held.forget_old()
        self._task_stopper.forget_old()
        # With events hardly anything is due, and this number also sets the next poll after an event.
        if has_work or context.config.uses_events():
            counts = context.ledger.count_by_state().values()
            context.poll_schedule.in_flight = sum(states.get(State.LAUNCHED, 0) for states in counts)


def _build_updated(record: Record, update: TaskUpdate) -> Record:
    """Return the record as the ledger has it after an update of a task that still runs."""
    copy = msgspec.structs.replace(record, started_at=update.started_at or record.started_at)
    note_observation(copy, update)
    return copy


def collect_tasks(records: Iterable[Record]) -> EcsTaskCollection:
    """Return the records' tasks as the ledger knows them, by ARN and by request id.

    Commands and configurations stay empty: following a task needs neither, and they may be sealed.
    """
    batch = EcsTaskCollection()
    for record in records:
        task = EcsExecutorTask(record.arn, record.last_status, "RUNNING", [], started_at=record.started_at or None)
        batch.add_task(task, record.id, record.queue, [], {}, record.attempt)
    return batch
