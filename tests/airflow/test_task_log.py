"""The log of a task's container while it runs."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto import mock_aws

from ecs_queue.airflow import task_log
from ecs_queue.config import Config, Profile, load_config
from ecs_queue.container_logs.local_files import LOCAL_LOG_VARIABLE
from ecs_queue.protocol.record import Record
from ecs_queue.protocol.states import State
from ecs_queue.runner import log_lines

ARN = "arn:aws:ecs:eu-west-1:123456789012:task/jobs/abc"
SETTINGS = {
    "AIRFLOW__ECS_QUEUE__BROKER_URL": "memory://",
    "AIRFLOW__AWS_ECS_EXECUTOR__TASK_DEFINITION": "family:7",
}
OPTIONS = {"awslogs-group": "/jobs", "awslogs-stream-prefix": "airflow", "awslogs-region": "eu-west-3"}


class FakeLedger:
    """Returns one record."""

    def __init__(self, record: Record | None) -> None:
        self.record = record

    def get(self, ids: list[str]) -> list[Record | None]:
        return [self.record]

    def close(self) -> None:
        return None


class MissingError(Exception):
    """CloudWatch's ResourceNotFoundException."""


class FakeAws:
    """Stands for ECS and CloudWatch; records the calls."""

    class exceptions:  # noqa: N801 - boto3's own name
        ResourceNotFoundException = MissingError

    def __init__(self, container: dict[str, Any], events: list[dict[str, Any]] | None) -> None:
        self.container = container
        self.events = events
        self.calls: list[Any] = []

    def make_client(self, service: str, region: str, profile: Profile) -> FakeAws:
        self.calls.append((service, region))
        return self

    def describe_tasks(self, **kwargs: Any) -> dict[str, Any]:
        self.calls.append(kwargs)
        return {"tasks": [{"taskDefinitionArn": "arn:own:3"}]}

    def describe_task_definition(self, **kwargs: Any) -> dict[str, Any]:
        self.calls.append(kwargs)
        return {"taskDefinition": {"containerDefinitions": [self.container]}}

    def get_log_events(self, **kwargs: Any) -> dict[str, Any]:
        self.calls.append(kwargs)
        if self.events is None:
            raise MissingError
        return {"events": self.events}


@pytest.fixture
def config() -> Config:
    return load_config(environ=SETTINGS)


def read_log(
    config: Config,
    monkeypatch: pytest.MonkeyPatch,
    record: Record | None,
    aws: FakeAws | None = None,
    environ: dict[str, str] | None = None,
) -> tuple[list[str], list[str]]:
    monkeypatch.setattr(task_log, "open_ledger", lambda config: FakeLedger(record))
    return task_log.read_task_log(
        config, "job", make_client=None if aws is None else aws.make_client, environ=environ or {}
    )


def make_running_record(**fields: Any) -> Record:
    return Record(id="job", state=State.LAUNCHED, arn=ARN, container_name="main", **fields)


def make_container_definition(**log: Any) -> dict[str, Any]:
    return {"name": "main", "logConfiguration": {"logDriver": "awslogs", "options": OPTIONS} | log}


def test_the_containers_own_stream_is_read(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    events = [{"timestamp": 0, "message": "hello"}, {"timestamp": 1000, "message": '{"event": "json"}'}]
    aws = FakeAws(make_container_definition(), events)
    messages, lines = read_log(config, monkeypatch, make_running_record(), aws)
    assert lines == ["[1970-01-01T00:00:00.000+00:00] hello", '{"event": "json"}']
    assert "airflow/main/abc" in messages[0]
    assert aws.calls[:3] == [("ecs", "eu-west-1"), {"taskDefinition": "family:7"}, ("logs", "eu-west-3")]
    assert aws.calls[3]["logStreamName"] == "airflow/main/abc"


def test_a_stream_that_is_not_there_yet_is_no_error(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    messages, lines = read_log(config, monkeypatch, make_running_record(), FakeAws(make_container_definition(), None))
    assert "nothing yet" in messages[0]
    assert lines == []


@pytest.mark.parametrize(
    ("container", "message"),
    [
        ({"name": "main"}, "no awslogs log driver"),
        ({"name": "other"}, "no container 'main'"),
        (make_container_definition(options={"awslogs-group": "/jobs"}), "no awslogs-stream-prefix"),
    ],
)
def test_a_missing_log_configuration_is_reported(
    config: Config, monkeypatch: pytest.MonkeyPatch, container: dict[str, Any], message: str
) -> None:
    messages, lines = read_log(config, monkeypatch, make_running_record(), FakeAws(container, []))
    assert message in messages[0]
    assert lines == []


def test_the_local_ecs_keeps_a_file(config: Config, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for text, expected in (
        ("one\ntwo\n", ["one", "two"]),
        ('one\n\n{"a": "b\u2028c"}\x0b', ["one", "", '{"a": "b\u2028c"}\x0b']),
        ("", []),
    ):
        (tmp_path / "abc.log").write_text(text)
        _, lines = read_log(config, monkeypatch, make_running_record(), environ={LOCAL_LOG_VARIABLE: str(tmp_path)})
        assert lines == expected


@pytest.mark.parametrize("as_json", [False, True])
def test_a_token_in_a_line_is_not_shown(
    config: Config, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, as_json: bool
) -> None:
    """Airflow 3.1 prints that of the task, with which its reader could act as the task."""
    token = "eyJhbGciOiJIUzUxMiJ9.eyJzdWIiOiIwMWEyMjcwYiJ9.NFFCN48Zcwv3MtkY9pNidyNgWbbTnveHXKKEplKP8mrx"
    text = f"Executing workload ExecuteTask(token='{token}', ti=TaskInstance(task_id='load'))"
    line = json.dumps({"event": text}) if as_json else text
    (tmp_path / "abc.log").write_text(f"{line}\n")
    record = make_running_record()
    local = read_log(config, monkeypatch, record, environ={LOCAL_LOG_VARIABLE: str(tmp_path)})[1]
    aws = read_log(
        config, monkeypatch, record, FakeAws(make_container_definition(), [{"timestamp": 0, "message": line}])
    )[1]
    for (shown,) in (local, aws):
        assert "eyJ" not in shown
        assert "NFFCN48" not in shown
        assert "task_id='load'" in shown


def test_of_a_runners_log_only_the_requests_own_lines_are_shown(
    config: Config, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    marks = [[log_lines.LogLine(name, 1, 1), log_lines.LogLine(name, 1, 1, 0)] for name in ("other", "job")]
    (start, end), (own_start, own_end) = [[log_lines.format_line(mark) for mark in pair] for pair in marks]
    texts = ["tail of another", end, start, "another's", end, own_start, "own", own_end]
    record = make_running_record(run="r.n.1")
    (tmp_path / "abc.log").write_text("".join(f"{text}\n" for text in texts))
    environ = {LOCAL_LOG_VARIABLE: str(tmp_path)}
    assert read_log(config, monkeypatch, record, environ=environ)[1] == ["own"]
    aws = FakeAws(make_container_definition(), [{"timestamp": 0, "message": text} for text in texts])
    assert read_log(config, monkeypatch, record, aws)[1] == ["[1970-01-01T00:00:00.000+00:00] own"]


def test_a_request_without_a_container_has_its_reason(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    record = Record(id="job", state=State.QUEUED, reason="RESOURCE:CPU")
    assert "RESOURCE:CPU" in read_log(config, monkeypatch, record)[0][0]


def test_an_unknown_request_is_reported(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "not known" in read_log(config, monkeypatch, None)[0][0]
    assert "no request yet" in task_log.read_task_log(config, None)[0][0]


def test_where_a_request_may_choose_its_task_definition_ecs_is_asked_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    allowed = {"AIRFLOW__ECS_QUEUE__ALLOWED_OVERRIDES": "safe, taskDefinition"}
    aws = FakeAws(make_container_definition(), [])
    read_log(load_config(environ=SETTINGS | allowed), monkeypatch, make_running_record(), aws)
    assert aws.calls[1:3] == [{"cluster": "jobs", "tasks": [ARN]}, {"taskDefinition": "arn:own:3"}]


@pytest.mark.slow
@mock_aws
@pytest.mark.parametrize("role", ["", "arn:aws:iam::123456789012:role/logs"])
def test_boto3s_own_clients_read_it_with_the_profiles_role(monkeypatch: pytest.MonkeyPatch, role: str) -> None:
    boto3.client("ecs", region_name="eu-west-1").register_task_definition(
        family="family", containerDefinitions=[make_container_definition() | {"image": "busybox", "memory": 128}]
    )
    store = boto3.client("logs", region_name="eu-west-3")
    store.create_log_group(logGroupName="/jobs")
    store.create_log_stream(logGroupName="/jobs", logStreamName="airflow/main/abc")
    event = {"timestamp": int(time.time() * 1000), "message": "hello"}
    store.put_log_events(logGroupName="/jobs", logStreamName="airflow/main/abc", logEvents=[event])
    settings = SETTINGS | {"AIRFLOW__AWS_ECS_EXECUTOR__TASK_DEFINITION": "family"}
    settings["AIRFLOW__AWS_ECS_EXECUTOR__ROLE_ARN"] = role

    _, lines = read_log(load_config(environ=settings), monkeypatch, make_running_record())

    assert [line.split()[-1] for line in lines] == ["hello"]
