"""Which retry rule decides about a failed attempt, and what follows."""

from __future__ import annotations

from typing import Any

import pytest

from ecs_queue.messages.retry_rules import parse_retry_rules
from ecs_queue.protocol.decisions import PollInput, decide_poll
from ecs_queue.protocol.operations import EndRuling
from ecs_queue.protocol.record import Record
from ecs_queue.protocol.retry import Backoff, RecordedDraw
from ecs_queue.protocol.retry_rules import (
    FailedAttempt,
    decode_retry_rules,
    encode_retry_rules,
    rule_on,
)
from ecs_queue.protocol.runner_ends import decide_runner_end
from ecs_queue.protocol.runs import RunEnd
from ecs_queue.protocol.states import State

NOW = 1_700_000_000.0
BACKOFF = Backoff(2.0, 60.0)


def attempt(exit_code: int | None = 137, stop_code: str = "EssentialContainerExited", *reasons: str) -> FailedAttempt:
    return FailedAttempt(end="exited", exit_code=exit_code, stop_code=stop_code, reasons=reasons)


def rules(*each: dict[str, Any]) -> str:
    return encode_retry_rules(parse_retry_rules(each))


@pytest.mark.parametrize(
    ("pattern", "exit_code", "matches"),
    [("137", 137, True), ("137", 13, False), ("13*", 137, True), ("13*", 13, True), ("*", 1, True), ("*", None, False)],
)
def test_an_exit_code_is_matched_by_its_digits(pattern: str, exit_code: int | None, matches: bool) -> None:
    found = rule_on(rules({"on_exit_code": pattern, "action": "retry"}), "never_started", attempt(exit_code))
    assert (found.retries, found.rule) == (matches, int(matches))


@pytest.mark.parametrize(
    ("pattern", "matches"),
    [
        ("OutOfMemoryError: Container killed", True),
        ("OutOfMemoryError*", True),
        ("outofmemoryerror*", False),
        ("OutOfMemoryError", False),
        ("Essential container*", True),
        ("container*", False),
    ],
)
def test_a_reason_is_the_tasks_or_that_of_a_container_from_its_beginning(pattern: str, matches: bool) -> None:
    failed = attempt(137, "x", "Essential container in task exited", "OutOfMemoryError: Container killed")
    assert rule_on(rules({"on_reason": pattern, "action": "retry"}), "never_started", failed).retries is matches


def test_all_patterns_of_a_rule_must_match_and_the_first_rule_that_does_decides() -> None:
    text = rules(
        {"on_exit_code": "137", "on_stop_code": "Spot*", "action": "fail"},
        {"on_exit_code": "137", "action": "retry", "counts_attempt": False, "delay": "1m"},
        {"action": "fail"},
    )
    found = rule_on(text, "any_failure", attempt())
    assert (found.retries, found.rule, found.counts_attempt, found.delay) == (True, 2, False, 60.0)
    assert rule_on(text, "any_failure", attempt(137, "SpotInterruption")).rule == 1
    assert (rule_on(text, "any_failure", attempt(3)).rule, rule_on(text, "any_failure", attempt(3)).retries) == (
        3,
        False,
    )


@pytest.mark.parametrize(("relaunch", "retries"), [("never_started", False), ("any_failure", True)])
def test_where_no_rule_matches_the_relaunch_policy_decides(relaunch: str, retries: bool) -> None:
    found = rule_on(rules({"on_exit_code": "1", "action": "fail"}), relaunch, attempt())
    assert (found.retries, found.rule) == (retries, 0)


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ({"on_exit_code": "1*7", "action": "retry"}, "on_exit_code: expected at most 512 characters, with \\* only at"),
        ({"on_exit_code": "x", "action": "retry"}, "on_exit_code: expected digits"),
        ({"on_reason": "x" * 513, "action": "retry"}, "on_reason: expected at most 512"),
        ({"on_status": "x", "action": "retry"}, "unknown field `on_status`.*members are action, on_exit_code"),
        ({"action": "EXIT"}, "action: expected retry or fail, found 'EXIT'"),
        ({"action": "retry", "on_end": 1}, "on_end: expected never_started or interrupted or exited, found 1"),
        ({"on_exit_code": 137, "action": "retry"}, "on_exit_code: Expected `str`, got `int`"),
        ({"on_exit_code": "1"}, "missing required field `action`"),
        ({"action": "retry", "delay": "soon"}, "delay: expected a duration"),
        ({"action": "fail", "delay": 5}, "only with the action retry"),
        (7, "Expected `object`, got `int`"),
    ],
)
def test_an_invalid_rule_is_named_in_one_sentence(rule: Any, said: str) -> None:
    with pytest.raises(ValueError, match=f"^retry rule 2: .*{said}"):
        parse_retry_rules([{"action": "retry"}, rule])


def test_at_most_ten_rules_make_a_list() -> None:
    assert len(parse_retry_rules([{"action": "retry"}] * 10)) == 10
    with pytest.raises(ValueError, match="at most 10 retry rules, found 11"):
        parse_retry_rules([{"action": "retry"}] * 11)
    with pytest.raises(ValueError, match="expected a list"):
        parse_retry_rules({"action": "retry"})


def test_rules_that_cannot_be_read_leave_the_decision_to_the_relaunch_policy() -> None:
    assert decode_retry_rules("[{]") == ()
    assert not rule_on('[{"action": "maybe"}]', "never_started", attempt()).retries


def poll(task: dict[str, Any], text: str, **fields: Any) -> Any:
    record = Record(id="a", state=State.LAUNCHED, arn="arn", launched_at=NOW, retry_rules=text, **fields)
    shown = {"taskArn": "arn", "version": 2, "lastStatus": "STOPPED", "desiredStatus": "STOPPED", **task}
    poll_input = PollInput(
        record=record,
        task=shown,
        container_name="main",
        max_attempts=3,
        now=NOW + 5,
        in_flight=1,
        describe_tasks_rate=0.0,
        backoff=BACKOFF,
    )
    return decide_poll(poll_input, RecordedDraw(value=0.5))


EXITED = {"startedAt": NOW, "stopCode": "EssentialContainerExited", "containers": [{"name": "main", "exitCode": 3}]}
CATCH_ALL = {"action": "retry", "counts_attempt": False, "delay": 300}


def test_a_poll_says_which_rule_decided_and_writes_what_it_says() -> None:
    decision = poll(EXITED, rules({"on_exit_code": "4", "action": "fail"}, CATCH_ALL))
    update = decision.update
    assert (decision.retry_rule, update.may_relaunch, update.counts_attempt, update.wait) == (2, True, False, 300.0)


def test_a_delay_is_never_shorter_than_the_protocol_needs() -> None:
    assert poll(EXITED, rules({"action": "retry", "delay": 0})).update.wait == BACKOFF.base


@pytest.mark.parametrize(
    "task",
    [
        {**EXITED, "containers": [{"name": "main", "exitCode": 0}]},
        {**EXITED, "stopCode": "UserInitiated"},
    ],
    ids=["a success", "a stop by a user"],
)
def test_no_rule_is_asked_about(task: dict[str, Any]) -> None:
    decision = poll(task, rules(CATCH_ALL))
    assert (decision.retry_rule, decision.update.may_relaunch) == (0, False)


def test_a_lack_of_capacity_waits_whatever_the_rules_say() -> None:
    task = {"stopCode": "TaskFailedToStart", "stoppedReason": "RESOURCE:MEMORY", "containers": [{"name": "main"}]}
    decision = poll(task, rules({"action": "fail"}))
    assert (decision.retry_rule, decision.update.may_relaunch, decision.update.counts_attempt) == (0, True, False)


def test_of_a_runners_task_no_exit_code_is_known() -> None:
    text = rules({"on_exit_code": "*", "action": "retry"})
    assert not poll(EXITED, text, run="a.n.1").update.may_relaunch
    assert poll(EXITED, rules({"on_end": "exited", "action": "retry"}), run="a.n.1").update.may_relaunch


@pytest.mark.parametrize(
    ("rule", "ruling", "wait"),
    [
        ({"on_exit_code": "3", "action": "retry", "delay": 60}, EndRuling.RETRY, 60.0),
        ({"on_end": "exited", "action": "retry", "counts_attempt": False, "delay": 9}, EndRuling.RETRY_UNCOUNTED, 9.0),
        ({"on_reason": "the command exited*", "action": "fail"}, EndRuling.FAIL, None),
    ],
)
def test_a_command_of_a_runner_is_ruled_on_by_its_exit_code(rule: Any, ruling: EndRuling, wait: float | None) -> None:
    record = Record(id="a", retry_rules=rules(rule), relaunch="any_failure")
    decision = decide_runner_end(record, RunEnd(turn=1, exit_code=3), BACKOFF, RecordedDraw(value=0.5))
    assert (decision.ruling, decision.retry_rule) == (ruling, 1)
    assert wait is None or decision.wait == wait


@pytest.mark.parametrize("end", [RunEnd(turn=1, exit_code=0), RunEnd(turn=1, exit_code=143, cancelled=True)])
def test_no_rule_is_asked_about_a_command_that_succeeded_or_was_cancelled(end: RunEnd) -> None:
    record = Record(id="a", retry_rules=rules({"action": "retry"}))
    assert decide_runner_end(record, end, BACKOFF, RecordedDraw(value=0.5)).ruling is EndRuling.UNKNOWN
