"""No error shows a value of a payload, whichever library found it and whatever that library calls sensitive."""

from __future__ import annotations

import datetime
import json
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import botocore.session
import msgspec
import pytest
from botocore.exceptions import ClientError, ParamValidationError
from botocore.model import Shape as BotoShape
from botocore.validate import ParamValidator
from hypothesis import given, settings
from hypothesis import strategies as st

from ecs_queue.cli.ui.task_file import read_task_lines
from ecs_queue.config import Profile
from ecs_queue.ecs.classify import classify_exception, classify_failures, classify_read_error
from ecs_queue.error_text import error_text, hide_values, traceback_text, typed_error_text
from ecs_queue.errors import EcsQueueError
from ecs_queue.journal.codec import decode_event
from ecs_queue.local.ecs.aws_json import ApiError, decode_parameters
from ecs_queue.local.ecs.validation import ParameterValidator
from ecs_queue.messages.envelope import decode_request, decode_result
from ecs_queue.messages.fields import Relaunch
from ecs_queue.messages.request import new_request
from ecs_queue.runtask import botocore_model
from ecs_queue.runtask.arguments import validate_request
from ecs_queue.runtask.launch_spec import build_launch_spec, decode_launch_spec
from ecs_queue.tasks import EcsQueuedTask
from tests.security.canaries import CANARY, SECRETS, commands, executor_configs, leaks, secrets, values

PROFILE = Profile(
    queue="q", cluster="c", task_definition="t", container_name="main", subnets=("s",), allowed_overrides=("*",)
)
RUN_TASK = botocore.session.Session().get_service_model("ecs").operation_model("RunTask").input_shape
LOCAL = ParameterValidator(["RunTask", "RegisterTaskDefinition"])


@pytest.fixture(params=["marked", "unmarked"], autouse=True, scope="module")
def botocore_marks(request: pytest.FixtureRequest) -> Iterator[None]:
    """With botocore's marks of sensitive members, and without: older versions have none."""
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "unmarked":
            known = BotoShape.METADATA_ATTRS
            patch.setattr(BotoShape, "METADATA_ATTRS", [name for name in known if name != "sensitive"])
        botocore_model.run_task_shape.cache_clear()
        botocore_model.container_override_shape.cache_clear()
        yield
    botocore_model.run_task_shape.cache_clear()
    botocore_model.container_override_shape.cache_clear()


def texts_of(call: Callable[[], object]) -> Iterator[str]:
    """What the error of a call says, if there is one; only the package's own errors may arise."""
    try:
        call()
    except EcsQueueError as error:
        yield str(error)
        yield error_text(error)
        yield traceback_text(error)


def shows_no_secret(call: Callable[[], object]) -> None:
    for text in texts_of(call):
        assert not leaks(text), text


@settings(deadline=None, max_examples=200)
@given(executor_configs, commands)
def test_no_check_of_a_request_shows_a_value(config: Any, command: Any) -> None:
    task = EcsQueuedTask("id", command, "q", config, 1, datetime.datetime(2025, 1, 1, tzinfo=datetime.UTC))
    shows_no_secret(lambda: validate_request(PROFILE, task))
    shows_no_secret(lambda: build_launch_spec(PROFILE, 3, task))
    shows_no_secret(lambda: new_request(id="x", command=command, now=1e9, accept_seconds=1, executor_config=config))


@settings(deadline=None, max_examples=60)
@given(executor_configs, commands, st.integers(0, 40))
def test_no_decoder_shows_a_value(config: Any, command: Any, cut: int) -> None:
    request = {"kind": "request", "v": 1, "id": "x", "submitted_at": 1.0, "accept_until": 1.0}
    body = json.dumps({**request, "command": command, "executor_config": config, "relaunch": SECRETS[1]}).encode()
    for text in (body, body[: len(body) - cut], body.replace(b'"x"', b"5")):
        shows_no_secret(lambda text=text: decode_request(text))  # type: ignore[misc]
        shows_no_secret(lambda text=text: decode_result(text))  # type: ignore[misc]
        shows_no_secret(lambda text=text: list(read_task_lines("f", text, {})))  # type: ignore[misc]
        shows_no_secret(lambda text=text: decode_launch_spec(text.decode()))  # type: ignore[misc]
        shows_no_secret(lambda text=text: decode_parameters(text))  # type: ignore[misc]
    with suppress(msgspec.DecodeError):  # half of a surrogate pair
        event = msgspec.json.decode(json.dumps({"v": 1, "at": command, "name": "x", "data": config}))
        shows_no_secret(lambda: decode_event(event))


@settings(deadline=None, max_examples=60)
@given(executor_configs, values)
def test_no_validation_error_of_the_local_ecs_shows_a_value(config: Any, value: Any) -> None:
    definition = {"family": "f", "containerDefinitions": [{"name": "main", "environment": value, "secrets": value}]}
    calls = (("RunTask", {"taskDefinition": "t", **config}), ("RegisterTaskDefinition", definition))
    for operation, parameters in calls:
        with suppress(ApiError):
            shows_no_secret(lambda: LOCAL.validate(operation, parameters))  # noqa: B023 - called at once


@settings(deadline=None, max_examples=60)
@given(executor_configs)
def test_no_validation_error_of_botocore_shows_a_value(config: Any) -> None:
    report = ParamValidator().validate({"taskDefinition": "t", **config}, RUN_TASK)
    if report.has_errors():
        error = ParamValidationError(report=report.generate_report())
        assert not leaks(error_text(error)), error_text(error)
        for result in (classify_exception(error, sent=False), classify_exception(error, True, config)):
            assert not leaks(result.reason), result.reason
        assert not leaks(classify_read_error(error).reason)


@settings(deadline=None, max_examples=60)
@given(secrets)
def test_no_answer_of_aws_brings_back_a_value_that_was_sent(secret: str) -> None:
    environment = [{"name": "DB_PASSWORD", "value": secret}]
    sent = {"cluster": "prod", "overrides": {"containerOverrides": [{"name": "main", "environment": environment}]}}
    quoted = f"Value '{secret}' at 'overrides.containerOverrides.1.member.value' failed to satisfy constraint: x"
    for message in (quoted, f"The value {secret} is not valid here."):
        error = ClientError({"Error": {"Code": "InvalidParameterException", "Message": message}}, "RunTask")
        result = classify_exception(error, True, sent)
        assert not leaks(result.reason), result.reason
        assert "failed to satisfy" in result.reason or "not valid here" in result.reason
        failed = classify_failures([{"reason": message}], sent)
        assert not leaks(failed.reason), failed.reason


@pytest.mark.parametrize("secret", ["hunter2", "hun@ter2", "@hunter@2@"])
def test_no_password_of_a_url_is_shown(secret: str) -> None:
    text = error_text(OSError(f"cannot reach amqp://me:{secret}@mq:5672/, nor https://registry/v2/job@sha256:0f"))
    assert text == "cannot reach amqp://***@mq:5672/, nor https://registry/v2/job@sha256:0f"


def test_what_stands_openly_in_the_arguments_is_still_named() -> None:
    override = {"name": "main", "environment": [{"name": "ENV", "value": "prod"}, {"name": "A", "value": "x"}]}
    sent = {"cluster": "prod", "overrides": {"containerOverrides": [override]}}
    assert hide_values("Cluster prod of main ENV x not found.", sent) == "Cluster prod of main ENV x not found."


class _Words(msgspec.Struct):
    tag: Relaunch


@pytest.mark.parametrize(
    "call",
    [
        lambda: int(SECRETS[0]),
        lambda: float(SECRETS[3]),
        lambda: datetime.datetime.fromisoformat(SECRETS[1]),
        lambda: msgspec.convert({"tag": SECRETS[0]}, _Words),
        lambda: json.loads(SECRETS[0]),
        lambda: SECRETS[7].encode(),
    ],
)
def test_errors_of_python_and_msgspec_lose_what_they_quote(call: Callable[[], object]) -> None:
    with pytest.raises(Exception) as caught:  # noqa: PT011 - each library has its own
        call()
    assert not leaks(error_text(caught.value))
    assert not leaks(traceback_text(caught.value))


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (
            f"unknown command 'X', with args beginning with: 'a' '{CANARY}'",
            "unknown command 'X', with args beginning with: ***",
        ),
        (
            f"Command # 1 (SET k {CANARY}) of pipeline caused error: x",
            "Command # 1 (SET ***) of pipeline caused error: x",
        ),
    ],
)
def test_the_server_and_its_client_may_quote_the_arguments_of_a_command(text: str, shown: str) -> None:
    assert hide_values(text) == shown


def test_an_unexpected_error_keeps_its_names() -> None:
    assert typed_error_text(KeyError("taskArn")) == "KeyError: 'taskArn'"
    assert typed_error_text(RuntimeError()) == "RuntimeError"
