"""The texts for users."""

from __future__ import annotations

import pytest

from ecs_queue.airflow.event_log import build_console_link, format_event, format_info
from ecs_queue.messages.result import TaskResult, build_result
from ecs_queue.protocol.record import Record
from ecs_queue.protocol.states import State

ARN = "arn:aws:ecs:eu-west-1:123456789012:task/jobs/abc"


def make_result(state: State, **fields: object) -> TaskResult:
    return build_result(Record(id="job", state=state, **fields))  # type: ignore[arg-type]


def test_a_failure_has_its_reason_exit_code_stop_code_and_arn() -> None:
    text = format_info(
        make_result(State.FAILED, reason="OutOfMemory", exit_code=137, stop_code="EssentialContainerExited", arn=ARN)
    )
    assert text == f"ecs-queue FAILED; OutOfMemory; exit code 137; stop code EssentialContainerExited; {ARN}"


def test_an_expired_request_names_the_token_timeout() -> None:
    assert "task_queued_timeout" in format_info(make_result(State.EXPIRED))


@pytest.mark.parametrize("state", [state for state in State if state not in ("QUEUED", "LAUNCHING", "LAUNCHED")])
def test_every_end_has_an_event(state: State) -> None:
    event, text = format_event(make_result(state))
    assert event == ("ecs task finished" if state is State.SUCCESS else "ecs task failed")
    assert state in text


@pytest.mark.parametrize(
    ("arn", "host"),
    [
        (ARN, "https://eu-west-1.console.aws.amazon.com/ecs/v2/clusters/jobs/tasks/abc?region=eu-west-1"),
        (
            ARN.replace("arn:aws:", "arn:aws-cn:"),
            "https://eu-west-1.console.amazonaws.cn/ecs/v2/clusters/jobs/tasks/abc?region=eu-west-1",
        ),
        ("arn:aws:ecs:eu-west-1:123456789012:task/abc", None),
        ("nonsense", None),
        (None, None),
    ],
)
def test_the_console_link_is_that_of_the_partition(arn: str | None, host: str | None) -> None:
    assert build_console_link(arn) == host
