"""Runners as simulated processes: the real decisions of a runner, and the commands that it starts."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, Protocol

from ecs_queue.errors import EcsQueueError, LedgerUnavailable, WriteNotDurable
from ecs_queue.protocol.runs import NoTurn, RunEnd, Turn
from ecs_queue.runner.decisions import Action, RunnerState
from ecs_queue.runs.runner_options import RunnerOptions
from tests.simulation.ledger import SimLedgerServer
from tests.simulation.process import SimProcess, SimulationContext
from tests.simulation.scheduler import SimThread

#: A word that is on its way for long arrives within this time, in seconds.
_LATE_SECONDS = 90.0
#: How long a runner waits for an answer, in seconds.
_TIMEOUT_SECONDS = 5.0
_SIGTERM_EXIT, _SIGKILL_EXIT = 143, 137


@dataclass(frozen=True, slots=True)
class RunnerFaults:
    """Probabilities: of process faults per step, of others per word, task or command."""

    crash: float = 0.0
    freeze: float = 0.0
    hang: float = 0.0  # frozen until its task is stopped, or the faults are over
    restart: float = 0.0  # ECS restarts the container
    word_lost_before_effect: float = 0.0
    word_lost_after_effect: float = 0.0
    word_late: float = 0.0
    partition: float = 0.0  # it does not reach the server for a while
    fail_over: float = 0.0
    barrier_unconfirmed: float = 0.0  # while a fail-over is near
    spot: float = 0.0  # per task
    stopped_by_hand: float = 0.0  # per task
    two_tasks: float = 0.0  # per RunTask
    forgotten: float = 0.0  # ECS shows the task no more once it has stopped
    run_expires: float = 0.0  # per task: the run is forgotten while it is idle
    taken_for_silent: float = 0.0  # per task: its run is closed as silent while it is idle
    drained: float = 0.0  # per task: an operator drains the pools, soon after the task has started, or before
    hint_lost: float = 0.0  # no launcher learns that a run has changed
    ignores_sigterm: float = 0.0  # per command
    exits_1: float = 0.0
    runs_long: float = 0.0


#: The usual probabilities. In a seed a fault is absent, usual, or four times as frequent.
_USUAL = RunnerFaults(
    crash=0.004,
    freeze=0.004,
    hang=0.002,
    restart=0.003,
    word_lost_before_effect=0.03,
    word_lost_after_effect=0.05,
    word_late=0.03,
    partition=0.005,
    fail_over=0.01,
    barrier_unconfirmed=0.3,
    spot=0.1,
    stopped_by_hand=0.1,
    two_tasks=0.1,
    forgotten=0.1,
    run_expires=0.1,
    taken_for_silent=0.1,
    drained=0.1,
    hint_lost=0.2,
    ignores_sigterm=0.2,
    exits_1=0.15,
    runs_long=0.1,
)
_ABSENT_BELOW, _USUAL_BELOW, _FREQUENT_FACTOR = 0.5, 0.85, 4.0


def draw_runner_faults(seed: int) -> RunnerFaults:
    """Draw a seed's. Drawn apart, so that the other draws of a seed stay the same."""
    rng = random.Random(f"runners {seed}")
    drawn = {}
    for field in fields(RunnerFaults):
        draw, usual = rng.random(), getattr(_USUAL, field.name)
        frequent = min(0.6, usual * _FREQUENT_FACTOR)
        drawn[field.name] = 0.0 if draw < _ABSENT_BELOW else usual if draw < _USUAL_BELOW else frequent
    return RunnerFaults(**drawn)


class RunnerObserver(Protocol):
    """Learns what runners do."""

    def on_command_started(self, runner: SimRunner, turn: Turn) -> None:
        """The command of a turn has started."""

    def on_command_ended(self, runner: SimRunner, turn: Turn, how: int | str) -> None:
        """It has ended: with an exit code, "cancelled", "signalled" by ECS, or "killed"."""

    def on_left(self, runner: SimRunner) -> None:
        """It was let go, and has exited."""

    def on_cancel(self, runner: SimRunner, turn: Turn) -> None:
        """It got the order to stop the command."""

    def on_word(self, word: str, answer: Any) -> None:
        """A word has taken effect in the ledger."""


class SimRunnerLink:
    """`RunnerOperations` of one runner: each word may be lost before or after its effect, or arrive late."""

    def __init__(
        self,
        runner: SimRunner,
        server: SimLedgerServer,
        faults: Callable[[], RunnerFaults],
        schedule_fail_over: Callable[[], None],
        observer: RunnerObserver,
    ) -> None:
        self._runner = runner
        self._context = runner.context
        self._server = server
        self._faults = faults
        self._schedule_fail_over = schedule_fail_over
        self._observer = observer

    def next_turn(self, name: str, boot: str, arn: str, end: RunEnd | None) -> Turn | NoTurn:
        """See `RunnerOperations`."""
        answer: Turn | NoTurn = self._say("next_turn", name, boot, arn, end)
        return answer if answer is NoTurn.WAIT else self._say_durably("next_turn", name, boot, arn, end)

    def beat(self, name: str, boot: str, turn: int) -> bool:
        """See `RunnerOperations`."""
        return bool(self._say("beat", name, boot, turn))

    def leave(self, name: str, boot: str, arn: str, end: RunEnd | None) -> bool:
        """See `RunnerOperations`."""
        may_exit = self._say("leave", name, boot, arn, end)
        return bool(may_exit and self._say_durably("leave", name, boot, arn, end))

    def _say_durably(self, word: str, *arguments: Any) -> Any:
        """Say it again, with the barrier behind it on the same connection, as `RedisRunner` does."""
        return self._say(word, *arguments, has_barrier=True)

    def _say(self, word: str, *arguments: Any, has_barrier: bool = False) -> Any:
        context, faults = self._context, self._faults()
        self._runner.step(word)
        if "server" in self._runner.unreachable or context.happens(faults.word_lost_before_effect):
            self._fail(f"{word} does not reach the ledger")
        if context.happens(faults.partition):
            self._runner.disconnect(context.rng.choice((20.0, 200.0)) * context.rng.uniform(0.5, 2.0))
        if context.happens(faults.fail_over) and not self._server.has_snapshot:
            self._server.take_snapshot()
            context.scheduler.call_after(context.rng.random(), self._schedule_fail_over)

        def effect() -> Any:
            answer = getattr(self._server, word)(*arguments)
            if context.is_traced:
                context.trace(f"{self._runner.name}: {word}{arguments} -> {answer}")
            self._observer.on_word(word, answer)
            return answer

        if context.happens(faults.word_late):
            context.scheduler.call_after(context.rng.uniform(0.0, _LATE_SECONDS), effect)
            self._fail(f"{word} is on its way for long")
        answer = effect()
        if has_barrier and self._server.has_snapshot:
            if context.happens(faults.barrier_unconfirmed):
                context.scheduler.sleep(context.rng.random())
                raise WriteNotDurable(f"{word} was not confirmed")
            self._server.take_snapshot()
        if context.happens(faults.word_lost_after_effect):
            self._fail(f"{word} took effect, the answer is lost")
        return answer

    def _fail(self, description: str) -> None:
        self._context.trace(f"{self._runner.name}: {description}")
        self._context.scheduler.sleep(self._context.rng.uniform(0.0, _TIMEOUT_SECONDS))
        raise LedgerUnavailable


class SimRunner(SimProcess):
    """One process in a runner's container.

    Args:
        context: The simulation's.
        arn: Of its task.
        boot: Its number in the container.
        options: What the launcher has passed to it.
        server: The ledger.
        faults: Returns the present probabilities.
        schedule_fail_over: Called shortly after a snapshot was taken.
        observer: Learns what it does.
        on_exit: Called with it and its exit code, None when ECS restarts the container.
    """

    def __init__(
        self,
        context: SimulationContext,
        arn: str,
        boot: int,
        options: RunnerOptions,
        server: SimLedgerServer,
        faults: Callable[[], RunnerFaults],
        schedule_fail_over: Callable[[], None],
        observer: RunnerObserver,
        on_exit: Callable[[SimRunner, int | None], None],
    ) -> None:
        super().__init__(context, f"runner-{arn[-2:]}.{boot}", lambda process: None)
        self.arn, self.boot, self.options = arn, f"{arn[-4:]}.{boot}", options
        self.running: Turn | None = None
        self.is_hung = False
        self._link = SimRunnerLink(self, server, faults, schedule_fail_over, observer)
        self._server = server
        self._faults = faults
        self._observer = observer
        self._on_exit = on_exit
        self._state = RunnerState(options, context.now, context.rng.random())
        self._got_sigterm = False
        self._interruptible: SimThread | None = None

    def start(self) -> None:
        """Start its loop."""
        self.context.scheduler.spawn(self, "main", self._run)

    def terminate(self) -> None:
        """SIGTERM."""
        self.context.trace(f"{self.name} gets SIGTERM")
        self._got_sigterm = True
        if self._interruptible is not None:
            self.context.scheduler.wake(self._interruptible)

    def end(self) -> None:
        """The container is gone, and the command in it."""
        if not self.is_dead:
            self._end_command("killed")
            self.context.scheduler.kill(self)

    def thaw(self) -> None:
        """A hung process goes on."""
        self.is_hung, self.frozen_until = False, self.context.now
        for thread in self.threads:
            self.context.scheduler.wake(thread)

    def disconnect(self, seconds: float) -> None:
        """It does not reach the server for a while."""
        self.context.trace(f"{self.name} does not reach the server for {seconds:.0f} s")
        self.unreachable.add("server")
        self.context.scheduler.call_after(seconds, lambda: self.unreachable.discard("server"))

    def step(self, what: str) -> None:
        """See `SimProcess.step`."""
        context, faults = self.context, self._faults()
        context.scheduler.sleep(context.rng.random() * 0.03)
        draw = context.rng.random()
        for kind in ("crash", "restart", "hang", "freeze"):
            draw -= getattr(faults, kind)
            if draw < 0:
                self._suffer(kind, what)
                return

    def _suffer(self, kind: str, what: str) -> None:
        context = self.context
        context.trace(f"{self.name}: {kind} before {what}")
        if kind in ("crash", "restart"):
            self._end_command("killed")
            self._on_exit(self, 1 if kind == "crash" else None)
            context.scheduler.kill(self)
        self.is_hung = kind == "hang"
        seconds = 1e9 if self.is_hung else context.rng.choice((4.0, 40.0, 400.0)) * context.rng.uniform(0.5, 2.0)
        self.frozen_until = context.now + seconds
        context.scheduler.sleep(0.0)

    def _run(self) -> None:
        state, now = self._state, self.context.scheduler.clock
        perform = {
            Action.ASK: self._ask,
            Action.START: self._run_turn,
            Action.WAIT: lambda: self._wait(state.wait_seconds(now())),
            Action.LEAVE: self._leave,
            Action.PAUSE: self._pause,
        }
        while True:
            self._note_sigterm()
            action = state.next_action(now())
            if action is Action.EXIT:
                break
            perform[action]()
        code = 1 if state.is_lost else _SIGTERM_EXIT if state.keeps_end else 0
        self.context.trace(f"{self.name} exits {code}")
        if code == 0:
            self._observer.on_left(self)
        self._on_exit(self, code)
        self.context.scheduler.kill(self)

    def _note_sigterm(self) -> None:
        if self._got_sigterm and not self._state.is_stopping:
            self._state.on_stop_signal()

    def _ask(self) -> None:
        try:
            answer = self._link.next_turn(self.options.run, self.boot, self.arn, self._state.end)
        except EcsQueueError:
            self._state.on_failure()
        else:
            self._state.on_answer(answer, self.context.now)

    def _leave(self) -> None:
        try:
            may_exit = self._link.leave(self.options.run, self.boot, self.arn, self._state.end)
        except EcsQueueError:
            self._state.on_failure()
        else:
            self._state.on_leave(may_exit=may_exit, now=self.context.now)

    def _wait(self, seconds: float) -> None:
        """Wait for a wake-up, then ask: one call of the real runner (`wait_for_turn`), which a signal interrupts."""
        self._interruptibly(lambda: self._server.wait_for_wake(self.options.run, seconds))
        if self._got_sigterm and not self._state.is_stopping:
            self._state.on_woken()
            return
        try:
            answer = self._link.next_turn(self.options.run, self.boot, self.arn, self._state.end)
        except EcsQueueError:
            self._state.on_woken()
        else:
            self._state.on_answer(answer, self.context.now)

    def _pause(self) -> None:
        self._sleep(self._state.pause_seconds)
        self._state.on_paused()

    def _sleep(self, seconds: float) -> None:
        self._interruptibly(lambda: self.context.scheduler.sleep(seconds))

    def _interruptibly(self, wait: Callable[[], None]) -> None:
        self._interruptible = self.context.scheduler.current
        try:
            if not self._got_sigterm or self._state.is_stopping:
                wait()
        finally:
            self._interruptible = None

    def _run_turn(self) -> None:
        turn = self._state.turn
        assert turn is not None
        self._state.on_start()
        self.step("the command starts")
        self.running = turn
        self._observer.on_command_started(self, turn)
        exit_code, is_cancelled = self._watch(turn)
        is_signalled = self._state.is_stopping and exit_code != 0
        self._end_command("cancelled" if is_cancelled else "signalled" if is_signalled else exit_code)
        self.step("the end is noted")
        self._state.on_end(exit_code, is_cancelled=is_cancelled, is_clean=True, now=self.context.now)

    def _watch(self, turn: Turn) -> tuple[int, bool]:
        """The command's life: it ends by itself, or some time after the first SIGTERM."""
        context, faults, rng = self.context, self._faults(), self.context.rng
        lasts = rng.choice((1.0, 5.0, 30.0)) * rng.uniform(0.3, 2.0)
        if context.happens(faults.runs_long):
            lasts = rng.uniform(100.0, 600.0)
        ends_at, exit_code = context.now + lasts, int(context.happens(faults.exits_1))
        ignores = context.happens(faults.ignores_sigterm)
        is_cancelled = was_signalled = False
        beat_at = context.now + 1.0
        while context.now < ends_at:
            self._sleep(max(0.01, min(ends_at, beat_at) - context.now))
            self._note_sigterm()
            must_cancel = False
            if context.now >= beat_at and context.now < ends_at:
                must_cancel = self._beat(turn)
                beat_at = context.now + self.options.runner_ttl / 3
            if must_cancel and not is_cancelled and context.now < ends_at:
                self._observer.on_cancel(self, turn)
                is_cancelled = True
            if (is_cancelled or self._state.is_stopping) and not was_signalled and context.now < ends_at:
                was_signalled = True
                grace = self.options.stop_timeout
                reacts_in, code = (grace, _SIGKILL_EXIT) if ignores else (min(grace, rng.random() * 3), _SIGTERM_EXIT)
                if context.now + reacts_in < ends_at:
                    ends_at = context.now + reacts_in
                    exit_code = 0 if not ignores and rng.random() < 0.2 else code
        return exit_code, is_cancelled

    def _beat(self, turn: Turn) -> bool:
        try:
            return self._link.beat(self.options.run, self.boot, turn.turn)
        except EcsQueueError:
            return False

    def _end_command(self, how: int | str) -> None:
        turn, self.running = self.running, None
        if turn is not None:
            self._observer.on_command_ended(self, turn, how)
