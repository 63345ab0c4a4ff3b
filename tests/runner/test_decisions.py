"""The rules of what a runner does next, without a server or a process."""

from __future__ import annotations

import pytest

from ecs_queue.protocol.runs import NoTurn, RunEnd, Turn
from ecs_queue.runner.decisions import FIRST_CONTACT_SECONDS, Action, RunnerState
from ecs_queue.runs.runner_options import RunnerOptions

OPTIONS = RunnerOptions(
    run="r", namespace="n", queue="q", warm_seconds=100.0, warm_max_age=1000.0, runner_lost_seconds=500.0
)


def _turn(number: int = 1) -> Turn:
    return Turn(turn=number, id="a", nonce="n", launch=number, payload="{}")


def _idle(now: float = 0.0) -> RunnerState:
    state = RunnerState(OPTIONS, now, jitter=1.0)
    state.on_answer(NoTurn.WAIT, now)
    return state


def _ended(exit_code: int = 0, *, now: float = 0.0, is_clean: bool = True, is_cancelled: bool = False) -> RunnerState:
    state = RunnerState(OPTIONS, now, jitter=1.0)
    state.on_answer(_turn(), now)
    state.on_start()
    state.on_end(exit_code, is_cancelled=is_cancelled, is_clean=is_clean, now=now)
    return state


def test_a_runner_asks_starts_what_it_got_and_asks_with_the_end() -> None:
    state = RunnerState(OPTIONS, 0.0, jitter=1.0)
    assert state.next_action(0.0) is Action.ASK
    assert state.end is None
    state.on_answer(_turn(), 0.0)
    assert state.next_action(0.0) is Action.START
    state.on_start()
    state.on_end(3, is_cancelled=False, is_clean=True, now=5.0)
    assert state.next_action(5.0) is Action.ASK
    assert state.end == RunEnd(turn=1, exit_code=3, assignment="a.n.1")


def test_the_end_is_kept_until_the_next_command_is_started() -> None:
    state = _ended(3)
    state.on_answer(NoTurn.WAIT, 0.0)
    state.on_woken()
    assert state.next_action(0.0) is Action.ASK
    assert state.end == RunEnd(turn=1, exit_code=3, assignment="a.n.1")
    state.on_answer(_turn(2), 0.0)
    assert state.end == RunEnd(turn=1, exit_code=3, assignment="a.n.1"), "a turn that was got may be lost again"
    state.on_start()
    assert state.end is None


def test_what_is_not_confirmed_is_not_started() -> None:
    state = _idle()
    state.on_answer(_turn(), 0.0)
    state.on_failure()
    state.on_paused()
    assert state.next_action(0.0) is Action.ASK


def test_a_turn_that_was_started_is_never_started_again() -> None:
    state = _ended()
    state.on_answer(_turn(), 0.0)
    assert state.next_action(0.0) is Action.PAUSE
    state.on_paused()
    assert state.next_action(0.0) is Action.ASK


def test_a_command_that_was_started_is_not_started_again_under_another_number() -> None:
    """The server has lost its last writes, and gives the same launch as another turn."""
    state = _ended(3)
    state.on_answer(Turn(turn=5, id="a", nonce="n", launch=1, payload="{}"), 0.0)
    assert state.turn is None
    assert state.end == RunEnd(turn=5, exit_code=3, assignment="a.n.1")


def test_a_number_that_is_given_again_for_another_command_is_that_commands() -> None:
    state = _ended(3)
    other = Turn(turn=1, id="b", nonce="n", launch=1, payload="{}")
    state.on_answer(other, 0.0)
    assert state.next_action(0.0) is Action.START
    assert state.turn == other


@pytest.mark.parametrize("number", [1, 2_000])
def test_a_runner_whose_server_gives_a_command_whose_end_is_lost_exits_and_reports_nothing(number: int) -> None:
    """Its first one, whose launch has the name of the run, or one of the last."""
    state = RunnerState(OPTIONS, 0.0, jitter=1.0)
    for started in range(1, 2_002):
        state.on_answer(_turn(started), 0.0)
        state.on_start()
        state.on_end(0, is_cancelled=False, is_clean=True, now=0.0)
    state.on_answer(_turn(number), 0.0)
    assert state.next_action(0.0) is Action.EXIT
    assert (state.is_lost, state.is_forgotten) == (True, True)


def test_an_idle_runner_asks_often_enough_not_to_be_taken_for_silent_and_leaves_when_its_time_is_over() -> None:
    state = _idle()
    assert state.next_action(0.0) is Action.WAIT
    assert state.wait_seconds(0.0) == 5.0
    assert state.wait_seconds(98.0) == 2.0
    assert state.next_action(100.0) is Action.LEAVE
    state.on_leave(may_exit=False, now=100.0)
    assert state.next_action(100.0) is Action.ASK
    state.on_answer(NoTurn.WAIT, 100.0)
    assert state.next_action(100.0) is Action.LEAVE
    state.on_leave(may_exit=True, now=100.0)
    assert state.next_action(100.0) is Action.EXIT
    assert not state.is_lost


@pytest.mark.parametrize(("now", "is_clean"), [(1000.0, True), (5.0, False)])
def test_a_runner_that_is_old_or_cannot_kill_what_a_command_left_leaves_with_its_end(
    now: float, is_clean: bool
) -> None:
    state = RunnerState(OPTIONS, 0.0, jitter=1.0)
    state.on_answer(_turn(), 0.0)
    state.on_start()
    state.on_end(0, is_cancelled=False, is_clean=is_clean, now=now)
    assert state.next_action(now) is Action.LEAVE
    assert state.end == RunEnd(turn=1, exit_code=0, assignment="a.n.1")


def test_the_word_leave_ends_a_runner() -> None:
    state = RunnerState(OPTIONS, 0.0, jitter=1.0)
    state.on_answer(NoTurn.LEAVE, 0.0)
    assert state.next_action(0.0) is Action.EXIT


@pytest.mark.parametrize(("had_contact", "limit"), [(False, FIRST_CONTACT_SECONDS), (True, 500.0)])
def test_a_runner_that_cannot_reach_the_server_gives_up_in_the_end(had_contact: bool, limit: float) -> None:
    state = _idle() if had_contact else RunnerState(OPTIONS, 0.0, jitter=1.0)
    pauses = []
    now = 0.0
    while (action := state.next_action(now)) is not Action.EXIT:
        if action is Action.PAUSE:
            pauses.append(state.pause_seconds)
            now += state.pause_seconds
            state.on_paused()
        elif action in (Action.WAIT, Action.ASK, Action.LEAVE):
            state.on_failure()
    assert state.is_lost
    assert limit < now < limit + 10.0
    assert pauses[:3] == [0.1, 0.2, 0.4]
    assert max(pauses) == 5.0


def test_the_end_of_a_long_command_is_reported_for_as_long_as_an_idle_runner_tries() -> None:
    state = _ended(now=100_000.0)
    state.on_failure()
    state.on_paused()
    assert state.next_action(100_499.0) is Action.ASK


@pytest.mark.parametrize(
    ("exit_code", "is_cancelled", "is_reported"),
    [(0, False, True), (143, True, True), (143, False, False), (1, False, False)],
)
def test_a_task_that_ecs_ends_tells_only_an_end_that_the_signal_did_not_make(
    exit_code: int, is_cancelled: bool, is_reported: bool
) -> None:
    state = RunnerState(OPTIONS, 0.0, jitter=1.0)
    state.on_answer(_turn(), 0.0)
    state.on_start()
    state.on_stop_signal()
    state.on_end(exit_code, is_cancelled=is_cancelled, is_clean=True, now=1.0)
    assert state.next_action(1.0) is (Action.LEAVE if is_reported else Action.EXIT)
    assert (state.end is not None) is is_reported


def test_a_task_that_ecs_ends_takes_no_further_command() -> None:
    state = _ended(1)
    state.on_answer(_turn(2), 0.0)
    state.on_stop_signal()
    assert state.next_action(0.0) is Action.LEAVE
    assert state.end == RunEnd(turn=1, exit_code=1, assignment="a.n.1"), "it ended before the signal"
    state.on_leave(may_exit=False, now=0.0)
    assert state.next_action(0.0) is Action.EXIT


def test_a_task_that_ecs_ends_tells_an_end_for_as_long_as_it_lives_and_else_goes_at_once() -> None:
    state = _ended(0)
    state.on_stop_signal()
    state.on_failure()
    state.on_paused()
    assert state.next_action(0.1) is Action.LEAVE
    idle = _idle()
    idle.on_stop_signal()
    assert idle.next_action(0.0) is Action.LEAVE
    idle.on_failure()
    assert idle.next_action(0.0) is Action.EXIT


def test_a_runner_that_may_not_leave_and_gets_no_command_asks_again_after_growing_pauses() -> None:
    state = _ended(now=100.0)
    pauses = []
    now = 200.0
    for _ in range(9):
        assert state.next_action(now) is Action.ASK
        state.on_answer(NoTurn.WAIT, now)
        assert state.next_action(now) is Action.LEAVE
        state.on_leave(may_exit=False, now=now)
        pauses.append(state.pause_seconds)
        if state.pause_seconds:
            assert state.next_action(now) is Action.PAUSE
            state.on_paused()
    assert pauses[:4] == [0.0, 0.1, 0.2, 0.4]
    assert max(pauses) == 5.0

    state.on_answer(_turn(2), now)
    state.on_start()
    state.on_end(0, is_cancelled=False, is_clean=True, now=now)
    state.on_leave(may_exit=False, now=now)
    assert state.next_action(now) is Action.ASK, "a command that was assigned meanwhile is asked for at once"
