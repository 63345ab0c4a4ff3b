"""A run: what the ledger knows of one runner, and the rules of a runner's calls (docs/protocol.md, "Warm pools").

A runner is an ECS task that takes one command after the other from its run. The run alone decides which command the
runner may start, and how it ended. Each function decides one atomic operation: it changes the run in place; `now` is
the ledger's clock. ecs_queue/runs/runner_calls.lua has the same rules.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec

from ecs_queue.payload_repr import PayloadRepr


class RunPhase(StrEnum):
    """The phase of a run: how far its present assignment is. An absent run counts as closed."""

    ASSIGNED = "assigned"
    """It has a command that its runner has not taken yet: taken away again, that command provably never starts."""
    FETCHED = "fetched"
    """Its runner has the command, and may have started it."""
    ENDED = "ended"
    """Its runner has reported how the command ended; the record does not have this end yet."""
    IDLE = "idle"
    """It has no command."""


class RunEnd(msgspec.Struct, frozen=True, kw_only=True):
    """How the last command that a runner has started ended.

    Attributes:
        turn: The number of the command that has ended.
        exit_code: 0 to 255; 128 + the signal that ended it.
        cancelled: Whether the runner had sent it a signal, as the ledger ordered, before it ended.
        mac: By `RunnerKey.sign_end`; "" without keys.
        assignment: `Turn.assignment` of the command, which the run is to have; "" is not compared. The run does not
            keep it.
    """

    turn: int
    exit_code: int
    cancelled: bool = False
    mac: str = ""
    assignment: str = ""


class Turn(PayloadRepr, msgspec.Struct, frozen=True, kw_only=True):
    """A command that a runner may start.

    Attributes:
        turn: 1, 2, 3 ... counts what the run was assigned.
        id, nonce, launch: The assignment: the launch of a request.
        payload: What `RunnerKey.open_payload` reads.
        time_limit: Seconds that the request may run; 0: no limit. Launchers keep it, by a cancel.
    """

    turn: int
    id: str
    nonce: str
    launch: int
    payload: str
    time_limit: float = 0.0

    @property
    def assignment(self) -> str:
        """What names the launch."""
        return f"{self.id}.{self.nonce}.{self.launch}"


class NoTurn(StrEnum):
    """What the ledger answers to a runner that asks for a command, and gets none."""

    WAIT = "wait"
    """There is none now."""
    LEAVE = "leave"
    """There will never be one: exit."""


class Run(PayloadRepr, msgspec.Struct, kw_only=True):
    """One runner. Times are seconds since the epoch by the ledger's clock; 0 means never.

    Attributes:
        name: `<id>.<nonce>.<launch>` of the launch that started it.
        pool, target: Requests of this pool and target may be assigned to it.
        arn, boot: Of the ECS task and the process that called first; "" until then.
        closed: Why it is never assigned anything again; "" if it may be.
        turn, id, nonce, launch, payload, time_limit: The assignment, as in `Turn`. `turn` stays when it is over.
        exit_code, cancelled, mac: The end of the command, as in `RunEnd`, while the phase is ENDED.
        cancel: Whether the command is to be stopped.
        seen_at: When its runner last called; of a closed run that no process has bound, when it was closed.
    """

    name: str
    pool: str = ""
    target: str = ""
    arn: str = ""
    boot: str = ""
    phase: RunPhase = RunPhase.ASSIGNED
    closed: str = ""
    turn: int = 1
    id: str = ""
    nonce: str = ""
    launch: int = 0
    payload: str = ""
    time_limit: float = 0.0
    exit_code: int = 0
    cancelled: bool = False
    mac: str = ""
    cancel: bool = False
    assigned_at: float = 0.0
    fetched_at: float = 0.0
    ended_at: float = 0.0
    seen_at: float = 0.0
    born_at: float = 0.0

    @property
    def end(self) -> RunEnd | None:
        """The end that its runner has reported and no record has taken over."""
        if self.phase is not RunPhase.ENDED:
            return None
        return RunEnd(turn=self.turn, exit_code=self.exit_code, cancelled=self.cancelled, mac=self.mac)

    def is_of(self, record_id: str, nonce: str, launch: int) -> bool:
        """Return whether its assignment is this launch."""
        return self.phase is not RunPhase.IDLE and (self.id, self.nonce, self.launch) == (record_id, nonce, launch)


def begin(run: Run | None, boot: str, arn: str, end: RunEnd | None, now: float) -> tuple[Run | None, bool]:
    """What `next_turn` and `leave` begin with: the first runner process binds the run, and an end is taken.

    The first binding wins: a second ECS task, or a container that ECS restarted, has another boot and is sent away. An
    end counts only for its own turn, and only while that is the same launch: a ledger that has lost its last writes, or
    all of them, gives the number of a turn again.

    Returns:
        The run, None if it is not this process's; and whether the run has changed: launchers are to look at it.
    """
    if run is None or run.boot not in ("", boot):
        return None, False
    if not run.boot:
        run.boot, run.arn = boot, arn
    run.seen_at = now
    if end is None or run.phase is not RunPhase.FETCHED or not _is_of_command(end, run):
        return run, False
    run.phase = RunPhase.ENDED
    run.exit_code, run.cancelled, run.mac, run.ended_at = end.exit_code, end.cancelled, end.mac, now
    return run, True


def _is_of_command(end: RunEnd, run: Run) -> bool:
    return end.turn == run.turn and end.assignment in ("", f"{run.id}.{run.nonce}.{run.launch}")


def next_turn(run: Run | None, boot: str, arn: str, end: RunEnd | None, now: float) -> tuple[Turn | NoTurn, bool]:
    """Give a runner its command: an assigned one, or again the one that it has, since the last answer may be lost.

    Returns:
        The answer, and whether the run has changed: launchers are to look at it.
    """
    run, has_changed = begin(run, boot, arn, end, now)
    if run is None:
        return NoTurn.LEAVE, False
    if run.phase is RunPhase.ASSIGNED:
        run.phase, run.fetched_at = RunPhase.FETCHED, now
        has_changed = run.turn == 1  # its record has no task yet; later ones have it from their claim
    if run.phase is RunPhase.FETCHED:
        turn = Turn(
            turn=run.turn,
            id=run.id,
            nonce=run.nonce,
            launch=run.launch,
            payload=run.payload,
            time_limit=run.time_limit,
        )
        return turn, has_changed
    if not run.closed or has_foreign_end(run, end):
        return NoTurn.WAIT, has_changed
    run.closed = CLOSED_BY_RUNNER
    return NoTurn.LEAVE, has_changed


def has_foreign_end(run: Run, end: RunEnd | None) -> bool:
    """Return whether the run has another end of its command than the one that its runner reports.

    Another process has forged it. Workers find that it does not verify, and then the run takes the runner's own end: so
    the runner must not exit before that.
    """
    if run.phase is not RunPhase.ENDED:
        return False
    return end is None or run.end != msgspec.structs.replace(end, assignment="")


def beat(run: Run | None, boot: str, turn: int, now: float) -> bool:
    """Note that a runner is alive; return whether it must cancel the command of this turn."""
    if run is None or run.boot != boot:
        return False
    run.seen_at = now
    return run.phase is RunPhase.FETCHED and run.turn == turn and run.cancel


def leave(run: Run | None, boot: str, arn: str, end: RunEnd | None, now: float) -> tuple[bool, bool]:
    """Close the run of a runner that wants to exit, unless it has a command or another end: then call `next_turn`.

    Returns:
        Whether it may exit, and whether the run has changed: launchers are to look at it.
    """
    run, has_changed = begin(run, boot, arn, end, now)
    if run is None:
        return True, False
    if run.phase in (RunPhase.ASSIGNED, RunPhase.FETCHED) or has_foreign_end(run, end):
        return False, has_changed
    run.closed = CLOSED_BY_RUNNER
    return True, has_changed


#: Values of `Run.closed`. The ledger has answered that the runner must exit, whatever closed the run before.
CLOSED_BY_RUNNER = "left"
#: Its assignment was taken away: it did not ask for it in time, or the request was stopped or expired.
CLOSED_BY_VOID = "voided"
#: It did not end a command that was to be stopped.
CLOSED_BY_STOP = "stop"
#: ECS shows that its task has stopped.
CLOSED_BY_ECS = "task_stopped"
#: It was idle, and silent for `runner_lost_seconds`: its task is to be stopped.
CLOSED_AS_SILENT = "silent"
#: An operator has drained its queue's pools.
CLOSED_BY_DRAIN = "drained"


class RunnerActivity(StrEnum):
    """What a runner does, for people and metrics."""

    STARTING = "starting"
    """Its task was requested, and its process has not asked for its command yet."""
    BUSY = "busy"
    IDLE = "idle"
    LEAVING = "leaving"
    """It finishes its command and then exits."""
    SILENT = "silent"
    """It has not called for `runner_ttl`."""


def find_activity(run: Run, now: float, runner_ttl: float) -> RunnerActivity | None:
    """Return what the runner of this run does; None for one that has left."""
    if run.phase is RunPhase.IDLE and run.closed:
        return None
    if not run.boot:
        return RunnerActivity.STARTING
    if now - run.seen_at > runner_ttl:
        return RunnerActivity.SILENT
    if run.closed:
        return RunnerActivity.LEAVING
    return RunnerActivity.IDLE if run.phase is RunPhase.IDLE else RunnerActivity.BUSY


def queue_of_pool(pool: str) -> str:
    """Return the queue that a pool's name begins with."""
    return pool.rpartition(".")[0]


def is_free(run: Run, now: float, runner_ttl: float) -> bool:
    """Return whether a run may be assigned a request: it is idle and open, and its runner not silent."""
    return run.phase is RunPhase.IDLE and not run.closed and now - run.seen_at <= runner_ttl


def may_stop_task(run: Run | None, arn: str) -> bool:
    """Return whether StopTask for this task ends no command, or only one whose stop was requested.

    That a record is terminal is not enough: it is so while the runner that it started serves others.
    """
    if run is None or (run.boot and run.arn != arn):
        return True
    return bool(run.closed) and run.phase is not RunPhase.FETCHED
