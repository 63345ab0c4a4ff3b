"""What a runner says, in memory and in Redis."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from ecs_queue.errors import WriteNotDurable
from ecs_queue.protocol.operations import ResultCode
from ecs_queue.protocol.runs import NoTurn, RunEnd, RunPhase, Turn
from ecs_queue.protocol.states import State
from ecs_queue.runs.redis_runner import RedisRunner
from tests.conformance.ledger.harness import LedgerHarness
from tests.conformance.ledger.runner_harness import (
    ARN,
    RunnerHarness,
    assigned_run,
    list_changed_runs,
    make_runner,
    read_run,
    settle,
    start_runner,
    write_run,
)
from tests.fake_clock import START

TURN = Turn(turn=1, id="job", nonce="nonce-01", launch=1, payload="the command", time_limit=90.5)
END = RunEnd(turn=1, exit_code=3, mac="mac")


@pytest.fixture
def runner(harness: LedgerHarness) -> RunnerHarness:
    """A runner to whose run a request is assigned."""
    run = assigned_run(time_limit=90.5)
    write_run(harness, run)
    return make_runner(harness, run.name)


def test_the_first_process_binds_the_run_and_gets_its_command(harness: LedgerHarness, runner: RunnerHarness) -> None:
    assert runner.next() == TURN

    run = runner.run
    assert (run.phase, run.arn, run.boot) == (RunPhase.FETCHED, ARN, "boot-1")
    assert run.fetched_at == run.seen_at == START
    assert list_changed_runs(harness) == [run.name]


def test_a_later_command_that_a_runner_takes_is_no_change_for_launchers(harness: LedgerHarness) -> None:
    """They know the task of its request since they gave it to the runner."""
    run = assigned_run(turn=2, boot="boot-1", arn=ARN)
    write_run(harness, run)
    runner = make_runner(harness, run.name)

    runner.next()
    assert list_changed_runs(harness) == []
    runner.next(RunEnd(turn=2, exit_code=0))
    assert list_changed_runs(harness) == [run.name]


def test_a_command_whose_answer_was_lost_is_given_again(runner: RunnerHarness) -> None:
    runner.next()

    assert runner.next() == TURN
    assert not runner.leave(), "a runner that has a command may not exit"


def test_another_process_is_sent_away(runner: RunnerHarness) -> None:
    runner.next()
    other, before = runner.another_process(), runner.run

    runner.harness.advance(1.0)
    assert other.next() is NoTurn.LEAVE
    assert other.next(END) is NoTurn.LEAVE
    assert other.leave(END)
    assert not other.beat()
    assert runner.run == before


def test_a_runner_without_a_run_may_leave(harness: LedgerHarness) -> None:
    stray = make_runner(harness, "job.nonce-01.2")

    assert stray.next() is NoTurn.LEAVE
    assert stray.leave()
    assert not stray.beat()
    assert read_run(harness, stray.name) is None


@pytest.mark.parametrize("word", ["next", "leave"])
def test_an_end_is_stored_with_either_word(runner: RunnerHarness, word: str) -> None:
    runner.next()
    runner.harness.advance(2.0)

    assert getattr(runner, word)(END) is (NoTurn.WAIT if word == "next" else True)
    assert runner.run.end == END
    assert runner.run.ended_at == START + 2.0
    assert runner.run.closed == ("left" if word == "leave" else "")


def test_an_end_of_another_turn_and_a_second_end_change_nothing(runner: RunnerHarness) -> None:
    runner.next()
    assert runner.next(RunEnd(turn=2, exit_code=0)) == TURN
    runner.next(END)

    assert runner.next(RunEnd(turn=1, exit_code=0)) is NoTurn.WAIT
    assert runner.run.end == END


def test_an_end_of_another_launch_changes_nothing_though_the_turn_is_the_same(runner: RunnerHarness) -> None:
    """A ledger that has lost its last writes gives the number of a turn again."""
    runner.next()
    assert runner.next(msgspec.structs.replace(END, assignment="other.nonce-01.1")) == TURN
    assert not runner.leave(msgspec.structs.replace(END, assignment="job.nonce-01.2"))

    assert runner.next(msgspec.structs.replace(END, assignment=TURN.assignment)) is NoTurn.WAIT
    assert runner.run.end == END
    assert runner.leave(msgspec.structs.replace(END, assignment=TURN.assignment)), "it is the runner's own"


@pytest.mark.parametrize("is_drained", [False, True])
def test_a_runner_may_not_leave_while_its_run_has_an_end_that_it_has_not_reported(
    harness: LedgerHarness, is_drained: bool
) -> None:
    """Who may write runs can forge an end before the true one: that one must still come when the other is refused."""
    runner = start_runner(harness)
    if is_drained:
        harness.ledger.drain_runs([runner.name])
    runner.next(RunEnd(turn=1, exit_code=0, mac="forged"))
    assert not runner.leave(END)
    assert runner.next(END) is NoTurn.WAIT
    assert settle(harness, is_verified=False).code is ResultCode.OK

    assert runner.leave(END)
    assert runner.run.end == END
    assert settle(harness).code is ResultCode.ENDED
    assert (harness.get_record().state, harness.get_record().exit_code) == (State.FAILED, 3)


def test_a_cancelled_end_is_stored_as_such(runner: RunnerHarness) -> None:
    runner.next()

    runner.next(RunEnd(turn=1, exit_code=143, cancelled=True))
    assert runner.run.end == RunEnd(turn=1, exit_code=143, cancelled=True)


def test_a_beat_returns_a_cancel_of_its_own_turn_only(harness: LedgerHarness, runner: RunnerHarness) -> None:
    run = assigned_run(phase=RunPhase.FETCHED, boot="boot-1", turn=2)
    write_run(harness, run)
    assert not runner.beat(2)

    run.cancel = True
    write_run(harness, run)
    harness.advance(1.0)
    assert runner.beat(2)
    assert not runner.beat(1)
    assert runner.run.seen_at == START + 1.0


def test_an_idle_runner_waits_until_its_run_is_closed(harness: LedgerHarness) -> None:
    run = assigned_run(phase=RunPhase.IDLE, boot="boot-1", turn=4, seen_at=START)
    write_run(harness, run)
    runner = make_runner(harness, run.name)
    assert runner.next(END) is NoTurn.WAIT

    assert runner.leave()
    assert runner.run.closed == "left"
    assert runner.next() is NoTurn.LEAVE


def test_a_run_that_launchers_have_closed_lets_its_runner_finish(harness: LedgerHarness) -> None:
    run = assigned_run(phase=RunPhase.FETCHED, boot="boot-1", closed="stop")
    write_run(harness, run)
    runner = make_runner(harness, run.name)

    assert not runner.leave()
    assert runner.next(END) is NoTurn.LEAVE
    assert runner.leave(END)
    assert runner.run.end == END


def test_a_wait_ends_with_the_command_or_with_the_answer_after_its_time(
    harness: LedgerHarness, runner: RunnerHarness
) -> None:
    waiting = (runner.name, runner.boot, runner.arn)
    assert runner.operations.wait_for_turn(*waiting, None, 0.01) == TURN
    assert runner.operations.wait_for_turn(*waiting, END, 0.01) is NoTurn.WAIT
    assert list_changed_runs(harness) == [runner.name]


class _Server:
    """A connection that answers from a list, and keeps what was sent."""

    def __init__(self, *replies: Any) -> None:
        self._replies = list(replies)
        self.sent: list[list[Any]] = []

    def call(self, commands: Sequence[Sequence[Any]], timeout: float) -> list[Any]:
        del timeout
        self.sent.append([command[0] for command in commands])
        return [self._replies.pop(0) for _ in commands]


def _leave(server: _Server, durability: str) -> bool:
    return RedisRunner(server, "p:", durability).leave("n", "b", "arn", None)


def test_the_permission_to_exit_is_followed_by_a_barrier_on_its_connection() -> None:
    server = _Server([b"leave"], [b"leave"], [1, 0])

    assert _leave(server, "aof")
    assert server.sent[-1] == ["EVALSHA", "WAITAOF"]


def test_a_runner_that_was_woken_asks_with_the_barrier_at_once_and_not_before_it_is_awake() -> None:
    turn = [b"turn", b"2", b"job", b"n", b"1", b"the command", b""]
    server = _Server([b"wake", b""], turn, 1)

    found = RedisRunner(server, "p:", "replica").wait_for_turn("n", "b", "arn", None, 5.0)
    assert found == Turn(turn=2, id="job", nonce="n", launch=1, payload="the command", time_limit=0.0)
    assert server.sent == [["BLPOP"], ["EVALSHA", "WAIT"]]


def test_what_the_barrier_of_a_woken_runner_does_not_confirm_is_no_turn() -> None:
    turn = [b"turn", b"2", b"job", b"n", b"1", b"the command", b""]
    server = _Server([b"wake", b""], turn, 0)
    with pytest.raises(WriteNotDurable):
        RedisRunner(server, "p:", "replica").wait_for_turn("n", "b", "arn", None, 5.0)


def test_a_runner_that_no_wake_up_reached_asks_for_the_barrier_only_with_a_turn() -> None:
    server = _Server(None, [b"wait"])
    assert RedisRunner(server, "p:", "replica").wait_for_turn("n", "b", "arn", None, 5.0) is NoTurn.WAIT
    assert server.sent == [["BLPOP"], ["EVALSHA"]]


def test_no_barrier_follows_what_permits_nothing() -> None:
    server = _Server([b"busy"])

    assert not _leave(server, "replica")
    assert server.sent == [["EVALSHA"]]


def test_an_answer_that_is_not_durable_is_none() -> None:
    with pytest.raises(WriteNotDurable):
        _leave(_Server([b"leave"], [b"leave"], [0, 0]), "aof")
