"""The invariants, checked at every change of a record or task against the true state in the model of ECS."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import msgspec

from ecs_queue.config import Config
from ecs_queue.protocol import reasons
from ecs_queue.protocol.capacity_fallback import CapacityState
from ecs_queue.protocol.operations import OperationResult
from ecs_queue.protocol.record import STOPPED_BY_EXPIRY, STOPPED_BY_TIME_LIMIT, Record, build_started_by
from ecs_queue.protocol.states import LIVE_STATES, TRANSITIONS, State
from tests.simulation.clients import SimOwner
from tests.simulation.ecs import SimEcs, SimTask
from tests.simulation.faults import SimFaults
from tests.simulation.key_monitor import KeyMonitor
from tests.simulation.ledger import SimLedgerServer
from tests.simulation.process import SimulationContext

#: The transitions of each ledger operation; some operations have other names in the table.
_ALLOWED_TRANSITIONS = {
    "put_and_claim": TRANSITIONS["put"] | TRANSITIONS["claim"],
    "update_tasks": TRANSITIONS["update_task"],
    "update_runner_tasks": TRANSITIONS["update_runner_task"],
    "prune": frozenset(),
    **TRANSITIONS,
}

#: Seconds for which no worker may have seen that a task has started, though none was frozen: replies are late.
_MAX_UNSEEN_START = 120.0
#: How long a token may have been taken before its launch is claimed, in seconds.
_MAX_TOKEN_AGE = 10.0


class InvariantMonitor:
    """Collects `violations`, and in `coverage` how often each operation returned each result."""

    def __init__(self, context: SimulationContext, config: Config) -> None:
        self._context = context
        self._namespace = config.namespace
        self._max_attempts = config.base_profile.max_run_task_attempts
        self._startup_allowance = config.startup_allowance
        self._limits = [limit for limit in (config.max_in_flight, config.base_profile.max_in_flight) if limit]
        # Faults may come between the token and the claim, and then claims come closer together than their tokens.
        has_faults = replace(context.faults, stays_pending=0.0) != SimFaults()
        self._launch_rate = 0.0 if has_faults else config.base_profile.launch_rate
        self._claimed_at: list[float] = []
        self._max_starting = config.base_profile.max_starting
        self._max_per_key = config.base_profile.max_per_key
        self._has_retry_rules = bool(config.base_profile.retry_rules)
        self._has_capacity_fallback = bool(config.base_profile.capacity_fallback)
        self._capacity: dict[str, CapacityState] = {}
        self.paused = False
        self.has_frozen = context.faults.freeze > 0 or context.faults.stale_read > 0
        self._max_deliveries = config.max_deliveries
        self._last_seen: dict[str, Record] = {}
        self._ended_records: dict[tuple[str, str], Record] = {}
        self._forgotten_ended: set[tuple[str, str]] = set()
        self.lost_puts: set[str] = set()
        self._confirmed_stops: set[str] = set()
        self._unconfirmed: set[str] = set()
        self.violations: list[str] = []
        self.coverage: Counter[str] = Counter()
        self.key_monitor = KeyMonitor(self._max_per_key, self.report_violation, self.coverage)
        self.ledger: SimLedgerServer
        self.ecs: SimEcs

    def attach(self, ledger: SimLedgerServer, ecs: SimEcs) -> None:
        """Set the ledger and the ECS that are compared."""
        self.ledger, self.ecs = ledger, ecs

    def report_violation(self, violation: str) -> None:
        """Record a violation."""
        self._context.trace(f"VIOLATION: {violation}")
        self.violations.append(violation)

    def on_ledger_operation(self, operation: str, result: Any) -> None:
        """Check the ledger after an operation."""
        thread = self._context.scheduler.current
        by_event = thread is not None and thread.name == "event-listener"
        for each in operation_results(result):
            self.coverage[f"{operation} {each.code.value}"] += 1
            if by_event:
                self.coverage[f"by an event: {operation} {each.code.value}"] += 1
        self._check_capacity()
        records = self.ledger.records
        for record_id, record in records.items():
            previous = self._last_seen.get(record_id)
            if previous is None or _has_changed(previous, record):
                self._check_change(operation, previous, record)
                self._last_seen[record_id] = msgspec.structs.replace(record)
        self.key_monitor.check(operation, records.values(), self.ledger.now())
        if len(self._last_seen) > len(records):
            self._last_seen = {key: record for key, record in self._last_seen.items() if key in records}

    def on_confirmed(self, operation: str, result: Any) -> None:
        """Note what a caller was answered after a barrier: no fail-over may undo it."""
        if operation == "stop":
            self._confirmed_stops.update(each.record.id for each in result if each.record and _is_stopped(each.record))

    def on_unconfirmed(self, record_id: str) -> None:
        """Note a write that its caller must repeat. Others may read it and act on it before a fail-over loses it."""
        self._unconfirmed.add(record_id)

    def on_reported(self, record: Record) -> None:
        """Note that a worker reports an end."""

    def on_fail_over(self) -> None:
        """Forget what the ledger lost in a fail-over, and check that it was nothing that was confirmed."""
        records = self.ledger.records
        for record_id in self._confirmed_stops & self._last_seen.keys():
            record = records.get(record_id)
            if _is_stopped(self._last_seen[record_id]) and (record is None or not _is_stopped(record)):
                self.report_violation(f"the confirmed stop of {record_id} is forgotten")
        lost = self._last_seen.keys() - records.keys()
        self.lost_puts |= lost
        self._last_seen = {key: msgspec.structs.replace(record) for key, record in records.items()}
        self.key_monitor.forget()
        forgotten = {key for key in self._ended_records if key[0] in lost or not self._is_known_ended(key)}
        self._ended_records = {key: record for key, record in self._ended_records.items() if key not in forgotten}
        self._forgotten_ended |= forgotten

    def on_task_created(self, task: SimTask) -> None:
        """Check a new ECS task."""
        started_by = task.started_by
        if len(self.ecs.tasks_by_started_by[started_by]) > 1:
            self.report_violation(f"two ECS tasks for one launch number: {started_by}")
        _, record_id, nonce, launch = started_by.split("/")
        others = [other for other in self._tasks_of(record_id, nonce) if other is not task]
        if any(other.is_running for other in others):
            self.report_violation(f"two tasks alive for one request: {started_by}")
        record = self.ledger.records.get(record_id)
        if record is None or record.nonce != nonce:
            self.report_violation(f"a task is started that no record knows: {started_by}")
            return
        if record.state is not State.LAUNCHING or record.launch != int(launch):
            self.report_violation(f"{started_by} is started while its record is {record.state}, launch {record.launch}")
        self._check_variant(task, record)
        if self._context.now < record.delayed_until:
            self.report_violation(f"{started_by} is started before its time")
        for other in others:
            if other.has_run and not self._may_relaunch(record.relaunch, other):
                self.report_violation(
                    f"{started_by} is started after {other.stop_code} although relaunch={record.relaunch}"
                )

    def finish(self, owners: Iterable[SimOwner]) -> None:
        """Check that everything has ended, once everything works and no work is left."""
        for record in self.ledger.records.values():
            if not record.is_terminal:
                self.report_violation(f"{record.id} has not ended: {record.state}")
        if self.ledger.due or self.ledger.expiry:
            self.report_violation(
                f"an index holds what is not live: {dict(self.ledger.due)} {dict(self.ledger.expiry)}"
            )
        for task in self.ecs.tasks.values():
            if task.is_running:
                self.report_violation(f"the task of {task.started_by} is still alive")
        for owner in owners:
            self._check_delivery(owner)

    def _check_delivery(self, owner: SimOwner) -> None:
        results = {(result.id, result.nonce): result for result in owner.results}
        for request in owner.requests:
            if not request.is_accepted:
                continue
            key = (request.id, request.nonce)
            record, result = self._ended_records.get(key), results.get(key)
            if record is None:
                # Lost at a fail-over before it was durable. Its owner would have put it again, but has died, or was
                # answered before that a stop had ended it unlaunched.
                is_reported = result is not None and (result.state, result.attempts) == (State.REVOKED, 0)
                if not (request.id in self.lost_puts and (owner.abandoned or owner.successor_of or is_reported)):
                    self.report_violation(f"{request.id} was accepted and never ended")
                continue
            if result is None and owner.successor_of:
                # Its put was lost at a fail-over: the successor got the result of a stop of an unknown id.
                result = results.get((request.id, ""))
            # Its owner has the true result; ECS forgot the task before the next poll.
            is_unsure = record.state is State.UNKNOWN or request.id in self._unconfirmed
            is_gone = is_unsure and key in self._forgotten_ended
            if result is not None and result.state != record.state.value and not is_gone:
                self.report_violation(
                    f"{owner.name} got {result.state} for {request.id}, the ledger says {record.state}"
                )
            if result is None and not owner.abandoned:
                self.report_violation(f"{owner.name} never got the result of {request.id}")
            kept = self.ledger.records.get(request.id)
            is_owed = kept is not None and kept.owner == owner.name and kept.nonce == request.nonce
            if result is None and owner.abandoned and is_owed and not (kept and kept.undelivered):
                self.report_violation(f"the result of {request.id} counts as delivered to {owner.name}, which is dead")

    def _check_limits(self, record: Record) -> None:
        if self.paused:
            self.report_violation(f"{record.id} is claimed while its queue is paused")
        states = (State.LAUNCHING, State.LAUNCHED)
        in_flight = sum(other.state in states for other in self.ledger.records.values())
        if any(in_flight > limit for limit in self._limits):
            self.report_violation(f"{record.id} is claimed, with it {in_flight} are in flight")
        if self._max_starting:
            starting = [other.id for other in self.ledger.records.values() if self._may_start(other)]
            self.coverage["claim beside a start"] += len(starting) > 1
            if len(starting) > self._max_starting:
                self.report_violation(f"{record.id} is claimed, with it {starting} start")

        self._check_launch_rate(record)

    def _check_launch_rate(self, record: Record) -> None:
        """Launches keep to the rate, with a burst of one; a token may have waited for its launch."""
        if not self._launch_rate:
            return
        now = self._context.now
        self._claimed_at.append(now)
        for number, earlier in enumerate(reversed(self._claimed_at)):
            if number > 1 + (now - earlier + _MAX_TOKEN_AGE) * self._launch_rate:
                self.report_violation(f"{record.id} is claimed, with it {number + 1} in {now - earlier:.0f} s")
                return

    @staticmethod
    def _may_start(record: Record) -> bool:
        """Whether its launch may have a task that no worker has seen running, in other words than the rule's own."""
        if record.state is State.LAUNCHING:
            return not record.run
        is_early = record.last_status in ("", "PROVISIONING", "PENDING", "ACTIVATING")
        return record.state is State.LAUNCHED and is_early and not record.started_at and not record.run

    def _check_change(self, operation: str, previous: Record | None, record: Record) -> None:
        if previous is not None and previous.nonce != record.nonce and previous.digest:
            previous = None  # an id that was used again after its record was forgotten
        if previous is None and (record.id, record.nonce) in self._ended_records:
            self.report_violation(f"{record.id} has ended and begins again")
        self._check_transition(operation, previous, record)
        self._check_index(record)
        if operation in ("claim", "put_and_claim") and record.state is State.LAUNCHING:
            self._check_limits(record)
        if previous is not None and not previous.is_terminal:
            self._check_counters(previous, record)
        if record.state is State.LAUNCHED and (previous is None or previous.state is not State.LAUNCHED):
            self._check_launched(record)
        if record.state is State.QUEUED and record.nonce:
            self._check_queued(record)
        if record.is_terminal and record.nonce and (previous is None or not previous.is_terminal):
            self._check_end(record)
        if record.is_terminal and record.nonce:
            self._ended_records[record.id, record.nonce] = msgspec.structs.replace(record)

    def _check_transition(self, operation: str, previous: Record | None, record: Record) -> None:
        if previous is not None and previous.is_terminal:
            if previous.digest and _terminal_fields(previous) != _terminal_fields(record):
                old, new = _terminal_fields(previous), _terminal_fields(record)
                self.report_violation(f"the terminal record {previous.id} moved: {old} -> {new}")
            return
        if previous is not None and previous.state is record.state:
            return
        moves = _ALLOWED_TRANSITIONS.get(operation, frozenset())
        before = previous.state if previous else None
        intermediate = {middle for start, middle in moves if start is before}
        if (before, record.state) not in moves and not any((middle, record.state) in moves for middle in intermediate):
            self.report_violation(f"{operation} moved {record.id} from {before} to {record.state}")

    def _check_index(self, record: Record) -> None:
        if (record.id in self.ledger.due) != (record.state in LIVE_STATES):
            self.report_violation(
                f"{record.id} is {record.state} and {'not ' if record.state in LIVE_STATES else ''}in the due index"
            )
        if (record.id in self.ledger.expiry) != (record.state is State.QUEUED and bool(record.expires_at)):
            self.report_violation(f"{record.id} is {record.state} and wrongly (not) in the index of deadlines")

    def _check_counters(self, previous: Record, record: Record) -> None:
        if record.launch not in (previous.launch, previous.launch + 1) or record.attempt not in (
            previous.attempt,
            previous.attempt + 1,
        ):
            self.report_violation(
                f"{record.id} jumped from {previous.launch}/{previous.attempt} to {record.launch}/{record.attempt}"
            )
        if record.attempt > self._max_attempts:
            self.report_violation(f"{record.id} makes attempt {record.attempt} of {self._max_attempts}")
        if record.launch != previous.launch:
            self._check_attempt(previous, record)
        elif record.attempt != previous.attempt:
            self.report_violation(f"{record.id} consumed an attempt without a new launch number")

    def _check_launched(self, record: Record) -> None:
        task = self.ecs.tasks.get(record.arn)
        if task is None or task.started_by != self._started_by(record):
            self.report_violation(
                f"{record.id} is LAUNCHED as {record.arn}, which is not the task of launch {record.launch}"
            )

    def _check_attempt(self, previous: Record, record: Record) -> None:
        """Check whether the launch that is over consumed an attempt."""
        started_by = self._started_by(previous)
        tasks = self.ecs.tasks_by_started_by.get(started_by, [])
        failed = bool(self.ecs.start_failures.get(started_by)) or any(
            not task.is_running and not _has_lacked_capacity(task) and not self._is_uncounted(task) for task in tasks
        )
        if record.attempt > previous.attempt and not failed:
            self.report_violation(
                f"{record.id} consumed an attempt, but nothing of launch {previous.launch} has failed"
            )
        uncounted = [task for task in tasks if _has_lacked_capacity(task) or self._is_uncounted(task)]
        if record.attempt == previous.attempt and len(uncounted) < len(tasks):
            self.report_violation(
                f"launch {previous.launch} of {record.id} started a task, and no attempt was consumed"
            )

    def _check_queued(self, record: Record) -> None:
        if any(task.is_running for task in self._tasks_of(record.id, record.nonce)):
            self.report_violation(f"{record.id} is QUEUED while its task is alive")
        if self.ecs.tasks_by_started_by.get(self._started_by(record)):
            self.report_violation(f"{record.id} is QUEUED for launch {record.launch}, which has a task")

    def _check_end(self, record: Record) -> None:
        self.coverage[f"end {record.state.value}"] += 1
        is_poison = record.reason.startswith(reasons.POISON % self._max_deliveries)
        if self._is_alive(record) and not (is_poison and record.state is State.UNKNOWN):
            self.report_violation(f"{record.id} ended {record.state} while its task is alive")
        if not record.undelivered and record.owner:
            self.report_violation(f"{record.id} ended and its result is not owed to {record.owner}")
        if is_poison:
            self.coverage[f"poison {record.state.value}"] += 1
            if record.state is State.FAILED and self._was_started(record):
                self.report_violation(f"{record.id} was given up as poison, and launch {record.launch} has a task")
            return
        self._check_start_timeout(record)
        if record.id not in self._unconfirmed and not self._matches_ecs(record):
            self.report_violation(f"{record.id} ended {record.state} ({record.reason}), which is not what happened")
        if record.attempts > self._max_attempts:
            self.report_violation(f"{record.id} ended after {record.attempts} attempts of {self._max_attempts}")

    def _check_capacity(self) -> None:
        """A variant is left for what ECS did on it, or when its time is over. On EC2 nothing is ever refused."""
        for queue, state in self.ledger.capacity.items():
            last = self._capacity.get(queue)
            if last is not None and last.variant != state.variant:
                self.coverage[f"capacity variant {state.variant}"] += 1
                if last.variant == 2 and self.ledger.now() < last.until:
                    self.report_violation(f"{queue} has left variant 2, which ECS never refused")
                if last.variant == 1 and not self.ecs.capacity_events:
                    self.report_violation(f"{queue} has left variant 1, which ECS never refused")
            self._capacity[queue] = msgspec.structs.replace(state)

    def _check_variant(self, task: SimTask, record: Record) -> None:
        expected = {"FARGATE": 1, "EC2": 2}.get(task.launch_type, 0)
        if self._has_capacity_fallback and record.variant != expected:
            self.report_violation(
                f"{task.started_by} is started on {task.launch_type}, and its record says variant {record.variant}"
            )

    # What RETRY_RULES say, in other words than the rules' own.

    def _may_relaunch(self, policy: str, earlier: SimTask) -> bool:
        if self._has_retry_rules and earlier.stop_code == "EssentialContainerExited" and _exit_of(earlier) == 1:
            return True
        return self._is_uncounted(earlier) or _may_relaunch(policy, earlier)

    def _is_uncounted(self, task: SimTask) -> bool:
        return self._has_retry_rules and task.stop_code == "SpotInterruption" and not task.has_start_timed_out

    def _fails(self, task: SimTask) -> bool:
        reason = str(task.description.get("stoppedReason"))
        return self._has_retry_rules and reason.startswith("CannotPull")

    def _check_start_timeout(self, record: Record) -> None:
        """What is known to have started is never stopped by its start timeout. Frozen workers may not know it."""
        task = self.ecs.tasks.get(record.arn)
        if task is None or not task.has_start_timed_out or not task.has_run:
            return
        self.coverage["start timeout of what has started"] += 1
        started_at = float(task.description["startedAt"])
        if not self.has_frozen and task.stop_ordered_at - started_at > _MAX_UNSEEN_START:
            self.report_violation(f"{record.arn} had run for long when its start timeout stopped it")

    def _is_alive(self, record: Record) -> bool:
        return any(task.is_running for task in self._tasks_of(record.id, record.nonce))

    def _was_started(self, record: Record) -> bool:
        """Whether the present launch has started something."""
        return bool(self.ecs.tasks_by_started_by.get(self._started_by(record)))

    def _was_refused(self, record: Record) -> bool:
        """Whether RunTask has refused the request for good."""
        return any(key.startswith(self._prefix(record.id, record.nonce)) for key in self.ecs.refusals)

    def _matches_ecs(self, record: Record) -> bool:
        task = self.ecs.tasks.get(record.arn)
        refused = self._was_refused(record)
        match record.state:
            case State.SUCCESS:
                return task is not None and task.has_run and _exit_of(task) == 0
            case State.FAILED:
                stopped = record.stop_requested_by in (STOPPED_BY_TIME_LIMIT, STOPPED_BY_EXPIRY)
                return refused or (task is not None and task.has_run and (stopped or _exit_of(task) != 0))
            case State.REMOVED:
                is_last = record.attempts == self._max_attempts or (task is not None and self._fails(task))
                return is_last or bool(record.stop_requested_by)
            case State.REVOKED:
                return bool(record.stop_requested_by)
            case State.EXPIRED:
                return bool(record.expires_at) and record.expires_at <= self._context.now + self._startup_allowance
        tasks = self._tasks_of(record.id, record.nonce)
        return all(not task.is_visible(self._context.now) for task in tasks)

    def _is_known_ended(self, key: tuple[str, str]) -> bool:
        record = self.ledger.records.get(key[0])
        if record is None or not record.is_terminal:
            return record is None
        return record.nonce in (key[1], "")  # "": a stop came first; only who was stopped is lost

    def _tasks_of(self, record_id: str, nonce: str) -> list[SimTask]:
        prefix = self._prefix(record_id, nonce)
        return [task for task in self.ecs.tasks.values() if task.started_by.startswith(prefix)]

    def _prefix(self, record_id: str, nonce: str) -> str:
        return f"{self._namespace}/{record_id}/{nonce}/"

    def _started_by(self, record: Record) -> str:
        return build_started_by(self._namespace, record.id, record.nonce, record.launch)


def operation_results(value: Any) -> Iterable[OperationResult]:
    """Return the results in what an operation has returned."""
    if isinstance(value, OperationResult):
        return (value,)
    if isinstance(value, list | tuple):
        return [each for each in value if isinstance(each, OperationResult)]
    return ()


def _is_stopped(record: Record) -> bool:
    """Whether the record has ended or will be stopped."""
    return record.is_terminal or bool(record.stop_requested_by)


def _has_changed(previous: Record, record: Record) -> bool:
    return (
        previous.state is not record.state
        or previous.launch != record.launch
        or previous.attempt != record.attempt
        or previous.nonce != record.nonce
        or (previous.is_terminal and _terminal_fields(previous) != _terminal_fields(record))
    )


def _terminal_fields(record: Record) -> tuple[Any, ...]:
    """Return the fields of a terminal record that never change."""
    return record.nonce, record.state, record.attempts, record.exit_code, record.arn, record.reason, record.finished_at


def _has_lacked_capacity(task: SimTask) -> bool:
    """Whether it stopped for lack of capacity, and no stop of a user's came before."""
    return task.lacked_capacity and task.stop_code == "TaskFailedToStart"


def _exit_of(task: SimTask) -> int | None:
    return next((container.get("exitCode") for container in task.description["containers"]), None)


def _may_relaunch(policy: str, earlier: SimTask) -> bool:
    interrupted = earlier.stop_code == "SpotInterruption" or earlier.has_start_timed_out
    return policy == "any_failure" or (policy == "interrupted" and interrupted)
