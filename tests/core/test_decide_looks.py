"""The launcher's decisions that join others: conflicts, looks for tasks, looks at tasks, what follows a word."""

from __future__ import annotations

import random
from typing import Any

import pytest

from ecs_queue.core.answers import ListAnswer, ReadTrouble, TroubleKind
from ecs_queue.core.decide import (
    AFTER_STOP,
    FOR_GOOD,
    AfterCall,
    Look,
    Step,
    Write,
    after_conflict,
    after_list,
    after_missing,
    judge,
    next_step,
)
from ecs_queue.core.protocol import Outcome, RefusalKind, Word
from ecs_queue.core.record import Record
from ecs_queue.core.retry import Backoff, Draw
from ecs_queue.core.states import State

NOW = 1_800_000_000.0
ASKED = AfterCall(write=Write.ASK, reason="token used", wait=3.0)
OURS = {"taskArn": "arn:ours", "startedBy": "ns/a/n/1"}
OTHER = {"taskArn": "arn:other", "startedBy": "somebody"}


class TestAfterAConflict:
    def test_ours_is_adopted_though_others_are_named_too(self) -> None:
        decision = after_conflict(ASKED, "ns/a/n/1", ["arn:other", "arn:ours"], [OTHER, OURS])

        assert (decision.write, decision.arn) == (Write.LAUNCHED, "arn:ours")

    def test_somebody_elses_is_a_permanent_no(self) -> None:
        decision = after_conflict(ASKED, "ns/a/n/1", ["arn:other"], [OTHER])

        assert (decision.write, decision.refusal, decision.reason) == (
            Write.REFUSED,
            RefusalKind.PERMANENT,
            "token used",
        )

    @pytest.mark.parametrize("named", [[], ["arn:ours"], ["arn:other", "arn:ours"]])
    def test_one_that_is_not_shown_leaves_it_in_doubt(self, named: list[str]) -> None:
        decision = after_conflict(ASKED, "ns/a/n/1", named, [OTHER][: max(0, len(named) - 1)])

        assert (decision.write, decision.answered) == (Write.UNSURE, "1")


class TestAfterAList:
    def test_what_is_listed_exists_even_beside_trouble(self) -> None:
        trouble = ReadTrouble(TroubleKind.UNAVAILABLE, "timed out")

        decision = after_list(ListAnswer(["arn:1", "arn:2"], trouble), 0.0, 5.0)

        assert (decision.write, decision.arn) == (Write.LAUNCHED, "arn:1")

    def test_an_empty_list_is_none_found(self) -> None:
        assert after_list(ListAnswer(), 0.0, 5.0) == AfterCall(write=Write.NONE, wait=5.0)

    @pytest.mark.parametrize("kind", [kind for kind in TroubleKind if kind not in FOR_GOOD])
    def test_trouble_that_passes_proves_nothing_at_any_age(self, kind: TroubleKind) -> None:
        decision = after_list(ListAnswer([], ReadTrouble(kind, "said so")), 1e6, 5.0)

        assert (decision.write, decision.reason) == (Write.UNSURE, "said so")

    @pytest.mark.parametrize("kind", [kind for kind in TroubleKind if kind in FOR_GOOD])
    @pytest.mark.parametrize(("age", "write"), [(3600.0, Write.UNSURE), (3600.1, Write.NONE)])
    def test_what_will_not_pass_is_as_good_as_an_empty_list_once_nobody_can_prove_anything(
        self, age: float, write: Write, kind: TroubleKind
    ) -> None:
        decision = after_list(ListAnswer([], ReadTrouble(kind, "said so")), age, 5.0)

        assert (decision.write, decision.reason) == (write, "said so")


class TestAfterMissing:
    RECORD = Record(id="a", arn="arn:1", version=4)

    @pytest.mark.parametrize(("grace", "wait"), [(600.0, 10.0), (50.0, 5.0), (3.0, AFTER_STOP)])
    def test_within_the_grace_time_it_only_waits(self, grace: float, wait: float) -> None:
        assert after_missing(self.RECORD, grace - 0.1, grace) == wait

    def test_after_it_the_task_is_lost(self) -> None:
        outcome = after_missing(self.RECORD, 600.0, 600.0)

        assert isinstance(outcome, Outcome)
        assert (outcome.end, outcome.version) == (State.UNKNOWN, 5)
        assert outcome.reason.endswith("has not known arn:1 for 600 s and nobody saw it end: look at its logs")

    def test_the_reason_says_what_more_ecs_said(self) -> None:
        outcome = after_missing(self.RECORD, 600.0, 600.0, "the cluster jobs does not exist")

        assert isinstance(outcome, Outcome)
        assert outcome.reason.endswith("look at its logs (the cluster jobs does not exist)")


class TestJudge:
    def _judge(self, record: Record, draw: Draw | None = None, **task: Any) -> Any:
        shown = {"taskArn": "arn:1", "lastStatus": "RUNNING", "desiredStatus": "RUNNING", "version": 2, **task}
        look = Look(
            record=record,
            task=shown,
            container="main",
            max_attempts=3,
            now=NOW,
            in_flight=10,
            rate=20.0,
            backoff=Backoff(2.0, 60.0),
        )
        return judge(look, draw or Draw(random.Random(1)))

    def test_nothing_new_is_no_outcome_and_draws_nothing(self) -> None:
        draw = Draw(random.Random(1))
        judgement = self._judge(Record(id="a", version=2, launched_at=NOW - 60), draw)

        assert (judgement.news, judgement.outcome, judgement.wait) == (False, None, 2.0)
        assert draw.value is None

    def test_a_stop_shortens_the_wait(self) -> None:
        judgement = self._judge(Record(id="a", version=1, stop_by="alice", launched_at=NOW - 5000))

        assert (judgement.stop, judgement.wait, judgement.outcome.wait) == ("alice", AFTER_STOP, AFTER_STOP)

    def test_with_the_draw_of_then_it_decides_the_same_again(self) -> None:
        ended = {"lastStatus": "STOPPED", "stopCode": "SpotInterruption", "startedAt": NOW}
        draw = Draw(random.Random(7))
        record = Record(id="a", version=1, relaunch="interrupted", attempt=2)

        first = self._judge(record, draw, **ended)

        assert first.outcome.retry
        assert 2.0 <= first.outcome.wait <= 8.0
        assert self._judge(record, Draw(value=draw.value), **ended) == first


def test_every_word_that_asks_for_something_has_its_step() -> None:
    expected = {
        ("put", "conflict"): Step.BURY,
        ("put", "too_late"): Step.TOO_LATE,
        ("put", "ended"): Step.END,
        ("claim", "call"): Step.CALL,
        ("claim", "ended"): Step.END,
        ("reclaim", "call"): Step.CALL,
        ("reclaim", "look"): Step.LOOK,
        ("reclaim", "ended"): Step.END,
        ("launched", "stop_it"): Step.STOP,
        ("write", "ended"): Step.END,
        ("write", "lost"): Step.LOST,
        ("outcome", "ended"): Step.END,
        ("outcome", "retry"): Step.RETRY,
    }
    operations = {operation for operation, _ in expected}
    found = {
        (operation, word.value): step
        for operation in operations
        for word in Word
        if (step := next_step(operation, word)) is not Step.LEAVE
    }

    assert found == expected
