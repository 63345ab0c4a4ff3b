"""A request as a producer makes it: what is refused names the field, and the digest says what the caller chose."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from ecs_queue.errors import InvalidRequest
from ecs_queue.messages.envelope import decode_request
from ecs_queue.messages.request import MAX_BODY_BYTES, TaskRequest, new_request
from tests.messages.golden_messages import golden

_START = 1_700_000_000.25


def _request(**fields: Any) -> TaskRequest:
    known: dict[str, Any] = {"id": "job-1", "command": ["true"], "now": _START, "accept_seconds": 86400.0}
    return new_request(**(known | fields))


def test_the_origin_is_none_of_the_callers_words() -> None:
    # Else a request whose origin an older producer cannot name would conflict with itself.
    assert _request(origin="job-0").digest() == _request().digest()


_WORDS: dict[str, Any] = {
    "id": "job-2",
    "command": ["false"],
    "queue": "other",
    "executor_config": {"cpu": 1},
    "priority": 1,
    "expires_in": 60.0,
    "time_limit": 60.0,
    "relaunch": "interrupted",
}


@pytest.mark.parametrize(("field", "value"), _WORDS.items())
def test_a_digest_distinguishes_what_the_caller_chose(field: str, value: Any) -> None:
    assert _request(**{field: value}).digest() != _request().digest()


TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def test_a_request_of_another_trace_is_the_same_request() -> None:
    traced, untraced = decode_request(golden("request-v1-traced")), decode_request(golden("request-v1-minimal"))
    assert traced == msgspec.structs.replace(untraced, traceparent=TRACEPARENT)
    assert traced.digest() == untraced.digest()


@pytest.mark.parametrize("text", ["x", TRACEPARENT.upper(), TRACEPARENT + "\n", TRACEPARENT + "-00", 7])
def test_what_is_no_trace_is_refused_with_an_example(text: object) -> None:
    with pytest.raises(InvalidRequest, match="traceparent: expected a W3C traceparent such as 00-"):
        _request(traceparent=text)


def test_a_digest_does_not_depend_on_when_or_by_whom_it_is_submitted() -> None:
    first = _request(expires_in=60.0, owner="ann")
    again = _request(expires_in=60.0, owner="bob", now=_START + 5, accept_seconds=7.0)
    assert first.expires_at != again.expires_at
    assert first.digest() == again.digest()


def test_a_digest_does_not_depend_on_the_order_of_keys_or_on_an_empty_config() -> None:
    one = _request(executor_config={"cpu": 1, "environment": [{"name": "A", "value": "b"}]})
    two = _request(executor_config={"environment": [{"value": "b", "name": "A"}], "cpu": 1})
    assert one.digest() == two.digest()
    assert _request(executor_config={}).digest() == _request().digest()


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"id": ""}, "id"),
        ({"id": "a b"}, "id"),
        ({"id": "job-1\n"}, "id"),
        ({"queue": "a\n"}, "queue"),
        ({"owner": "a/b"}, "owner"),
        ({"command": []}, "command"),
        ({"command": "echo hi"}, "command"),
        ({"command": ["a", 1]}, "command"),
        ({"command": ["\ud800"]}, "JSON"),
        ({"command": ["x" * MAX_BODY_BYTES]}, "bytes"),
        ({"priority": 10}, "priority"),
        ({"relaunch": "always"}, "relaunch"),
        ({"expires_in": 0}, "expires_in"),
        ({"expires_in": 1e300}, "expires_"),
        ({"time_limit": -1}, "time_limit"),
        ({"now": _START * 1000}, "submitted_at"),
        ({"executor_config": {"a": object()}}, "JSON"),
        ({"executor_config": {"a": {1: 2}}}, "JSON"),
        ({"executor_config": {1: 2}}, "executor_config"),
        ({"executor_config": [1]}, "executor_config"),
        ({"comand": ["true"]}, "comand"),
    ],
)
def test_an_invalid_request_names_the_field(fields: dict[str, Any], named: str) -> None:
    with pytest.raises(InvalidRequest, match=named):
        _request(**fields)


def test_a_config_that_contains_itself_is_an_invalid_request() -> None:
    config: dict[str, Any] = {}
    config["a"] = config
    with pytest.raises(InvalidRequest, match="nested"):
        _request(executor_config=config)


def test_a_requests_repr_shows_no_command_and_no_environment() -> None:
    config = {"environment": [{"name": "TOKEN", "value": "hidden"}]}
    request = new_request(id="a", command=["login", "hunter2"], now=1.0, accept_seconds=60.0, executor_config=config)
    assert repr(request) == "TaskRequest(id='a', queue='default')"
