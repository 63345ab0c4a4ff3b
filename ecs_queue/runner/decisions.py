"""What a runner does next, from what it knows. Pure: times are seconds of one monotonic clock, handed in.

docs/protocol.md, "Warm pools", has the rules. Two of them shape this module. A runner repeats the end of its last
command in every call until it starts the next one, because a fail-over of the server may undo that the ledger took it.
And it starts a command, or exits, only after an answer that the ledger has confirmed.
"""

from __future__ import annotations

from collections import deque
from enum import Enum

import msgspec

from ecs_queue.protocol.runs import NoTurn, RunEnd, Turn
from ecs_queue.runs.runner_options import RunnerOptions

#: How long a runner that has never reached the server tries.
FIRST_CONTACT_SECONDS = 60.0
#: Pauses between failed questions grow from the first to the second.
_MIN_PAUSE_SECONDS, _MAX_PAUSE_SECONDS = 0.1, 5.0
#: How many of its last commands a runner knows: a server loses the last second when it fails over, or all.
_COMMANDS_REMEMBERED = 1000


class Action(Enum):
    """What the runner does next."""

    ASK = "ask"
    """Call `next_turn` with `RunnerState.end`."""
    START = "start"
    """Start the command of `RunnerState.turn`."""
    WAIT = "wait"
    """Wait for a wake-up, at most `RunnerState.wait_seconds`."""
    LEAVE = "leave"
    """Call `leave` with `RunnerState.end`."""
    PAUSE = "pause"
    """Wait for `RunnerState.pause_seconds`: the server could not be reached, or has refused twice to let it leave."""
    EXIT = "exit"
    """End the process."""


class RunnerState:
    """What one runner process knows between two commands.

    Attributes:
        turn: The confirmed turn to start; None without one.
        end: Of the last command that was started; None before the first, and when it must not be reported.
        is_stopping: Whether the process got SIGTERM: ECS ends the task.
        is_lost: Whether it gave up: it could not reach the server, or `is_forgotten`.
        is_forgotten: Whether the server has lost writes: it gave a command that has run, and whose end is lost.
        keeps_end: Whether it does not report the end of its last command: the signal may have made it.
        pause_seconds: For `Action.PAUSE`.
    """

    def __init__(self, options: RunnerOptions, now: float, jitter: float) -> None:
        """Begin.

        Args:
            options: The numbers of the queue.
            now: The time.
            jitter: 0 to 1; spreads the pauses of runners that lost the same server.
        """
        self._options = options
        self._jitter = jitter
        self._started_at = now
        self._idle_since = now
        self._contact_at = now
        self._had_contact = False
        self._last_turn = 0
        self._first = ""  # the launches of the commands that were started, by `Turn.assignment`
        self._last: deque[str] = deque(maxlen=_COMMANDS_REMEMBERED)
        self._is_asking = True
        self._may_exit = False
        self._is_worn = False
        self._failures = 0
        self._refusals = 0  # of `leave`, since the last command
        self.pause_seconds = 0.0
        self.turn: Turn | None = None
        self.end: RunEnd | None = None
        self.is_stopping = False
        self.is_lost = self.is_forgotten = False
        self.keeps_end = False

    def next_action(self, now: float) -> Action:
        """Return what to do now. Not while a command runs."""
        if self._may_exit or self.is_forgotten:
            return Action.EXIT
        if self._is_out_of_touch(now):
            self.is_lost = True
            return Action.EXIT
        if self.pause_seconds:
            return Action.PAUSE
        if self.is_stopping:
            return Action.LEAVE
        if self.turn is not None:
            return Action.START
        if self._is_asking:
            return Action.ASK
        return Action.LEAVE if self._is_over(now) else Action.WAIT

    def wait_seconds(self, now: float) -> float:
        """Return for how long to wait for a wake-up: launchers take a runner for silent after `runner_ttl`."""
        over_at = self._idle_since + self._options.warm_seconds
        if self._options.warm_max_age:
            over_at = min(over_at, self._started_at + self._options.warm_max_age)
        return max(_MIN_PAUSE_SECONDS, min(self._options.runner_ttl / 3, over_at - now))

    def on_answer(self, answer: Turn | NoTurn, now: float) -> None:
        """Note the confirmed answer of `next_turn`."""
        self._note_contact(now)
        self._is_asking = False
        if not isinstance(answer, Turn):
            self._may_exit = answer is NoTurn.LEAVE
        elif answer.assignment != self._first and answer.assignment not in self._last:
            self.turn = answer
        elif self.end is not None and answer.assignment == self._last[-1]:
            # A late answer, or a fail-over, may repeat a turn: never start it again, but ask again and report its end.
            self.end = msgspec.structs.replace(self.end, turn=answer.turn)
            self._is_asking, self.pause_seconds = True, _MIN_PAUSE_SECONDS
        else:
            # It has run, and its end is lost. What ECS shows of this task decides, as if this process had died.
            self.is_lost = self.is_forgotten = True

    def on_leave(self, *, may_exit: bool, now: float) -> None:
        """Note the confirmed answer of `leave`. A task that ECS ends takes no further command."""
        self._note_contact(now)
        self._may_exit = may_exit or self.is_stopping
        self._is_asking = True
        self._refusals += 1
        if self._refusals > 1:  # `next_turn` gave no command: the run has an end of another process
            self._pause(self._refusals - 1)

    def on_woken(self) -> None:
        """Note that the wait for a wake-up is over."""
        self._is_asking = True

    def on_failure(self) -> None:
        """Note that the server did not answer, or did not confirm its answer."""
        self.turn = None
        self._is_asking = True
        self._failures += 1
        self._pause(self._failures)
        # An idle runner that ECS ends has nothing to report; launchers see its end at ECS.
        self._may_exit = self.is_stopping and self.end is None

    def _pause(self, times: int) -> None:
        pause = min(_MAX_PAUSE_SECONDS, _MIN_PAUSE_SECONDS * 2.0 ** min(times - 1, 10))
        self.pause_seconds = pause * (0.5 + self._jitter / 2)

    def on_paused(self) -> None:
        """Note that the pause is over."""
        self.pause_seconds = 0.0

    def on_start(self) -> None:
        """Note that the command of `turn` is about to start. The end before it is confirmed by the same barrier."""
        assert self.turn is not None
        self._last_turn = self.turn.turn
        self._last.append(self.turn.assignment)
        self._first = self._first or self._last[0]
        self._refusals = 0
        self.turn = self.end = None

    def on_end(self, exit_code: int, *, is_cancelled: bool, is_clean: bool, now: float) -> None:
        """Note how the command ended.

        Args:
            exit_code: 0 to 255.
            is_cancelled: Whether it had been sent a signal, as the ledger ordered, before it ended.
            is_clean: Whether none of its processes is left: otherwise this runner takes no further command.
            now: The time.
        """
        self._idle_since = self._contact_at = now
        self._is_worn = self._is_worn or not is_clean
        self._is_asking = not self._is_over(now)  # `leave` reports the end, too
        if self.is_stopping and exit_code and not is_cancelled:
            self.keeps_end = self._may_exit = True  # the signal may have ended it: what ECS shows decides
            return
        self.end = RunEnd(turn=self._last_turn, exit_code=exit_code, cancelled=is_cancelled, assignment=self._last[-1])

    def on_stop_signal(self) -> None:
        """Note SIGTERM. A call that failed is tried again at once."""
        self.is_stopping = True
        self.turn = None
        self.pause_seconds = 0.0

    def _note_contact(self, now: float) -> None:
        self._contact_at = now
        self._had_contact = True
        self._failures = 0
        self.pause_seconds = 0.0

    def _is_out_of_touch(self, now: float) -> bool:
        limit = self._options.runner_lost_seconds if self._had_contact else FIRST_CONTACT_SECONDS
        return self._failures > 0 and now - self._contact_at > limit

    def _is_over(self, now: float) -> bool:
        age = self._options.warm_max_age
        is_old = bool(age) and now - self._started_at >= age
        return self._is_worn or is_old or now - self._idle_since >= self._options.warm_seconds
