"""Patches that disable one rule of warm pools each. The simulation must find a violation with every one of them."""

from __future__ import annotations

import unittest.mock
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import msgspec

from ecs_queue.ledger import memory_runs
from ecs_queue.protocol import assignments, decisions, runs
from ecs_queue.protocol.assignments import RunChange
from ecs_queue.protocol.operations import ClaimRequest, ResultCode, TaskUpdate
from ecs_queue.protocol.record import STOPPED_BY_TIME_LIMIT, Record
from ecs_queue.protocol.record_moves import finish
from ecs_queue.protocol.runs import NoTurn, Run, RunEnd, RunPhase, Turn
from ecs_queue.protocol.settings import ProtocolSettings
from ecs_queue.protocol.state_machine import claims, launch_reports
from ecs_queue.protocol.states import State
from ecs_queue.runner.decisions import RunnerState
from ecs_queue.worker.silent_runners import SilentRunners
from tests.simulation import ledger as simulated_ledger
from tests.simulation.disabled_rules import Patch
from tests.simulation.faults import SimFaults
from tests.simulation.runners import RunnerFaults, SimRunnerLink


def void_leaves_the_run() -> list[Patch]:
    """A stopped, expired or late request is still given to its runner."""
    return [(assignments, "void", lambda run, arn, now: False)]


def taken_command_is_put_back() -> list[Patch]:
    """A drain queues a request again whose command its runner has."""
    original = assignments.put_back

    def put_back(record: Record, run: Run | None, now: float) -> RunChange:
        if run is not None and run.phase is RunPhase.FETCHED:
            run.phase = RunPhase.ASSIGNED
        return original(record, run, now)

    return [(assignments, "put_back", put_back)]


def drained_runner_is_not_voided() -> list[Patch]:
    """A drain queues a request again, and leaves its command to the runner that starts."""
    original = assignments.put_back

    def put_back(record: Record, run: Run | None, now: float) -> RunChange:
        with unittest.mock.patch.object(assignments, "void", return_value=False):
            return original(record, run, now)

    return [(assignments, "put_back", put_back)]


def late_is_decided_by_an_older_look() -> list[Patch]:
    """A command that was not taken in time is launched again, although it has been taken since."""
    original = assignments.settle

    def settle(record: Record, run: Run | None, request: Any, now: float, settings: ProtocolSettings) -> RunChange:
        if run is not None and run.turn > 1 and run.phase is RunPhase.FETCHED and run.fetched_at > run.assigned_at:
            run.phase, run.assigned_at = RunPhase.ASSIGNED, now - settings.runner_ttl
        return original(record, run, request, now, settings)

    return [(assignments, "settle", settle)]


def turn_is_given_once() -> list[Patch]:
    """A runner that has lost the answer never gets its command."""
    original = runs.next_turn

    def next_turn(run: Run | None, boot: str, arn: str, end: RunEnd | None, now: float) -> Any:
        is_again = run is not None and run.phase is RunPhase.FETCHED and (end is None or end.turn < run.turn)
        return (NoTurn.WAIT, False) if is_again else original(run, boot, arn, end, now)

    return [(runs, "next_turn", next_turn)]


def any_process_binds() -> list[Patch]:
    """A second task, or a container that ECS has restarted, gets the command again."""
    original = runs.begin

    def begin(run: Run | None, boot: str, arn: str, end: RunEnd | None, now: float) -> tuple[Run | None, bool]:
        if run is not None:
            run.boot, run.arn = boot, arn
        return original(run, boot, arn, end, now)

    return [(runs, "begin", begin)]


def end_counts_for_any_turn() -> list[Patch]:
    """A late report of an earlier command ends the present one."""
    original = runs.begin

    def begin(run: Run | None, boot: str, arn: str, end: RunEnd | None, now: float) -> tuple[Run | None, bool]:
        if run is not None and end is not None:
            end = msgspec.structs.replace(end, turn=run.turn, assignment="")
        return original(run, boot, arn, end, now)

    return [(runs, "begin", begin)]


def end_is_reported_once() -> list[Patch]:
    """A runner forgets its last end when it was acknowledged, and a fail-over undoes that."""
    original = RunnerState.on_answer

    def on_answer(self: RunnerState, answer: Turn | NoTurn, now: float) -> None:
        original(self, answer, now)
        self.end = None
        if self.is_forgotten:  # nor does it know that its server has lost it
            self.is_lost = self.is_forgotten = False
            self.on_woken()

    return [(RunnerState, "on_answer", on_answer)]


def bound_run_is_ignored() -> list[Patch]:
    """A launch counts as failed although its runner has come."""
    patches = []
    for module, name in ((launch_reports, "no_effect"), (launch_reports, "refused"), (claims, "reclaim")):
        original = getattr(module, name)

        def without_run(*arguments: Any, original: Callable[..., ResultCode] = original) -> ResultCode:
            *others, run = arguments
            return original(*others, run if run is None or not run.boot else None)

        without_run.__name__ = name
        patches.append((module, name, without_run))
    return patches


def runner_is_stopped_open() -> list[Patch]:
    """A runner that does not end a stopped command is not closed before its task is stopped."""
    original = assignments._settle_fetched

    def settle_fetched(record: Record, run: Run, now: float, settings: ProtocolSettings) -> RunChange:
        closed = run.closed
        change = original(record, run, now, settings)
        run.closed = closed
        return change

    return [(assignments, "_settle_fetched", settle_fetched)]


def unwanted_task_is_stopped() -> list[Patch]:
    """A task that a record does not want is stopped, whatever its runner serves by now."""
    return [(memory_runs.MemoryRuns, "may_stop", lambda self, tasks: [True] * len(tasks))]


def exit_code_of_the_task_counts() -> list[Patch]:
    """A runner's task that exits with 0 ends its request in success."""
    original = assignments.update_runner_task

    def update(record: Record, run: Run | None, update: TaskUpdate, now: float) -> RunChange:
        change = original(record, run, update, now)
        if change.code is ResultCode.ENDED and update.exit_code == 0 and record.state is State.FAILED:
            finish(record, State.SUCCESS, record.attempt, now, update.reason)
        return change

    return [(assignments, "update_runner_task", update)]


def any_task_ends_the_request() -> list[Patch]:
    """The end of another task than the one that has bound the run ends the request."""
    original = assignments.update_runner_task

    def update(record: Record, run: Run | None, update: TaskUpdate, now: float) -> RunChange:
        if run is not None and run.boot:
            run.arn = update.arn
        return original(record, run, update, now)

    return [(assignments, "update_runner_task", update)]


def record_keeps_its_task() -> list[Patch]:
    """The task of a record stays the one that RunTask named, also if another one has bound the run."""
    original = assignments.bind

    def bind(record: Record, run: Run, now: float) -> None:
        arn = record.arn
        original(record, run, now)
        record.arn = arn or record.arn

    return [(assignments, "bind", bind)]


def untaken_request_ends_with_the_task() -> list[Patch]:
    """A request that its runner had not taken fails when the task stops."""
    original = assignments.update_runner_task

    def update(record: Record, run: Run | None, update: TaskUpdate, now: float) -> RunChange:
        if run is not None and run.phase is RunPhase.ASSIGNED and update.end_state is not None:
            run.phase = RunPhase.FETCHED
        return original(record, run, update, now)

    return [(assignments, "update_runner_task", update)]


def busy_runner_is_assigned() -> list[Patch]:
    """A run whose end no record has taken gets the next request."""
    original = memory_runs.MemoryRuns._find_idle_run

    def find(self: Any, record: Record, claim_request: ClaimRequest | None) -> Run | None:
        ended = [run for run in self._runs.values() if run.phase is RunPhase.ENDED and not run.closed]
        is_warm = claim_request is not None and claim_request.pool
        return ended[0] if ended and is_warm else original(self, record, claim_request)

    return [(memory_runs.MemoryRuns, "_find_idle_run", find)]


def closed_runner_is_assigned() -> list[Patch]:
    """A runner that may have left gets a request."""
    original = assignments.may_take

    def may_take(run: Run, *arguments: Any) -> bool:
        closed, run.closed = run.closed, ""
        taken = original(run, *arguments)
        run.closed = closed
        return taken

    return [(assignments, "may_take", may_take)]


def signalled_end_is_reported() -> list[Patch]:
    """A command that the signal of ECS has killed counts as failed by itself."""
    original = RunnerState.on_end

    def on_end(self: RunnerState, exit_code: int, **more: Any) -> None:
        is_stopping, self.is_stopping = self.is_stopping, False
        original(self, exit_code, **more)
        self.is_stopping = is_stopping

    return [(RunnerState, "on_end", on_end)]


def frozen_runner_is_kept() -> list[Patch]:
    """No worker stops the task of an idle runner that does not answer."""
    return [(SilentRunners, "step", lambda self: 60.0)]


def run_with_a_request_expires() -> list[Patch]:
    """A run is forgotten although it has a request."""
    original = memory_runs.MemoryRuns._find_run

    def find(self: Any, name: str) -> Run | None:
        run = original(self, name)
        if run is not None and run.phase is RunPhase.FETCHED and run.fetched_at < self.now() - 30.0:
            del self._runs[name]
            return None
        return run

    return [(memory_runs.MemoryRuns, "_find_run", find)]


def time_limit_counts_from_the_task() -> list[Patch]:
    """What ECS shows of a runner's task is taken for the request's."""
    original = decisions.find_stop_cause

    def find(record: Record, *arguments: Any) -> str:
        return original(msgspec.structs.replace(record, run=""), *arguments)

    return [(decisions, "find_stop_cause", find)]


def stop_ends_a_taken_command() -> list[Patch]:
    """A stop ends the request at once, although its command runs."""
    original = assignments.stop

    def stop(record: Record, run: Run | None, by: str, now: float, settings: ProtocolSettings) -> RunChange:
        if run is not None and run.phase is RunPhase.FETCHED and by != STOPPED_BY_TIME_LIMIT:
            run.phase = RunPhase.ASSIGNED
        return original(record, run, by, now, settings)

    return [(assignments, "stop", stop)]


def _without_barrier(*operations: str) -> list[Patch]:
    kept = simulated_ledger._BARRIER_OPERATIONS - set(operations)
    return [(simulated_ledger, "_BARRIER_OPERATIONS", kept)]


def no_barrier_before_an_end_is_reported() -> list[Patch]:
    """A reported end is lost, and its runner, the only other process that knows it, is gone."""
    return _without_barrier("settle", "update_runner_tasks")


def no_barrier_before_a_stop_is_reported() -> list[Patch]:
    """A stopped request ends as REVOKED, and is launched after all."""
    return _without_barrier("stop")


def no_barrier_of(word: str) -> list[Patch]:
    """A runner acts on a word that is not durable."""
    original = SimRunnerLink._say

    def say(self: SimRunnerLink, message: str, *arguments: Any, has_barrier: bool = False) -> Any:
        return original(self, message, *arguments, has_barrier=has_barrier and message != word)

    return [(SimRunnerLink, "_say", say)]


def no_barrier_before_the_start() -> list[Patch]:
    """A command is started whose assignment a fail-over may undo."""
    return no_barrier_of("next_turn")


def no_barrier_before_a_runner_exits() -> list[Patch]:
    """A runner exits, and a fail-over undoes that its end was taken."""
    return no_barrier_of("leave")


class WarmRule(NamedTuple):
    """A rule, the patches that `disable` it, a regular expression that finds the violation, and faults that matter.

    `first_seed` is where the search begins: earlier seeds show nothing, and cost time.
    """

    disable: Callable[[], list[Patch]]
    expected_violation: str
    runner_faults: RunnerFaults = RunnerFaults()
    faults: SimFaults = SimFaults()
    first_seed: int = 0


_LOSSES = RunnerFaults(word_lost_after_effect=0.3, word_lost_before_effect=0.1, exits_1=0.2)
_LATE = RunnerFaults(word_late=0.3, word_lost_after_effect=0.1)
_ENDS = RunnerFaults(crash=0.02, spot=0.4, stopped_by_hand=0.3, partition=0.05, word_lost_after_effect=0.1)
_FAIL_OVERS = RunnerFaults(fail_over=0.2, crash=0.02, exits_1=0.3)
_LOST_CALLS = SimFaults(
    run_task_lost_before_effect=0.1, run_task_lost_after_effect=0.3, run_task_late=0.2, capacity=0.2, throttle=0.2
)
_UNTAKEN = RunnerFaults(fail_over=0.5, runs_long=0.7)
_NOT_FINISHED = "not over after"
_STARTED_AGAIN = "no attempt was consumed|was started twice|was started again|after its end|ends? |is QUEUED while"
_DISAGREE = "its record has left|no run has its launch"
_DOUBLED = "was started twice|was started again|commands of .* run at a time|after its end"

WARM_RULES: Mapping[str, WarmRule] = {
    rule.disable.__name__: rule
    for rule in (
        WarmRule(void_leaves_the_run, _DISAGREE, first_seed=15),
        WarmRule(taken_command_is_put_back, f"{_DISAGREE}|{_STARTED_AGAIN}", RunnerFaults(drained=0.8, runs_long=0.5)),
        WarmRule(drained_runner_is_not_voided, _DISAGREE, RunnerFaults(drained=0.8)),
        WarmRule(late_is_decided_by_an_older_look, f"{_DOUBLED}|while its command runs|no attempt was consumed"),
        WarmRule(turn_is_given_once, _NOT_FINISHED, _LOSSES),
        WarmRule(any_process_binds, _DOUBLED, RunnerFaults(two_tasks=0.6, restart=0.05)),
        WarmRule(end_counts_for_any_turn, "command runs|while its task is alive|not what happened", _LATE),
        WarmRule(end_is_reported_once, f"{_NOT_FINISHED}|let go", RunnerFaults(fail_over=0.3, hint_lost=0.5)),
        WarmRule(
            bound_run_is_ignored,
            f"{_DISAGREE}|UNKNOWN",
            RunnerFaults(hint_lost=1.0, runs_long=0.5),
            _LOST_CALLS,
            first_seed=16,
        ),
        WarmRule(runner_is_stopped_open, "open run|no caller has stopped", RunnerFaults(hang=0.1)),
        WarmRule(
            unwanted_task_is_stopped,
            "open run",
            RunnerFaults(exits_1=0.6),
            SimFaults(freeze_around_run_task=0.3),
            first_seed=60,
        ),
        WarmRule(exit_code_of_the_task_counts, "to SUCCESS", _ENDS, first_seed=6),
        WarmRule(
            any_task_ends_the_request,
            f"command runs|task is alive|{_DOUBLED}",
            RunnerFaults(two_tasks=0.6, hint_lost=1.0),
            first_seed=38,
        ),
        WarmRule(
            record_keeps_its_task,
            f"{_NOT_FINISHED}|its runner is",
            RunnerFaults(two_tasks=0.6, crash=0.05),
            first_seed=3,
        ),
        WarmRule(untaken_request_ends_with_the_task, "was not taken", _ENDS, SimFaults(never_starts=0.5)),
        WarmRule(busy_runner_is_assigned, _DISAGREE, RunnerFaults(hint_lost=1.0)),
        WarmRule(closed_runner_is_assigned, "which is closed", RunnerFaults(taken_for_silent=0.6), first_seed=44),
        WarmRule(signalled_end_is_reported, "not what happened", RunnerFaults(spot=0.6, runs_long=0.5)),
        WarmRule(frozen_runner_is_kept, _NOT_FINISHED, RunnerFaults(hang=0.05)),
        WarmRule(run_with_a_request_expires, "no run has its launch|let go", RunnerFaults(runs_long=0.5)),
        WarmRule(
            time_limit_counts_from_the_task,
            "open run",
            RunnerFaults(runs_long=0.3, freeze=0.05, partition=0.2),
            first_seed=50,
        ),
        WarmRule(
            stop_ends_a_taken_command,
            "while its task is alive|after its end",
            RunnerFaults(runs_long=0.5),
            first_seed=6,
        ),
        WarmRule(no_barrier_before_an_end_is_reported, "is forgotten|was reported", _FAIL_OVERS),
        WarmRule(
            no_barrier_before_a_stop_is_reported,
            "is forgotten|was reported|got REVOKED",
            RunnerFaults(),
            SimFaults(fail_over=0.5),
            first_seed=13,
        ),
        WarmRule(no_barrier_before_the_start, _STARTED_AGAIN, _UNTAKEN, first_seed=12),
        WarmRule(
            no_barrier_before_a_runner_exits,
            "let go",
            RunnerFaults(fail_over=0.4, hint_lost=1.0, runs_long=0.7),
            first_seed=95,
        ),
    )
}
