"""Requests that break their workers: how often is counted, and what is decided of it."""

from __future__ import annotations

import msgspec
import pytest

from ecs_queue.core.protocol import RefusalKind, Word
from ecs_queue.core.states import State
from ecs_queue.ledger.base import WorkerInfo
from tests.conformance.ledger.conftest import MakeLab
from tests.conformance.ledger.lab import HOUR, RULES, START, H, Lab, offer, refusal

MOST = 3
BREAKING = msgspec.structs.replace(RULES, max_deliveries=MOST)


@pytest.fixture
def lab(make_lab: MakeLab) -> Lab:
    """At most three deaths in a row."""
    return make_lab(BREAKING)


def _alive(lab: Lab, name: str, started_at: float = START - 1.0) -> None:
    info = WorkerInfo(
        name=name,
        host="h",
        pid=1,
        version="1",
        queues=["default"],
        concurrency=1,
        launching=0,
        following=0,
        launched=0,
        finished=0,
        health="ok",
        started_at=started_at,
    )
    lab.ledger.heartbeat(info, 15.0)


def _die(lab: Lab, times: int) -> Word:
    """So many holders in a row say nothing; what the next one is told to do."""
    word = Word.CALL
    for number in range(times):
        lab.advance(RULES.lease_seconds)
        word = lab.taken_over(f"takeover-{number}", f"worker-{number}").word
    return word


def test_after_so_many_deaths_it_is_only_looked_for(lab: Lab) -> None:
    lab.launching()

    assert _die(lab, MOST - 1) is Word.CALL
    assert _die(lab, 1) is Word.LOOK
    assert "workers died 3 times in a row" in lab.record().reason


def test_when_provably_nothing_was_started_it_fails_and_says_what_to_do(lab: Lab) -> None:
    lab.launching()
    _die(lab, MOST)
    assert lab.ledger.none("job", lab.record().claim, 1.0).word is Word.EARLY
    lab.advance(H)
    lab.taken_over("late")

    answer = lab.ledger.none("job", "late", 1.0)

    assert (answer.word, lab.state()) == (Word.ENDED, State.FAILED)
    record = lab.record()
    assert (record.attempts, record.undelivered, record.request) == (0, True, b"")
    assert "see their logs, mend the request and submit it under another id" in record.reason


def test_a_task_that_is_found_after_all_is_followed_and_clears_it(lab: Lab) -> None:
    record = lab.launching()
    _die(lab, MOST)

    assert lab.ledger.launched("job", record.nonce, 1, "arn:1", 1.0).word is Word.OK

    assert (lab.state(), lab.record().holds, lab.record().reason) == (State.LAUNCHED, 0, "")


def test_one_that_breaks_even_those_who_look_ends_unknown(lab: Lab) -> None:
    lab.launching()
    assert _die(lab, 2 * MOST) is Word.LOOK

    assert _die(lab, 1) is Word.ENDED

    assert lab.state() is State.UNKNOWN
    assert "look for it by hand" in lab.record().reason
    assert lab.ledger.undelivered("airflow", 10)[0].id == "job"


@pytest.mark.parametrize("word", ["unsure", "no_effect", "refused"])
def test_a_holder_that_says_anything_has_not_died(lab: Lab, word: str) -> None:
    lab.launching()
    for round_ in range(4 * MOST):
        lab.advance(RULES.lease_seconds)
        claim = f"claim-{round_}"
        if lab.taken_over(claim).word is Word.MOVED_ON:
            lab.ledger.claim("job", offer(claim))
        if word == "unsure":
            lab.ledger.unsure("job", claim, 0.0, "a time-out")
        elif word == "no_effect":
            lab.ledger.no_effect("job", claim, 0.0, "throttled")
        else:
            lab.ledger.refused("job", claim, refusal(RefusalKind.CAPACITY))
        assert lab.record().holds == 0

    assert lab.state() is State.LAUNCHING
    assert "workers died" not in lab.record().reason


def test_once_given_up_no_word_but_a_task_brings_it_back(lab: Lab) -> None:
    lab.launching()
    _die(lab, MOST)
    for round_ in range(2 * MOST):
        lab.ledger.unsure("job", lab.record().claim, 0.0, "ListTasks: a time-out")
        assert lab.taken_over(f"look-{round_}").word is Word.LOOK


def test_a_holder_that_lives_has_only_lost_the_answer(lab: Lab) -> None:
    """Its claim took effect and its answer did not come back: an outage is not the request's fault."""
    lab.launching()
    for round_ in range(4 * MOST):
        lab.advance(RULES.lease_seconds)
        _alive(lab, lab.record().worker)
        assert lab.taken_over(f"claim-{round_}", f"worker-{round_ % 2}").word is Word.CALL


def test_a_new_worker_of_the_same_name_is_not_the_one_that_died(lab: Lab) -> None:
    lab.launching()
    word = Word.CALL
    for round_ in range(MOST):
        lab.advance(RULES.lease_seconds)
        _alive(lab, "worker-1", started_at=lab.clock.time)
        word = lab.taken_over(f"claim-{round_}", "worker-1").word

    assert word is Word.LOOK


def test_a_stop_of_one_that_breaks_its_workers_revokes_it(lab: Lab) -> None:
    lab.launching()
    _die(lab, MOST)
    lab.stop()
    lab.advance(H)
    lab.taken_over("late")

    lab.ledger.none("job", "late", 1.0)

    assert lab.state() is State.REVOKED


def test_what_to_do_is_said_when_nothing_can_be_proved_any_more(lab: Lab) -> None:
    lab.launching()
    lab.advance(HOUR + 1.0)
    lab.taken_over("late")

    assert lab.ledger.none("job", "late", 1.0, "grant ecs:ListTasks").word is Word.ENDED

    assert lab.state() is State.UNKNOWN
    assert lab.record().reason.endswith("after an hour ECS cannot tell: grant ecs:ListTasks")


def test_bodies_in_hand_are_counted_until_somebody_lets_go(lab: Lab) -> None:
    assert [lab.ledger.hold("a"), lab.ledger.hold("a"), lab.ledger.hold("b")] == [1, 2, 1]

    lab.ledger.let_go("a")
    lab.ledger.let_go("never held")

    assert [lab.ledger.hold("a"), lab.ledger.hold("b")] == [1, 2]


def test_an_expired_request_that_no_worker_came_to_says_so(lab: Lab) -> None:
    lab.queued(expires_at=START + 10.0, queue="reports")
    lab.advance(10.0)

    lab.ledger.claim("job", None)

    assert lab.state() is State.EXPIRED
    assert lab.record().reason.endswith("no worker came to it: is one alive that takes from the queue reports?")
