"""The invariants of warm pools, checked at every change of a record or a run against what the runners have done."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec

from ecs_queue.protocol import reasons
from ecs_queue.protocol.operations import ResultCode
from ecs_queue.protocol.record import STOPPED_BY_TIME_LIMIT, Record
from ecs_queue.protocol.runs import Run, RunPhase, Turn
from ecs_queue.protocol.states import State
from tests.simulation.ecs import SimTask
from tests.simulation.monitor import InvariantMonitor, operation_results
from tests.simulation.runners import SimRunner

#: The queue whose requests share runners.
WARM_QUEUE = "warm"
_EXITED = reasons.COMMAND_EXITED.partition("%")[0]
_IN_LAUNCH = (State.LAUNCHING, State.LAUNCHED)


@dataclass(slots=True)
class _Command:
    """A command that was started. `how` is None while it runs, else as `RunnerObserver.on_command_ended` says."""

    arn: str
    boot: str
    how: int | str | None = None


class WarmMonitor(InvariantMonitor):
    """Checks requests of the warm queue by their commands, and all others as `InvariantMonitor` does.

    `shapes` has the shape of each request's container, by its id.
    """

    shapes: Callable[[str], object]
    doubled: set[str]

    def prepare(self, shapes: Callable[[str], object]) -> None:
        """Set what is known of requests."""
        self.shapes = shapes
        self.doubled = set()  # startedBy of the launches for which ECS has started two tasks
        self._commands: dict[tuple[str, str, int], _Command] = {}
        self._pools: dict[str, object] = {}  # name of a runner -> the shape of its first request
        self._last_runs: dict[str, Run] = {}
        self._reported: dict[tuple[str, str], State] = {}
        self._left: set[str] = set()

    # What the ledger does.

    def on_ledger_operation(self, operation: str, result: Any) -> None:
        """See `InvariantMonitor`."""
        super().on_ledger_operation(operation, result)
        self._check_runs()

    def on_word(self, word: str, answer: Any) -> None:
        """Check the ledger after a word of a runner."""
        self.coverage[f"{word} {'turn' if isinstance(answer, Turn) else answer}"] += 1
        self._check_runs()

    def on_confirmed(self, operation: str, result: Any) -> None:
        """See `InvariantMonitor`."""
        super().on_confirmed(operation, result)
        for each in operation_results(result):
            if each.code is ResultCode.ENDED and each.record is not None:
                self.on_reported(each.record)

    def on_reported(self, record: Record) -> None:
        """See `InvariantMonitor`. What came too late for a record (it has no digest) is not an end of the ledger's."""
        if record.queue != WARM_QUEUE or not record.is_terminal or not record.digest:
            return
        before = self._reported.setdefault((record.id, record.nonce), record.state)
        if before is not record.state:
            self.report_violation(f"{record.id} was reported as {before}, and then as {record.state}")

    def on_fail_over(self) -> None:
        """See `InvariantMonitor`. What was reported must have been durable."""
        super().on_fail_over()
        for key, state in self._reported.items():
            record = self.ledger.records.get(key[0])
            is_known = record is None or record.nonce not in (key[1], "") or record.state is state
            if not is_known or (record is None and key in self._forgotten_ended):
                self.report_violation(f"the end {state} of {key[0]} was reported, and is forgotten")
        self._copy_runs()

    def _check_runs(self) -> None:
        """A run and its record name each other, and nothing is assigned to a runner that may have left."""
        holders: set[tuple[str, str, int]] = set()
        for name, run in self.ledger.runs.items():
            if run.phase is RunPhase.IDLE:
                continue
            key = run.id, run.nonce, run.launch
            if key in holders:
                self.report_violation(f"launch {run.launch} of {run.id} is assigned to two runners")
            holders.add(key)
            record = self.ledger.records.get(run.id)
            names_it = record is not None and (record.nonce, record.launch, record.run) == (run.nonce, run.launch, name)
            if record is None or not names_it or record.state not in _IN_LAUNCH:
                self.report_violation(f"the run {name} holds a launch of {run.id} that its record has left: {record}")
            if run.phase is RunPhase.ASSIGNED and run.closed:
                self.report_violation(f"{run.id} is assigned to {name}, which is closed: {run.closed}")
        for record in self.ledger.records.values():
            is_held = (record.id, record.nonce, record.launch) in holders
            if record.run and record.state in _IN_LAUNCH and not is_held:
                self.report_violation(f"{record.id} is {record.state}, and no run has its launch {record.launch}")
        self._copy_runs()

    def _copy_runs(self) -> None:
        self._last_runs = {name: msgspec.structs.replace(run) for name, run in self.ledger.runs.items()}

    # What runners do.

    def on_command_started(self, runner: SimRunner, turn: Turn) -> None:
        """Check a start: once a launch, one at a time, before any end, and of what the run has."""
        key = turn.id, turn.nonce, turn.launch
        self.coverage[f"start {'first' if turn.turn == 1 else 'warm'}"] += 1
        self._context.trace(f"{runner.name} starts {turn.id}, launch {turn.launch}, turn {turn.turn}")
        if key in self._commands:
            self.report_violation(f"launch {turn.launch} of {turn.id} was started twice")
        record = self.ledger.records.get(turn.id)
        earlier = [command for other, command in self._commands.items() if other[:2] == key[:2]]
        if any(command.how is None for command in earlier):
            self.report_violation(f"two commands of {turn.id} run at a time")
        if record is None or record.nonce != turn.nonce or record.is_terminal or key[:2] in self._reported:
            self.report_violation(f"{turn.id} is started after its end: {record}")
        elif not all(_may_follow(record.relaunch, self.ecs.tasks[command.arn]) for command in earlier):
            self.report_violation(f"{turn.id} was started again although relaunch={record.relaunch}")
        run = self.ledger.runs.get(runner.options.run)
        is_own = run is not None and run.boot == runner.boot and run.turn == turn.turn
        holds = run is not None and run.phase in (RunPhase.FETCHED, RunPhase.ENDED)
        if run is not None and is_own and holds and (run.id, run.nonce, run.launch) != key:
            self.report_violation(f"{runner.name} starts {turn.id}, and its run has {run.id}")
        shape = self.shapes(turn.id)
        if self._pools.setdefault(runner.options.run, shape) != shape:
            self.report_violation(f"{turn.id} is started in a container of another shape")
        self._commands[key] = _Command(runner.arn, runner.boot)

    def on_command_ended(self, runner: SimRunner, turn: Turn, how: int | str) -> None:
        """Note how a command has ended."""
        self._context.trace(f"{runner.name}: the command of {turn.id} has ended: {how}")
        self._commands[turn.id, turn.nonce, turn.launch].how = how

    def on_left(self, runner: SimRunner) -> None:
        """Note that a runner was let go: the ledger must have its last end."""
        self._left.add(runner.boot)

    def on_cancel(self, runner: SimRunner, turn: Turn) -> None:
        """Check that a caller has stopped the request."""
        record = self.ledger.records.get(turn.id)
        if record is None or not record.stop_requested_by:
            self.report_violation(f"{runner.name} cancels {turn.id}, which no caller has stopped")

    def on_stop_task(self, task: SimTask, running: Turn | None) -> None:
        """Check that StopTask of ecs-queue hits no request, or only one that is to be stopped."""
        assert task.runner_options is not None
        self.coverage["StopTask"] += 1
        run = self.ledger.runs.get(task.runner_options.run)
        is_bound = run is not None and run.boot and run.arn == task.arn
        if task.is_running and run is not None and is_bound and not run.closed:
            self.report_violation(f"StopTask of {task.arn[-2:]} hits an open run")
        hit = {running.id} if running is not None else set()
        if run is not None and run.phase is RunPhase.FETCHED and run.arn == task.arn:
            hit.add(run.id)
        for record_id in hit:
            record = self.ledger.records.get(record_id)
            if task.is_running and (record is None or not record.stop_requested_by):
                self.report_violation(f"StopTask of {task.arn[-2:]} hits {record_id}, which no caller has stopped")

    def on_task_created(self, task: SimTask) -> None:
        """See `InvariantMonitor`. A runner of a launch that is over finds no run: it may be started late."""
        if task.runner_options is None:
            super().on_task_created(task)
        elif len(self.ecs.tasks_by_started_by[task.started_by]) > 1 and task.started_by not in self.doubled:
            self.report_violation(f"two ECS tasks for one launch number: {task.started_by}")

    # What records show.

    def _check_launched(self, record: Record) -> None:
        if record.queue != WARM_QUEUE:
            super()._check_launched(record)
            return
        run = self.ledger.runs.get(record.run)
        if run is None or not run.is_of(record.id, record.nonce, record.launch):
            self.report_violation(f"{record.id} is LAUNCHED, and no run has its launch {record.launch}")
        elif run.boot and run.arn != record.arn:
            self.report_violation(f"{record.id} is LAUNCHED as {record.arn}, and its runner is {run.arn}")

    def _check_attempt(self, previous: Record, record: Record) -> None:
        if record.queue != WARM_QUEUE:
            super()._check_attempt(previous, record)
            return
        command = self._commands.get((record.id, record.nonce, previous.launch))
        started_by = self._started_by(previous)
        tasks = [*self.ecs.tasks_by_started_by.get(started_by, ()), self.ecs.tasks.get(previous.arn)]
        has_failed = self.ecs.start_failures.get(started_by) or any(task and not task.is_running for task in tasks)
        if record.attempt > previous.attempt and not command and not has_failed:
            self.report_violation(f"{record.id} consumed an attempt, but nothing of {previous.launch} has failed")
        if record.attempt == previous.attempt and command:
            self.report_violation(f"{record.id} was started under {previous.launch}, and no attempt was consumed")
        self._check_taken_end(record)

    def _check_queued(self, record: Record) -> None:
        if record.queue != WARM_QUEUE:
            super()._check_queued(record)
        elif self._is_alive(record):
            self.report_violation(f"{record.id} is QUEUED while its command runs")

    def _is_alive(self, record: Record) -> bool:
        if record.queue != WARM_QUEUE:
            return super()._is_alive(record)
        key = record.id, record.nonce
        return any(command.how is None for other, command in self._commands.items() if other[:2] == key)

    def _was_started(self, record: Record) -> bool:
        if record.queue != WARM_QUEUE:
            return super()._was_started(record)
        return (record.id, record.nonce, record.launch) in self._commands

    def _matches_ecs(self, record: Record) -> bool:
        if record.queue != WARM_QUEUE:
            return super()._matches_ecs(record)
        self._check_taken_end(record)
        command = self._commands.get((record.id, record.nonce, record.launch))
        task = self.ecs.tasks.get(record.arn)
        match record.state:
            case State.SUCCESS:
                return command is not None and command.how == 0
            case State.FAILED if record.reason.startswith(_EXITED):
                return command is not None and command.how == record.exit_code != 0
            case State.FAILED:
                has_stopped = task is not None and not task.is_running
                if command is not None and command.how == 0 and command.boot in self._left:
                    self.report_violation(f"{record.id} has exited 0, its runner was let go, and it ends FAILED")
                by_time_limit = record.stop_requested_by == STOPPED_BY_TIME_LIMIT and command is not None
                return has_stopped or by_time_limit or (command is None and self._was_refused(record))
            case State.REVOKED:
                return record.stop_requested_by not in ("", STOPPED_BY_TIME_LIMIT)
            case State.REMOVED | State.EXPIRED:
                keys = self._commands.keys()
                is_first = record.relaunch == "never_started"
                was_started = any(key[:2] == (record.id, record.nonce) for key in keys) and is_first
                return command is None and not was_started and super()._matches_ecs(record)
        return task is not None and not task.is_visible(self._context.now)

    def _check_taken_end(self, record: Record) -> None:
        """Check that a record leaves its launch as its run, before this operation, allows."""
        launch = record.launch if record.is_terminal else record.launch - 1
        held = (run for run in self._last_runs.values() if run.is_of(record.id, record.nonce, launch))
        run = next(held, None)
        if run is None:
            return
        state = record.state
        is_untrue = state in (State.SUCCESS, State.FAILED, State.UNKNOWN) and not self._was_refused(record)
        if run.phase is RunPhase.ASSIGNED and is_untrue:
            self.report_violation(f"{record.id} was not taken, and ends {state}")
        if run.phase is not RunPhase.ENDED:
            return
        expected = {State.SUCCESS} if run.exit_code == 0 else {State.FAILED, State.QUEUED}
        if run.cancelled:
            expected = {State.REVOKED, State.FAILED}
        if state not in expected:
            self.report_violation(f"{record.id} reported {run.end}, and is {state}")


def _may_follow(policy: str, earlier: SimTask) -> bool:
    interrupted = earlier.stop_code == "SpotInterruption"
    return policy == "any_failure" or (policy == "interrupted" and interrupted)
