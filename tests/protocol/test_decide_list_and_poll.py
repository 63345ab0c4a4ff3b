"""The launcher's decisions that join others: conflicts, looks for tasks, looks at tasks, what follows a word."""

from __future__ import annotations

import random
from typing import Any

import pytest

from ecs_queue.protocol.decisions import (
    LASTING_READ_ERRORS,
    POLL_AFTER_STOP_SECONDS,
    CallDecision,
    LedgerWrite,
    NextAction,
    PollInput,
    decide_conflict,
    decide_list,
    decide_missing,
    decide_poll,
    next_action,
)
from ecs_queue.protocol.ecs_results import EcsError, EcsErrorKind, ListTasksResult
from ecs_queue.protocol.operations import RefusalKind, ResultCode, TaskUpdate
from ecs_queue.protocol.record import Record
from ecs_queue.protocol.retry import Backoff, RecordedDraw
from ecs_queue.protocol.states import State

NOW = 1_800_000_000.0
ASKED = CallDecision(write=LedgerWrite.DESCRIBE_CONFLICT, reason="token used", wait=3.0)
OURS = {"taskArn": "arn:ours", "startedBy": "ns/a/n/1"}
OTHER = {"taskArn": "arn:other", "startedBy": "another"}


class TestDecideConflict:
    def test_ours_is_adopted_though_others_are_named_too(self) -> None:
        decision = decide_conflict(ASKED, "ns/a/n/1", ["arn:other", "arn:ours"], [OTHER, OURS])

        assert (decision.write, decision.arn) == (LedgerWrite.LAUNCHED, "arn:ours")

    def test_another_launchs_task_is_a_permanent_refusal(self) -> None:
        decision = decide_conflict(ASKED, "ns/a/n/1", ["arn:other"], [OTHER])

        assert (decision.write, decision.refusal_kind, decision.reason) == (
            LedgerWrite.REFUSED,
            RefusalKind.PERMANENT,
            "token used",
        )

    @pytest.mark.parametrize("named", [[], ["arn:ours"], ["arn:other", "arn:ours"]])
    def test_one_that_is_not_shown_leaves_it_ambiguous(self, named: list[str]) -> None:
        decision = decide_conflict(ASKED, "ns/a/n/1", named, [OTHER][: max(0, len(named) - 1)])

        assert (decision.write, decision.call_completed) == (LedgerWrite.CALL_AMBIGUOUS, True)


class TestDecideList:
    def test_what_is_listed_exists_even_beside_an_error(self) -> None:
        trouble = EcsError(EcsErrorKind.UNAVAILABLE, "timed out")

        decision = decide_list(ListTasksResult(["arn:1", "arn:2"], trouble), 0.0, 5.0)

        assert (decision.write, decision.arn) == (LedgerWrite.LAUNCHED, "arn:1")

    def test_an_empty_list_is_none_found(self) -> None:
        assert decide_list(ListTasksResult(), 0.0, 5.0) == CallDecision(write=LedgerWrite.TASK_ABSENT, wait=5.0)

    @pytest.mark.parametrize("kind", [kind for kind in EcsErrorKind if kind not in LASTING_READ_ERRORS])
    def test_a_transient_error_proves_nothing_at_any_age(self, kind: EcsErrorKind) -> None:
        decision = decide_list(ListTasksResult([], EcsError(kind, "said so")), 1e6, 5.0)

        assert (decision.write, decision.reason) == (LedgerWrite.CALL_AMBIGUOUS, "said so")

    @pytest.mark.parametrize("kind", [kind for kind in EcsErrorKind if kind in LASTING_READ_ERRORS])
    @pytest.mark.parametrize(
        ("age", "write"), [(3600.0, LedgerWrite.CALL_AMBIGUOUS), (3600.1, LedgerWrite.TASK_ABSENT)]
    )
    def test_a_lasting_error_counts_as_an_empty_list_once_absence_is_unprovable(
        self, age: float, write: LedgerWrite, kind: EcsErrorKind
    ) -> None:
        decision = decide_list(ListTasksResult([], EcsError(kind, "said so")), age, 5.0)

        assert (decision.write, decision.reason) == (write, "said so")


class TestDecideMissing:
    RECORD = Record(id="a", arn="arn:1", version=4)

    @pytest.mark.parametrize(("grace", "wait"), [(600.0, 10.0), (50.0, 5.0), (3.0, POLL_AFTER_STOP_SECONDS)])
    def test_within_the_grace_time_it_only_waits(self, grace: float, wait: float) -> None:
        assert decide_missing(self.RECORD, grace - 0.1, grace) == wait

    def test_after_it_the_task_is_lost(self) -> None:
        update = decide_missing(self.RECORD, 600.0, 600.0)

        assert isinstance(update, TaskUpdate)
        assert (update.end_state, update.version) == (State.UNKNOWN, 4)
        assert update.reason.endswith("has not known arn:1 for 600 s, and its end was not observed: look at its logs")

    def test_the_reason_contains_the_reason_of_ecs(self) -> None:
        update = decide_missing(self.RECORD, 600.0, 600.0, "the cluster jobs does not exist")

        assert isinstance(update, TaskUpdate)
        assert update.reason.endswith("look at its logs (the cluster jobs does not exist)")


class TestDecidePoll:
    def _decide(self, record: Record, draw: RecordedDraw | None = None, **task: Any) -> Any:
        description = {"taskArn": "arn:1", "lastStatus": "RUNNING", "desiredStatus": "RUNNING", "version": 2, **task}
        poll_input = PollInput(
            record=record,
            task=description,
            container_name="main",
            max_attempts=3,
            now=NOW,
            in_flight=10,
            describe_tasks_rate=20.0,
            backoff=Backoff(2.0, 60.0),
        )
        return decide_poll(poll_input, draw or RecordedDraw(random.Random(1)))

    def test_nothing_new_is_no_update_and_draws_nothing(self) -> None:
        draw = RecordedDraw(random.Random(1))
        decision = self._decide(Record(id="a", version=2, last_status="RUNNING", launched_at=NOW - 60), draw)

        assert (decision.is_new, decision.update, decision.wait) == (False, None, 2.0)
        assert draw.value is None

    def test_a_stop_shortens_the_wait(self) -> None:
        decision = self._decide(Record(id="a", version=1, stop_requested_by="alice", launched_at=NOW - 5000))

        assert (decision.stop_cause, decision.wait, decision.update.wait) == (
            "alice",
            POLL_AFTER_STOP_SECONDS,
            POLL_AFTER_STOP_SECONDS,
        )

    def test_with_the_draw_of_then_it_decides_the_same_again(self) -> None:
        ended = {"lastStatus": "STOPPED", "stopCode": "SpotInterruption", "startedAt": NOW}
        draw = RecordedDraw(random.Random(7))
        record = Record(id="a", version=1, relaunch="interrupted", attempt=2)

        first = self._decide(record, draw, **ended)

        assert first.update.may_relaunch
        assert 2.0 <= first.update.wait <= 8.0
        assert self._decide(record, RecordedDraw(value=draw.value), **ended) == first


def test_every_word_that_asks_for_something_has_its_step() -> None:
    expected = {
        ("put", "conflict"): NextAction.ADD_DEAD_LETTER,
        ("put", "broken"): NextAction.ADD_DEAD_LETTER,
        ("put", "too_late"): NextAction.REJECT_TOO_LATE,
        ("put", "ended"): NextAction.PUBLISH_RESULT,
        ("claim", "run_task"): NextAction.RUN_TASK,
        ("claim", "ended"): NextAction.PUBLISH_RESULT,
        ("reclaim", "run_task"): NextAction.RUN_TASK,
        ("reclaim", "list_tasks"): NextAction.LIST_TASKS,
        ("reclaim", "ended"): NextAction.PUBLISH_RESULT,
        ("launched", "unwanted"): NextAction.STOP_TASK,
        ("write", "ended"): NextAction.PUBLISH_RESULT,
        ("write", "claim_lost"): NextAction.REPORT_CLAIM_LOST,
        ("update_task", "ended"): NextAction.PUBLISH_RESULT,
        ("update_task", "requeued"): NextAction.AWAIT_RELAUNCH,
    }
    operations = {operation for operation, _ in expected}
    found = {
        (operation, code.value): action
        for operation in operations
        for code in ResultCode
        if (action := next_action(operation, code)) is not NextAction.NOTHING
    }

    assert found == expected
