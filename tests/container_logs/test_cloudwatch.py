"""CloudWatch's streams: pages, the newest lines, what does not exist, what is denied or throttled."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError, EndpointConnectionError
from moto import mock_aws

from ecs_queue.container_logs.base import LogBusy, LogUnavailable
from ecs_queue.container_logs.cloudwatch import CloudWatchLog, find_task_definition, open_cloudwatch_log
from ecs_queue.container_logs.follow import read_log

REGION = "eu-west-1"
ARN = f"arn:aws:ecs:{REGION}:123456789012:task/jobs/abc"
OPTIONS = {"awslogs-group": "/jobs", "awslogs-stream-prefix": "ecs", "awslogs-region": "eu-west-3"}
STREAM = {"logGroupName": "/jobs", "logStreamName": "ecs/main/abc"}
LOGS_EXCEPTIONS = boto3.client("logs", region_name=REGION).exceptions
START = int(time.time()) - 600

pytestmark = pytest.mark.moto


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A client of a CloudWatch Logs that has the group."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    with mock_aws():
        client = boto3.client("logs", region_name=OPTIONS["awslogs-region"])
        client.create_log_group(logGroupName="/jobs")
        yield client


def put(store: Any, *texts: str) -> None:
    """One line a second from START on."""
    store.create_log_stream(**STREAM)
    events = [{"timestamp": (START + number) * 1000, "message": text} for number, text in enumerate(texts)]
    store.put_log_events(**STREAM, logEvents=events)


def texts(log: CloudWatchLog) -> list[str]:
    return [line.text for line in read_log(log, time.sleep)]


def test_a_stream_is_read_to_its_end_and_then_what_follows(store: Any) -> None:
    log = CloudWatchLog(store, "/jobs", "ecs/main/abc")
    assert log.read() == ([], True)
    assert log.missing.startswith("there is no such log ")
    put(store, "a", "b", "c")  # the stream begins with the container's first line
    lines = list(read_log(log, time.sleep))
    assert log.missing == ""
    assert [line.text for line in lines] == ["a", "b", "c"]
    assert [line.at for line in lines] == [START, START + 1, START + 2]
    assert texts(CloudWatchLog(store, "/jobs", "ecs/main/abc", since=START + 1)) == ["b", "c"]


def test_the_newest_lines_are_read(store: Any) -> None:
    put(store, *"abcdef")
    for tail, expected in ((0, ""), (2, "ef"), (99, "abcdef")):
        assert "".join(texts(CloudWatchLog(store, "/jobs", "ecs/main/abc", tail=tail))) == expected


def test_every_line_of_a_stream_that_did_not_exist_at_first_is_new(store: Any) -> None:
    log = CloudWatchLog(store, "/jobs", "ecs/main/abc", tail=1)
    assert log.read() == ([], True)
    put(store, "a", "b")
    assert texts(log) == ["a", "b"]


def test_the_stream_is_that_of_the_task_definitions_options(store: Any) -> None:
    ecs = boto3.client("ecs", region_name=REGION)
    log = {"logConfiguration": {"logDriver": "awslogs", "options": OPTIONS}, "image": "busybox", "memory": 128}
    ecs.register_task_definition(family="one", containerDefinitions=[log | {"name": "main"}])
    ecs.register_task_definition(family="two", containerDefinitions=[log | {"name": "main"}, log | {"name": "b"}])
    put(store, "hello")
    regions = []

    def make_client(region: str | None) -> Any:
        regions.append(region)
        return store

    assert texts(open_cloudwatch_log(ecs, make_client, "one", None, "abc")) == ["hello"]
    assert regions == ["eu-west-3"]
    assert open_cloudwatch_log(ecs, make_client, "two", "b", "abc").source == "CloudWatch /jobs, ecs/b/abc"
    with pytest.raises(LogUnavailable, match="the task has the containers main, b: choose one with --container"):
        open_cloudwatch_log(ecs, make_client, "two", None, "abc")
    with pytest.raises(LogUnavailable, match="the task definition has no container 'c'"):
        open_cloudwatch_log(ecs, make_client, "two", "c", "abc")
    assert find_task_definition(ecs, ARN) is None


class FailingLogs:
    """Fails with these errors, then gives one line and no more; the token repeats then."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.exceptions = LOGS_EXCEPTIONS
        self.tokens: list[Any] = []

    def get_log_events(self, **arguments: Any) -> dict[str, Any]:
        self.tokens.append(arguments.get("nextToken"))
        if self.errors:
            raise self.errors.pop(0)
        events = [] if "nextToken" in arguments else [{"timestamp": 0, "message": "a"}]
        return {"events": events, "nextForwardToken": "f/1", "nextBackwardToken": "b/1"}


def client_error(code: str, message: str, status: int = 400) -> ClientError:
    response: Any = {"Error": {"Code": code, "Message": message}, "ResponseMetadata": {"HTTPStatusCode": status}}
    error_class = LOGS_EXCEPTIONS.from_code(code)
    return error_class(response, "GetLogEvents")


class ForgetfulLogs:
    """Takes no token that it has given before `forget` was called, as CloudWatch after 24 hours."""

    def __init__(self) -> None:
        self.exceptions = LOGS_EXCEPTIONS
        self.events: list[dict[str, Any]] = []
        self._age = 0

    def forget(self) -> None:
        self._age += 1

    def get_log_events(self, *, startFromHead: bool, limit: int, **arguments: Any) -> dict[str, Any]:  # noqa: N803
        events = [event for event in self.events if event["timestamp"] >= arguments.get("startTime", 0)]
        begin, end = (0, min(2, limit)) if startFromHead else (max(0, len(events) - limit), len(events))
        if "nextToken" in arguments:
            age, place = arguments["nextToken"].split("/")
            if int(age) < self._age:
                raise client_error("InvalidParameterException", "The specified nextToken is invalid.")
            begin, end = int(place), int(place) + 2
        found = events[begin:end]
        return {
            "events": found,
            "nextForwardToken": f"{self._age}/{begin + len(found)}",
            "nextBackwardToken": f"{self._age}/{begin}",
        }


@pytest.mark.parametrize(("tail", "expected"), [(None, "abc"), (2, "bc")])
def test_a_token_that_has_expired_repeats_and_loses_no_line(tail: int | None, expected: str) -> None:
    logs = ForgetfulLogs()
    logs.events = [{"timestamp": at, "message": text} for at, text in ((1, "a"), (2, "b"), (2, "c"))]
    log = CloudWatchLog(logs, "/jobs", "s", tail=tail)
    assert "".join(texts(log)) == expected
    for new in ([(2, "d"), (2, "e"), (3, "f")], [], [(3, "g")]):
        logs.forget()
        logs.events += [{"timestamp": at, "message": text} for at, text in new]
        assert texts(log) == [text for _, text in new]


def test_a_parameter_that_is_refused_without_a_token_is_an_error() -> None:
    refused = client_error("InvalidParameterException", "no such limit")
    with pytest.raises(LogUnavailable, match="no such limit"):
        CloudWatchLog(FailingLogs(refused), "/jobs", "s").read()


def test_throttles_and_outages_are_temporary_and_the_same_page_is_read_again() -> None:
    errors = [client_error("ThrottlingException", "Rate exceeded"), EndpointConnectionError(endpoint_url="https://x")]
    logs = FailingLogs(*errors, client_error("ServiceUnavailableException", "try later", 503))
    log = CloudWatchLog(logs, "/jobs", "ecs/main/abc")
    for _ in range(3):
        with pytest.raises(LogBusy, match="logs:GetLogEvents on /jobs"):
            log.read()
    assert texts(log) == ["a"]
    assert logs.tokens == [None, None, None, None, "f/1"]


@pytest.mark.parametrize("what", ["group", "stream"])
def test_a_group_or_stream_that_does_not_exist_has_no_lines_yet(what: str) -> None:
    """moto says "group" of a stream, too."""
    missing = client_error("ResourceNotFoundException", f"The specified log {what} does not exist.")
    log = CloudWatchLog(FailingLogs(missing), "/jobs", "ecs/main/abc")
    assert log.read() == ([], True)
    assert log.missing == f"there is no such log {what}: the container wrote nothing, or it was deleted"


def test_a_denied_call_names_what_is_missing() -> None:
    message = "User: arn:aws:iam::1:user/me is not authorized to perform: logs:GetLogEvents"
    with pytest.raises(LogUnavailable, match=r"logs:GetLogEvents on /jobs: .* is not authorized"):
        CloudWatchLog(FailingLogs(client_error("AccessDeniedException", message)), "/jobs", "s").read()
