"""The table of docs/troubleshooting.md and the rules agree, and every reason means the same by every channel."""

from __future__ import annotations

import random
import re
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from botocore.exceptions import ClientError

from ecs_queue.ecs.classify import classify_exception, classify_response
from ecs_queue.protocol.aws_causes import Cause, Channel, Consequence, Trouble, what_follows, whose_trouble
from ecs_queue.protocol.aws_reasons import REASON_RULES, find_cause
from ecs_queue.protocol.decisions import PollInput, decide_call, decide_poll
from ecs_queue.protocol.ecs_results import RunTaskResult, RunTaskResultKind
from ecs_queue.protocol.operations import RefusalKind, TaskUpdate
from ecs_queue.protocol.record import Record
from ecs_queue.protocol.retry import Backoff
from ecs_queue.protocol.states import State

NOW = 1_800_000_000.0
ROLE = "arn:aws:iam::123456789012:role/jobs"
_PAGE = (Path(__file__).parents[2] / "docs" / "troubleshooting.md").read_text()
_CODES = frozenset().union(*(rule.codes for rule in REASON_RULES))


class Row(NamedTuple):
    """One row of the page's table."""

    cause: Cause
    words: tuple[str, ...]
    channels: tuple[Channel, ...]
    trouble: Trouble
    consequence: Consequence


def _read_rows() -> list[Row]:
    section = _PAGE.split("## What AWS's words mean")[1]
    lines = [line.strip("| ").split(" | ") for line in section.splitlines() if line.startswith("| ")][1:]
    return [
        Row(
            Cause(cause),
            tuple(re.findall(r"`([^`]+)`", words)),
            tuple(map(Channel, channels.split())),
            Trouble(trouble),
            Consequence(follows),
        )
        for cause, words, channels, trouble, follows in lines
    ]


ROWS = _read_rows()
_REASONS = [(row.cause, words, channel) for row in ROWS for words in row.words for channel in row.channels]
_WAITING = (Consequence.WAIT, Consequence.SLOW_DOWN, Consequence.WAIT_THEN_FAIL)
_WAITING_REASONS = [
    (words, channel) for row in ROWS if row.consequence in _WAITING for words in row.words for channel in row.channels
]


def _is_code(words: str) -> bool:
    return words in _CODES or (" " not in words and words.endswith(("Exception", "Failure", "Unavailable", "Timeout")))


def _make_error(words: str) -> ClientError:
    code, message = (words, "") if _is_code(words) else ("InvalidParameterException", words)
    return ClientError({"Error": {"Code": code, "Message": message}}, "RunTask")


def _run_task(words: str, channel: Channel) -> RunTaskResult:
    if channel is Channel.FAILURE:
        return classify_response({"tasks": [], "failures": [{"reason": words}]})
    return classify_exception(_make_error(words), sent=True)


def test_the_page_has_every_cause_but_a_proxys_with_whose_trouble_it_is_and_what_follows() -> None:
    assert {row.cause for row in ROWS} == set(Cause) - {Cause.INTERMEDIARY}
    assert [
        row for row in ROWS if (row.trouble, row.consequence) != (whose_trouble(row.cause), what_follows(row.cause))
    ] == []


@pytest.mark.parametrize(("cause", "words", "channel"), _REASONS)
def test_every_reason_means_the_same_by_every_channel(cause: Cause, words: str, channel: Channel) -> None:
    if channel is Channel.ERROR:
        error = _make_error(words).response["Error"]
        assert find_cause(channel, str(error["Message"]), str(error["Code"]))[0] is cause
    else:
        assert find_cause(channel, words, words)[0] is cause


def test_every_rule_is_needed_by_a_row_of_the_page() -> None:
    needed = {rule for rule in REASON_RULES if any(_is_first(rule, words, channel) for _, words, channel in _REASONS)}
    assert [rule for rule in REASON_RULES if rule not in needed] == []


def _is_first(rule: Any, words: str, channel: Channel) -> bool:
    text = "" if channel is Channel.ERROR and _is_code(words) else words
    code = words if channel is Channel.STOP or _is_code(words) else ""
    return next((each for each in REASON_RULES if each.matches(channel, code, text)), None) is rule


@pytest.mark.parametrize(("words", "channel"), [each for each in _WAITING_REASONS if each[1] is not Channel.STOP])
def test_a_call_refused_for_what_waiting_mends_uses_no_attempt(words: str, channel: Channel) -> None:
    result = _run_task(words, channel)
    record = Record(id="a", created_at=NOW, last_claim_at=NOW)
    decision = decide_call(result, record, Backoff(2.0, 60.0), random.Random(1))
    throttled = result.kind is RunTaskResultKind.THROTTLED
    assert throttled or decision.refusal_kind is RefusalKind.CAPACITY
    assert not decision.opens_circuit
    assert throttled is (channel is Channel.ERROR and find_cause(channel, words, words)[0] is Cause.THROTTLED)


@pytest.mark.parametrize("where", ["stoppedReason", "container"])
@pytest.mark.parametrize("words", [words for words, channel in _WAITING_REASONS if channel is Channel.STOP])
def test_a_task_that_never_started_for_what_waiting_mends_uses_no_attempt(words: str, where: str) -> None:
    update = _poll_stopped(words, where)
    assert (update.may_relaunch, update.counts_attempt, update.end_state) == (True, False, State.REMOVED)
    assert words in update.reason
    started = _poll_stopped(words, where, startedAt=NOW)
    assert started.counts_attempt


@pytest.mark.parametrize(
    ("words", "changes"),
    [
        ("Your Spot Task was interrupted.", {"stopCode": "SpotInterruption"}),
        ("Your Spot Task was interrupted.", {}),
        ("Host EC2 (instance i-1) terminated.", {"stopCode": None}),
        ("Task failed to start", {"stopCode": "TerminationNotice"}),
    ],
)
def test_a_task_whose_host_is_lost_before_it_starts_uses_no_attempt(words: str, changes: dict[str, Any]) -> None:
    update = _poll_stopped(words, "stoppedReason", **changes)
    assert (update.may_relaunch, update.counts_attempt, update.end_state) == (True, False, State.REMOVED)
    started = _poll_stopped(words, "stoppedReason", startedAt=NOW, **{"stopCode": "SpotInterruption", **changes})
    assert started.counts_attempt


def test_a_start_failure_uses_an_attempt() -> None:
    update = _poll_stopped("CannotPullContainerError: no such image", "stoppedReason")
    assert (update.may_relaunch, update.counts_attempt, update.end_state) == (True, True, State.REMOVED)


@pytest.mark.parametrize(
    "words",
    [
        "CannotPullContainerError: failed to resolve ref 123456789012.dkr.ecr.eu-west-1.amazonaws.com/jobs:AGENT",
        "CannotPullContainerError: docker.io/jobs:LOCATION: not found",
        "ResourceInitializationError: arn:aws:secretsmanager:eu-west-1:123456789012:secret:RESOURCE_DB-a1:ATTRIBUTE::",
        "RESOURCE_LOADER could not be started",
    ],
)
def test_a_name_that_holds_a_reason_of_failures_does_not_decide(words: str) -> None:
    update = _poll_stopped(words, "stoppedReason")
    assert (update.may_relaunch, update.counts_attempt, update.end_state) == (True, True, State.REMOVED)


@pytest.mark.parametrize("words", ["Task failed to start (TaskFailedToStart: AGENT)", "No task. Reason: AGENT."])
def test_a_reason_of_failures_may_follow_a_few_words(words: str) -> None:
    assert find_cause(Channel.STOP, words)[0] is Cause.AGENT


@pytest.mark.parametrize(
    ("user", "resource"), [("assumed-role/PassRole-worker/i-1", "jobs"), ("user/PassRole", "PassRole")]
)
def test_a_denied_call_is_not_one_for_a_role_because_a_name_says_so(user: str, resource: str) -> None:
    words = (
        f"User: arn:aws:sts::123456789012:{user} is not authorized to perform: ecs:RunTask on resource: "
        f"arn:aws:ecs:eu-west-1:123456789012:task-definition/{resource}:7"
    )
    assert find_cause(Channel.ERROR, words, "AccessDeniedException")[0] is Cause.DENIED


def test_the_wait_after_a_stop_for_capacity_grows_with_the_launches_that_counted_no_attempt() -> None:
    waits = [_poll_stopped("AGENT", "stoppedReason", launch=launch).wait for launch in (1, 3, 5, 9)]
    assert waits == [3.0, 9.0, 31.0, 31.0]


@pytest.mark.parametrize(
    ("age", "launch", "is_failed"), [(10, 9, False), (1000, 2, False), (299, 99, False), (301, 6, True)]
)
def test_a_role_that_stays_unusable_fails_the_request_after_some_minutes_with_advice(
    age: float, launch: int, is_failed: bool
) -> None:
    words = "ECS was unable to assume the role 'x'"
    update = _poll_stopped(words, "stoppedReason", launch=launch, created_at=NOW - age)
    assert (update.end_state is State.FAILED, update.may_relaunch) == (is_failed, not is_failed)
    assert "trust policy" in update.reason
    record = Record(id="a", created_at=NOW - age, last_claim_at=NOW, launch=launch)
    for channel in (Channel.ERROR, Channel.FAILURE):
        decision = decide_call(_run_task(words, channel), record, Backoff(2.0, 60.0), random.Random(1))
        assert decision.refusal_kind is (RefusalKind.PERMANENT if is_failed else RefusalKind.CAPACITY)


@pytest.mark.parametrize(
    ("words", "chosen", "is_own"),
    [
        (f"not authorized to perform: iam:PassRole on resource: {ROLE}", (ROLE,), True),
        (f"not authorized to perform: iam:PassRole on resource: {ROLE}", ("jobs",), True),
        (f"not authorized to perform: iam:PassRole on resource: {ROLE}", ("arn:aws:iam::1:role/other",), False),
        (f"not authorized to perform: iam:PassRole on resource: {ROLE}", ("tags",), False),
        (f"not authorized to perform: iam:PassRole on resource: {ROLE}", (), False),
        ("not authorized to perform: ecs:TagResource", ("tags",), True),
        ("not authorized to perform: ecs:TagResource", (ROLE,), False),
        ("not authorized to perform: ecs:RunTask", ("tags", ROLE), False),
    ],
)
def test_a_denial_is_the_requests_trouble_only_for_what_it_chose(
    words: str, chosen: tuple[str, ...], is_own: bool
) -> None:
    result = _run_task(words, Channel.ERROR)
    decision = decide_call(result, Record(id="a"), Backoff(2.0, 60.0), random.Random(1), chosen)
    expected = (RefusalKind.PERMANENT, False) if is_own else (RefusalKind.GIVEN_BACK, True)
    assert (decision.refusal_kind, decision.opens_circuit) == expected


def _poll_stopped(words: str, where: str, launch: int = 1, created_at: float = NOW, **changes: Any) -> TaskUpdate:
    """What a poll writes; an event carries the same members."""
    at_task, at_container = (words, None) if where == "stoppedReason" else ("Task failed to start", words)
    task = {
        "taskArn": "arn:1",
        "version": 2,
        "lastStatus": "STOPPED",
        "desiredStatus": "STOPPED",
        "stopCode": "TaskFailedToStart",
        "stoppedReason": at_task,
        "containers": [{"name": "main", "reason": at_container}],
        **changes,
    }
    poll_input = PollInput(
        record=Record(id="a", arn="arn:1", launch=launch, version=1, created_at=created_at),
        task=task,
        container_name="main",
        max_attempts=1,
        now=NOW,
        in_flight=1,
        describe_tasks_rate=20.0,
        backoff=Backoff(2.0, 60.0),
    )
    update = decide_poll(poll_input, _Middle()).update
    assert update is not None
    return update


class _Middle:
    """A random source that draws the middle."""

    def uniform(self, a: float, b: float, /) -> float:
        return (a + b) / 2
