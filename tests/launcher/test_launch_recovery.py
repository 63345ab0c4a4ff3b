"""Launches in doubt: called again, looked for, and settled, whoever died and whatever could not be reached."""

from __future__ import annotations

import pytest

from ecs_queue.core.answers import Kind, ReadTrouble, RunAnswer
from ecs_queue.core.states import State
from ecs_queue.errors import LedgerUnavailable
from tests.launcher.fake_ecs import DENIED, GONE, THROTTLED, Lost, RunCall
from tests.launcher.lab import START, Lab

LEASE, SETTLE = 30.0, 600.0


@pytest.fixture
def lab() -> Lab:
    return Lab()


class _Killed(BaseException):
    """The worker is gone in the middle of a call."""


def _die_in_call(lab: Lab, *, effect: bool) -> None:
    """A worker takes request a, calls RunTask and dies; `effect`: the call starts a task."""

    def die(call: RunCall) -> None:
        lab.ecs.on_run = lambda call: None
        if effect:
            lab.ecs.run_task(
                call.target, call.kwargs, client_token=call.token, started_by=call.started_by, deadline=call.deadline
            )
            lab.ecs.calls.clear()
        raise _Killed

    lab.ecs.on_run = die
    with pytest.raises(_Killed):
        lab.worker.take(lab.body())
    assert lab.state() is State.LAUNCHING


class TestAWorkerThatDied:
    @pytest.mark.parametrize("effect", [True, False], ids=["after the effect", "before the effect"])
    def test_another_calls_again_with_the_same_token_when_the_lease_is_over(self, lab: Lab, effect: bool) -> None:
        _die_in_call(lab, effect=effect)

        lab.later(LEASE - 1)
        assert not lab.ecs.calls
        lab.later(2)

        assert [call.token.rsplit(".", 1)[1] for call in lab.ecs.calls] == ["1"]
        assert len(lab.ecs.tasks) == 1
        assert lab.state() is State.LAUNCHED

    def test_a_late_answer_to_the_dead_changes_nothing(self, lab: Lab) -> None:
        """The first holder's call is refused after another has taken over: the word of a lost claim."""
        _die_in_call(lab, effect=False)
        dead = lab.record()
        lab.later(LEASE + 1)

        answer = lab.memory.no_effect("a", dead.claim, 1.0, "throttled")

        assert answer.word == "lost"
        assert lab.state() is State.LAUNCHED


class TestAClaimInDoubt:
    def test_a_no_after_a_takeover_is_never_taken_as_proof(self, lab: Lab) -> None:
        _die_in_call(lab, effect=True)
        lab.ecs.answers.append(RunAnswer(Kind.PERMANENT, reason="denied"))

        lab.later(LEASE + 1)
        assert (lab.state(), lab.record().burnt) == (State.LAUNCHING, True)
        lab.pass_time(60, step=5)

        assert len(lab.ecs.calls) == 1, "a burnt number is never called again"
        assert lab.ecs.listed
        assert lab.state() is State.LAUNCHED

    def test_after_forty_minutes_it_only_looks(self, lab: Lab) -> None:
        lab.ecs.answers.extend([Lost.BEFORE] * 1000)
        lab.worker.take(lab.body())
        lab.pass_time(41 * 60, step=10)
        calls = len(lab.ecs.calls)

        lab.pass_time(5 * 60, step=10)

        assert len(lab.ecs.calls) == calls
        assert lab.ecs.listed

    def test_nothing_found_is_proof_only_after_the_settling_time(self, lab: Lab) -> None:
        _die_in_call(lab, effect=False)
        lab.ecs.answers.append(RunAnswer(Kind.PERMANENT, reason="denied"))
        lab.later(LEASE + 1)
        called_at = lab.clock()

        lab.pass_time(SETTLE + LEASE - 1, step=10)
        assert lab.record().launch == 1
        lab.pass_time(120, step=10)

        assert lab.record().launch == 2
        assert lab.record().launched_at > called_at + SETTLE + LEASE

    def test_what_it_finds_is_followed(self, lab: Lab) -> None:
        lab.ecs.answers.append(Lost.AFTER)
        lab.worker.take(lab.body())
        lab.memory.stop(["a"], "alice")

        lab.pass_time(60)

        assert lab.ecs.listed
        assert len(lab.ecs.calls) == 1
        assert lab.state() is State.REVOKED
        assert not lab.ecs.alive()

    def test_a_stop_with_nothing_found_is_revoked_when_that_is_proof(self, lab: Lab) -> None:
        lab.ecs.answers.append(Lost.BEFORE)
        lab.worker.take(lab.body())
        lab.memory.stop(["a"], "alice")

        lab.pass_time(SETTLE, step=10)
        assert lab.state() is State.LAUNCHING
        lab.pass_time(200, step=10)

        assert lab.state() is State.REVOKED
        assert len(lab.ecs.calls) == 1

    def test_an_expired_one_with_nothing_found_is_expired_when_that_is_proof(self, lab: Lab) -> None:
        lab.ecs.answers.append(Lost.BEFORE)
        lab.worker.take(lab.body(expires_in=10.0))
        lab.clock.advance(11)

        lab.pass_time(SETTLE + LEASE + 120, step=10)

        assert lab.state() is State.EXPIRED
        assert len(lab.ecs.calls) == 1

    def test_a_list_that_fails_proves_nothing(self, lab: Lab) -> None:
        lab.ecs.answers.append(Lost.BEFORE)
        lab.ecs.list_trouble = THROTTLED
        lab.worker.take(lab.body())
        lab.memory.stop(["a"], "alice")

        lab.pass_time(2 * 3600, step=30)

        assert lab.state() is State.LAUNCHING
        assert lab.worker.told("launch.unsure")[-1]["reason"] == THROTTLED.reason
        assert lab.worker.circuits.health() == "ok"

    @pytest.mark.parametrize("trouble", [GONE, DENIED], ids=["a cluster that is gone", "ListTasks denied for ever"])
    def test_what_will_not_pass_ends_it_unknown_when_nobody_can_tell_any_more(
        self, lab: Lab, trouble: ReadTrouble
    ) -> None:
        lab.ecs.answers.append(Lost.BEFORE)
        lab.ecs.list_trouble = trouble
        lab.worker.take(lab.body())
        lab.memory.stop(["a"], "alice")

        lab.pass_time(59 * 60, step=30)
        assert lab.state() is State.LAUNCHING
        lab.pass_time(3 * 60, step=30)

        assert lab.state() is State.UNKNOWN
        assert lab.published == [lab.record()]
        assert trouble.reason in lab.record().reason
        assert f"startedBy {lab.config.namespace}/a/{lab.record().nonce}/1" in lab.record().reason
        assert lab.worker.circuits.health() == f"default: {trouble.reason}"

    def test_two_workers_that_take_it_over_at_once_call_once(self, lab: Lab) -> None:
        _die_in_call(lab, effect=False)
        lab.clock.advance(LEASE + 1)
        (due,) = lab.memory.due(10)

        for worker in (lab.worker, lab.new_worker()):
            worker.launcher.recover(due, worker.parts.run_quota)

        assert len(lab.ecs.calls) == 1


class TestAStrayTask:
    def test_a_task_for_a_launch_that_is_over_is_stopped(self, lab: Lab) -> None:
        """The claim is lost, and the launch ended, while the call was under way for longer than any time-out."""

        def overtaken(call: RunCall) -> None:
            lab.ecs.on_run = lambda call: None
            record = lab.record()
            lab.memory.unsure("a", record.claim, 0.0, "timed out")
            lab.memory.stop(["a"], "alice")
            lab.clock.advance(SETTLE + LEASE + 1)
            lab.worker.track()

        lab.ecs.on_run = overtaken
        lab.worker.take(lab.body())

        assert lab.state() is State.REVOKED
        assert [arn for arn, _ in lab.ecs.stopped] == list(lab.ecs.tasks)
        assert not lab.ecs.alive()
        assert len(lab.worker.parts.in_flight) == 0
        assert lab.worker.told("launch.stray")


@pytest.mark.parametrize("when", ["before", "after"])
class TestALedgerThatFails:
    """The message is not acknowledged, and the request ends right when the ledger is back, with one ECS task."""

    def _fails(self, lab: Lab, operation: str, when: str) -> None:
        body = lab.body()
        lab.ledger.fail(operation, when)
        with pytest.raises(LedgerUnavailable):
            lab.worker.take(body)
        lab.worker = lab.new_worker()
        assert lab.worker.take(body)

    def _ends_well(self, lab: Lab) -> None:
        lab.pass_time(LEASE + 70)
        (task,) = lab.ecs.tasks
        lab.ecs.end(task)
        lab.pass_time(60)
        assert lab.state() is State.SUCCESS
        assert lab.published == [lab.record()]

    def test_at_the_admission(self, lab: Lab, when: str) -> None:
        self._fails(lab, "admit", when)
        self._ends_well(lab)

    def test_at_the_word_that_it_was_launched(self, lab: Lab, when: str) -> None:
        self._fails(lab, "launched", when)
        self._ends_well(lab)

    @pytest.mark.parametrize(
        ("operation", "answer"),
        [
            ("no_effect", RunAnswer(Kind.THROTTLED)),
            ("unsure", Lost.AFTER),
            ("unsure", Lost.BEFORE),
            ("refused", RunAnswer(Kind.CAPACITY)),
            ("refused", RunAnswer(Kind.START_FAILURE)),
        ],
    )
    def test_at_the_word_that_it_was_not(self, lab: Lab, operation: str, answer: RunAnswer | Lost, when: str) -> None:
        lab.ecs.answers.append(answer)
        self._fails(lab, operation, when)
        self._ends_well(lab)

    def test_at_the_word_that_it_never_can_be(self, lab: Lab, when: str) -> None:
        body = lab.body(executor_config={"no_such_key": 1})
        lab.ledger.fail("refused", when)
        with pytest.raises(LedgerUnavailable):
            lab.worker.take(body)

        assert lab.new_worker().take(body)
        lab.pass_time(SETTLE + 3 * LEASE + 60, step=5)

        assert lab.state() is State.FAILED
        assert not lab.ecs.calls

    def test_at_the_burial_of_a_dead_letter(self, lab: Lab, when: str) -> None:
        lab.ledger.fail("bury", when)
        with pytest.raises(LedgerUnavailable):
            lab.worker.take(b"not json")

        assert lab.worker.take(b"not json")

        assert {letter.body for letter in lab.memory.dead(10)} == {b"not json"}

    def test_at_the_takeover(self, lab: Lab, when: str) -> None:
        _die_in_call(lab, effect=True)
        lab.clock.advance(LEASE + 1)
        lab.ledger.fail("reclaim", when)
        lab.worker.track()
        assert lab.state() is State.LAUNCHING

        lab.pass_time(2 * LEASE + 5)

        assert lab.state() is State.LAUNCHED
        assert len(lab.ecs.tasks) == 1

    def test_at_the_claim_of_a_retry(self, lab: Lab, when: str) -> None:
        lab.ecs.answers.append(RunAnswer(Kind.CAPACITY))
        lab.worker.take(lab.body())
        lab.ledger.fail("claim", when)
        lab.later(5)

        lab.pass_time(2 * LEASE + 5)

        assert lab.state() is State.LAUNCHED
        assert len(lab.ecs.tasks) == 1


def test_a_worker_that_stops_leaves_a_launch_in_doubt_to_others(lab: Lab) -> None:
    _die_in_call(lab, effect=True)
    lab.worker.stopping.set()
    lab.later(LEASE + 1)
    assert lab.state() is State.LAUNCHING

    lab.worker = lab.new_worker()
    lab.later(LEASE + 1)

    assert lab.state() is State.LAUNCHED
    assert lab.clock() == START + 2 * (LEASE + 1)
