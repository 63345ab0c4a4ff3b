"""The runner's loop: asks for a command, runs it, reports its end, and waits for the next one."""

from __future__ import annotations

import math
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from types import FrameType
from typing import NamedTuple, Protocol

from ecs_queue.crash_points import crash_point
from ecs_queue.errors import EcsQueueError, UndecodableMessage
from ecs_queue.protocol.runs import RunEnd, Turn
from ecs_queue.runner.alarm import Alarm
from ecs_queue.runner.decisions import Action, RunnerState
from ecs_queue.runner.heartbeat import Heartbeat
from ecs_queue.runner.log_lines import LogLine, format_line, write_line
from ecs_queue.runner.processes import (
    NOT_EXECUTABLE,
    StartFailure,
    TemporaryDirectory,
    enter_directory,
    kill_children,
    reap,
    restore_streams,
    send_signal,
)
from ecs_queue.runner.server import Server
from ecs_queue.runs.runner_key import Assignment, RunnerCommand, RunnerKeys
from ecs_queue.runs.runner_options import RunnerOptions

#: SIGTERM, or what an image names in STOPSIGNAL: those of nginx and PHP-FPM are stopped by SIGQUIT, of systemd by
#: SIGRTMIN+3. Not Apache httpd's SIGWINCH: a terminal sends it when its size changes.
STOP_SIGNALS: tuple[int, ...] = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)
if hasattr(signal, "SIGRTMIN"):  # not on macOS
    STOP_SIGNALS = (*STOP_SIGNALS, signal.SIGRTMIN + 3)
_FORWARDED_SIGNALS = (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
#: The longest sleep while a command runs; signals, its end and a cancel end it.
_WATCH_SECONDS = 60.0
EXIT_STOPPED = 128 + signal.SIGTERM
_OUTAGE_LINE_SECONDS = 60.0


class Starter(Protocol):
    """Starts the first process of a command."""

    def start(self, command: Sequence[str], environment: Mapping[str, str]) -> int:
        """Return the process id; the process is a child of this one, in a session of its own. StartFailure."""
        ...

    def may_wait(self, command: Sequence[str], environment: Mapping[str, str]) -> bool:
        """Return whether this start may take long, because it waits for imports."""
        ...

    def wait(self, alarm: Alarm) -> None:
        """Wait for some of the imports, or until the alarm is set."""
        ...

    @property
    def own_processes(self) -> Sequence[int]:
        """The children that outlive a command."""
        ...


class Identity(NamedTuple):
    """Which process this is: its ECS task, and a random id that no other process has."""

    arn: str
    boot: str


class _CommandEnd(NamedTuple):
    exit_code: int
    is_cancelled: bool = False
    is_clean: bool = True


class Runner:
    """One runner process. `run` must be called on the main thread: it handles signals."""

    def __init__(
        self,
        options: RunnerOptions,
        identity: Identity,
        keys: RunnerKeys,
        connect: Callable[[], Server],
        starter: Starter,
        environment: Mapping[str, str],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Wire the parts.

        Args:
            options: Which run, and the numbers of its queue.
            identity: Of this process.
            keys: Of its queue.
            connect: Makes a connection of its own for a thread.
            starter: Starts commands.
            environment: What every command gets.
            clock: Seconds that only grow.
        """
        self._options = options
        self._identity = identity
        self._keys = keys
        self._connect = connect
        self._server = connect()
        self._starter = starter
        self._environment = environment
        self._directory = os.getcwd()
        self._clock = clock
        self._state = RunnerState(options, clock(), jitter=int(identity.boot[:8], 16) / 0xFFFFFFFF)
        self._key_id = ""  # that signs the last command's end
        self._alarm = Alarm()
        self._signals: list[int] = []
        self._must_cancel = False
        self._outage_line_at = 0.0

    def run(self) -> int:
        """Run commands until there is nothing more to do; return the exit status.

        It is 1 if the server, or what it knew, was lost, and that of SIGTERM if this ended a command. Nothing follows
        from it.
        """
        signal.set_wakeup_fd(self._alarm.signal_fileno(), warn_on_full_buffer=False)
        for number in (*STOP_SIGNALS, *_FORWARDED_SIGNALS, signal.SIGCHLD):
            signal.signal(number, self._on_signal)
        perform = {
            Action.ASK: self._ask,
            Action.START: self._run_turn,
            Action.WAIT: self._wait,
            Action.LEAVE: self._leave,
            Action.PAUSE: self._pause,
        }
        while True:
            if any(number in STOP_SIGNALS for number in self._take_signals()):
                self._state.on_stop_signal()
            reap()
            action = self._state.next_action(self._clock())
            if action is Action.EXIT:
                self._server.close()
                if self._state.is_forgotten:
                    log_message("the server has lost what it knew of this runner's commands: it ends without a word")
                return 1 if self._state.is_lost else EXIT_STOPPED if self._state.keeps_end else 0
            perform[action]()

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        self._signals.append(number)

    def _take_signals(self) -> list[int]:
        self._alarm.clear()
        taken, self._signals = self._signals, []
        return taken

    def _ask(self) -> None:
        try:
            answer = self._server.ledger.next_turn(
                self._options.run, self._identity.boot, self._identity.arn, self._signed_end()
            )
        except EcsQueueError as error:
            self._note_failure(error)
        else:
            if self._state.end is not None:
                crash_point("runner.end_reported")
            self._note_contact()
            self._state.on_answer(answer, self._clock())

    def _leave(self) -> None:
        try:
            may_exit = self._server.ledger.leave(
                self._options.run, self._identity.boot, self._identity.arn, self._signed_end()
            )
        except EcsQueueError as error:
            self._note_failure(error)
        else:
            crash_point("runner.left")
            self._note_contact()
            self._state.on_leave(may_exit=may_exit, now=self._clock())

    def _wait(self) -> None:
        seconds, identity = self._state.wait_seconds(self._clock()), self._identity
        try:
            with self._server.interruptible(self._alarm):
                answer = self._server.ledger.wait_for_turn(
                    self._options.run, identity.boot, identity.arn, self._signed_end(), seconds
                )
        except EcsQueueError:
            self._state.on_woken()  # interrupted, or the next question meets the same failure
        else:
            self._state.on_answer(answer, self._clock())

    def _pause(self) -> None:
        self._alarm.wait(self._state.pause_seconds)
        self._state.on_paused()

    def _signed_end(self) -> RunEnd | None:
        end = self._state.end
        options = self._options
        if end is None:
            return None
        return self._keys.sign_end(options.namespace, options.queue, options.run, end, self._key_id)

    def _note_failure(self, error: EcsQueueError) -> None:
        """Say that an outage has begun, and once a minute that it goes on."""
        now = self._clock()
        if not self._outage_line_at or now - self._outage_line_at >= _OUTAGE_LINE_SECONDS:
            self._outage_line_at = now
            log_message(str(error))
        self._state.on_failure()

    def _note_contact(self) -> None:
        if self._outage_line_at:
            self._outage_line_at = 0.0
            log_message("the server answers again")

    def _run_turn(self) -> None:
        turn = self._state.turn
        assert turn is not None
        self._state.on_start()
        crash_point("runner.turn_taken")
        write_line(format_line(LogLine(turn.id, turn.launch, turn.turn)))
        options = self._options
        self._key_id = self._keys.id_in(turn.payload)
        try:
            assignment = Assignment(options.namespace, options.queue, turn.id, turn.nonce, turn.launch)
            command = self._keys.open_payload(turn.payload, assignment)
        except UndecodableMessage as error:
            log_message(str(error))
            end = _CommandEnd(NOT_EXECUTABLE, is_clean=False)  # the next payload could not be opened either: exit
        else:
            end = self._run_command(turn, command)
        write_line(format_line(LogLine(turn.id, turn.launch, turn.turn, end.exit_code, end.is_cancelled)))
        crash_point("runner.command_ended")
        self._state.on_end(end.exit_code, is_cancelled=end.is_cancelled, is_clean=end.is_clean, now=self._clock())

    def _run_command(self, turn: Turn, command: RunnerCommand) -> _CommandEnd:
        """Run the command, and kill what it leaves behind."""
        boot = self._identity.boot
        directory = TemporaryDirectory(f"ecs-queue-{boot[:16]}-{turn.turn}")
        environment = {**self._environment, **directory.environment, **command.environment}
        self._must_cancel = False
        interval = self._options.runner_ttl / 3
        try:
            with Heartbeat(self._connect, self._options.run, boot, turn.turn, interval, self._on_cancel) as heartbeat:
                try:
                    end = self._await_imports(command.command, environment, heartbeat) or self._watch(
                        self._starter.start(command.command, environment), heartbeat
                    )
                except StartFailure as failure:
                    log_message(f"request {turn.id}: {failure}")
                    end = _CommandEnd(failure.exit_code)
                is_clean = kill_children(self._starter.own_processes)
                restore_streams()
        finally:
            directory.remove()
        return end._replace(is_clean=self._check_clean(turn, has_processes=not is_clean))

    def _check_clean(self, turn: Turn, *, has_processes: bool) -> bool:
        """Return whether the next command would start in the same conditions, as far as the runner can check."""
        if has_processes:
            left = "left processes that cannot be killed"
        elif not enter_directory(self._directory):
            left = f"has removed the working directory {self._directory}"
        else:
            return True
        log_message(f"request {turn.id} {left}: this runner takes no further command")
        return False

    def _on_cancel(self) -> None:
        self._must_cancel = True
        self._alarm.set()

    def _await_imports(
        self, command: Sequence[str], environment: Mapping[str, str], heartbeat: Heartbeat
    ) -> _CommandEnd | None:
        """Wait until the command can be started; return its end if it is to be stopped before that."""
        while self._starter.may_wait(command, environment):
            heartbeat.start()  # else launchers would take this runner for silent, and a cancel would not come
            if any(number in STOP_SIGNALS for number in self._take_signals()):
                self._state.on_stop_signal()
            if self._must_cancel or self._state.is_stopping:
                return _CommandEnd(EXIT_STOPPED, is_cancelled=self._must_cancel)
            self._starter.wait(self._alarm)
        return None

    def _watch(self, pid: int, heartbeat: Heartbeat) -> _CommandEnd:
        """Wait for the end of a command's first process; pass on signals meanwhile."""
        is_cancelled, kill_at = False, None
        beats_at = self._clock() + heartbeat.first_pause
        crash_point("runner.command_started")
        while True:
            numbers = self._take_signals()
            ended = reap(pid)
            if ended is not None:
                self._signals += numbers
                return _CommandEnd(ended.exit_code, is_cancelled)
            now = self._clock()
            for number in numbers:
                if number in STOP_SIGNALS:
                    self._state.on_stop_signal()
                if number != signal.SIGCHLD:
                    send_signal(pid, signal.SIGTERM if number in STOP_SIGNALS else number)
            if self._must_cancel and not is_cancelled:
                is_cancelled = True
                send_signal(pid, signal.SIGTERM)
            if kill_at is None and (is_cancelled or self._state.is_stopping):
                kill_at = now + self._options.stop_timeout
            if kill_at is not None and now >= kill_at:
                send_signal(pid, signal.SIGKILL)
            if now >= beats_at:
                beats_at = math.inf if heartbeat.start() else now + heartbeat.first_pause
            next_at = min(now + _WATCH_SECONDS, beats_at, math.inf if kill_at is None else kill_at)
            self._alarm.wait(max(0.01, next_at - now))


def log_message(sentence: str) -> None:
    """Write a sentence of the runner itself to the container's log."""
    write_line(f"ecs-queue runner: {sentence}", sys.__stderr__.fileno() if sys.__stderr__ else 2)
