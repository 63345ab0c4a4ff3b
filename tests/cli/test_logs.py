"""`logs`, `submit --wait --logs` and the last lines of what failed."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import boto3
import msgspec
import pytest
from moto import mock_aws

from ecs_queue.cli.ui.awaited_log import last_lines
from ecs_queue.cli.ui.container_log import LogChoice, LogOpener, RequestLog, read_last_lines
from ecs_queue.client.client import EcsQueue
from ecs_queue.container_logs.base import LogBusy, LogLine, LogUnavailable
from ecs_queue.ecs.clients import Target
from ecs_queue.protocol.record import Record
from ecs_queue.protocol.states import State
from tests.cli.conftest import Deployment, Invoke, json_lines

ARN = "arn:aws:ecs:eu-west-1:123456789012:task/jobs/abc"
TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


@pytest.fixture
def client(no_worker_environ: dict[str, str]) -> Iterator[EcsQueue]:
    with EcsQueue.from_config(environ=no_worker_environ, owner="") as queue:
        yield queue


def test_who_follows_a_request_that_waits_is_told_why(
    invoke: Invoke, no_worker_environ: dict[str, str], client: EcsQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    client.submit(["true"], id="follow-me")
    client.pause("default")
    monkeypatch.setattr(RequestLog, "lines", lambda *_: iter(()))
    said = invoke("logs", "-f", "follow-me", env=no_worker_environ).stderr
    assert "follow-me has no container yet (QUEUED)" in said
    assert "queue default is paused" in said
    assert "no live worker serves queue default" in said


def test_submit_shows_what_the_container_writes_and_ends_as_it_does(deployment: Deployment) -> None:
    done = deployment.run("submit", "--wait", "--logs", "--id", "hello", "--", "sh", "-c", "echo hello; exit 3")
    assert (done.returncode, done.stdout) == (3, "hello\n")
    assert done.stderr.startswith("ecs-queue: hello ended as FAILED with exit code 3 after ")
    for arguments in (["logs", "hello"], ["logs", "-f", "hello"], ["logs", "hello", "--tail", "1"]):
        again = deployment.run(*arguments)
        assert (again.returncode, again.stdout, again.stderr) == (0, "hello\n", "")


def test_lines_come_while_the_container_runs_and_attempt_after_attempt(deployment: Deployment, tmp_path: Path) -> None:
    fifo = tmp_path / "go"
    os.mkfifo(fifo)
    options = ["--wait", "--logs", "--id", "again", "--relaunch", "any_failure", "--timeout", "60"]
    command = ["sh", "-c", f"echo begun; read x < {fifo}; echo done; exit 4"]
    readers = [deployment.start("submit", *options, "--", *command)]
    try:
        for _ in range(3):
            assert _read_line(readers[0]) == b"begun\n"
            if len(readers) == 1:
                readers.append(deployment.start("logs", "-f", "again"))
            assert _read_line(readers[-1]) == b"begun\n"
            fifo.write_text("\n")  # waits until the container reads it
            assert [_read_line(reader) for reader in readers] == [b"done\n"] * 2
        ends = [reader.communicate(timeout=30) for reader in readers]
    finally:
        for reader in readers:
            reader.kill()
            reader.communicate()
    assert [reader.returncode for reader in readers] == [4, 0]
    assert [out for out, _ in ends] == [b"", b""]
    assert b"attempt 2\n" in ends[1][1]
    assert b"again ended as FAILED with exit code 4" in ends[1][1]
    (line, _) = json_lines(deployment.run("logs", "again", "--attempt", "2", "--json").stdout)
    assert (line["attempt"], line["launch"], line["line"], line["at"]) == (2, 2, "begun", None)
    unknown = deployment.run("logs", "again", "--attempt", "7")
    assert (unknown.returncode, unknown.stdout) == (1, "")
    assert "no container of attempt 7 is known; known are those of 1, 2, 3" in unknown.stderr


def _read_line(process: subprocess.Popen[bytes]) -> bytes:
    assert process.stdout is not None
    return process.stdout.readline()


def test_the_last_lines_of_what_failed_are_shown(deployment: Deployment) -> None:
    script = "for i in $(seq 12); do echo line $i; done; printf '\\033[31mwhy'; exit 5"
    done = deployment.run("submit", "--wait", "--id", "why", "--", "sh", "-c", script)
    last = [*(f"  line {number}" for number in range(4, 13)), "  why"]
    assert done.returncode == 5
    assert done.stdout.splitlines()[-11:] == ["its last 10 lines (all: ecs-queue logs why)", *last]
    assert deployment.run("status", "why").stdout.splitlines()[-10:] == last
    assert "line 12" not in deployment.run("status", "why", "--no-logs").stdout
    facts = json.loads(deployment.run("status", "why", "--json", "--logs").stdout)
    assert facts["last_lines"] == [line.strip() for line in last]


def test_what_has_no_container_or_is_not_known_is_a_sentence_and_status_1(
    invoke: Invoke, no_worker_environ: Mapping[str, str], client: EcsQueue
) -> None:
    client.submit(["true"], id="waits")
    for name, words in (("waits", "waits has no container, it is QUEUED"), ("nope", "no request nope is known")):
        done = invoke("logs", name, env=no_worker_environ)
        assert (done.exit_code, done.stdout) == (1, "")
        assert words in done.stderr


def make_record(state: State = State.FAILED, **fields: Any) -> Record:
    return Record(id="job", queue="default", state=state, arn=ARN, container_name="main", **fields)


def test_without_credentials_it_is_a_sentence(client: EcsQueue, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_REGION", "eu-west-1")
    opener = LogOpener(client, environ={})
    with pytest.raises(LogUnavailable, match="there are no AWS credentials here"):
        opener.open(make_record(), ARN, LogChoice())
    assert "no AWS credentials" in read_last_lines(client, make_record(), 10, 30.0, opener)


@pytest.mark.parametrize(
    ("state", "run", "expected"),
    [(State.REMOVED, "job.r.1", ["why"]), (State.REMOVED, "", []), (State.SUCCESS, "job.r.1", [])],
)
def test_of_a_request_that_never_started_what_its_runner_wrote_is_shown(
    client: EcsQueue, monkeypatch: pytest.MonkeyPatch, state: State, run: str, expected: list[str]
) -> None:
    monkeypatch.setattr("ecs_queue.cli.ui.container_log.read_last_lines", lambda *_: [LogLine(None, "why")])
    assert last_lines(client, make_record(state, run=run)) == expected


@pytest.mark.moto
@pytest.mark.parametrize("keys", ["", "k1:0123456789abcdef0123456789abcdef"])
def test_cloudwatch_is_read_where_the_record_says_and_with_keys_only_where_the_configuration_says(
    no_worker_environ: dict[str, str], monkeypatch: pytest.MonkeyPatch, keys: str
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    options = {"awslogs-group": "/jobs", "awslogs-stream-prefix": "ecs", "awslogs-region": "eu-west-1"}
    definition = {
        "name": "main",
        "image": "i",
        "memory": 1,
        "logConfiguration": {"logDriver": "awslogs", "options": options},
    }
    foreign = Target("eu-west-1", "http://127.0.0.1:1", None, "jobs").encode()
    own = Target("eu-west-1", None, "arn:aws:iam::123456789012:role/run", "jobs").encode()
    environ = {**no_worker_environ, "AIRFLOW__ECS_QUEUE__SIGNING_KEYS": keys}
    with mock_aws(), EcsQueue.from_config(environ=environ, owner="") as client:
        boto3.client("ecs", region_name="eu-west-1").register_task_definition(
            family="local", containerDefinitions=[definition]
        )
        store = boto3.client("logs", region_name="eu-west-1")
        store.create_log_group(logGroupName="/jobs")
        store.create_log_stream(logGroupName="/jobs", logStreamName="ecs/main/abc")
        event = {"timestamp": int(time.time() * 1000), "message": "hello"}
        store.put_log_events(logGroupName="/jobs", logStreamName="ecs/main/abc", logEvents=[event])
        opener = LogOpener(client, environ={})
        reader = opener.open(make_record(target=foreign if keys else own), ARN, LogChoice())
        assert [line.text for line in reader.read().lines] == ["hello"]
        if not keys:
            with pytest.raises(LogBusy, match="AWS was not reached"):
                opener.open(make_record(target=foreign), ARN, LogChoice())


@pytest.mark.moto
def test_a_runners_log_is_read_from_some_time_before_the_launch_on(
    no_worker_environ: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has the output of all requests before it, of days; other attempts were at other times."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    options = {"awslogs-group": "/jobs", "awslogs-stream-prefix": "ecs", "awslogs-region": "eu-west-1"}
    logging = {"logDriver": "awslogs", "options": options}
    now = time.time()
    with mock_aws(), EcsQueue.from_config(environ=no_worker_environ, owner="") as client:
        boto3.client("ecs", region_name="eu-west-1").register_task_definition(
            family="local",
            containerDefinitions=[{"name": "main", "image": "i", "memory": 1, "logConfiguration": logging}],
        )
        store: Any = boto3.client("logs", region_name="eu-west-1")
        store.create_log_group(logGroupName="/jobs")
        store.create_log_stream(logGroupName="/jobs", logStreamName="ecs/main/abc")
        events = [{"timestamp": int((now - age) * 1000), "message": f"{age}"} for age in (3600, 300, 0)]
        store.put_log_events(logGroupName="/jobs", logStreamName="ecs/main/abc", logEvents=events)
        opener = LogOpener(client, environ={})
        target = Target("eu-west-1", None, None, "jobs").encode()
        for fields, expected in (({"arn": ARN}, ["300", "0"]), ({"arn": ARN[:-1] + "d"}, ["3600", "300", "0"])):
            record = msgspec.structs.replace(make_record(target=target, run="a.n.1", launched_at=now), **fields)
            reader = opener.open(record, ARN, LogChoice(newest=1))
            assert [line.text for line in reader.read().lines] == expected


@pytest.mark.parametrize("arn", ["", "arn:aws:ecs:eu-west-1:1:task/jobs/../../etc", "arn:aws:ecs:x/@evil:1:task/j/a"])
def test_an_arn_that_names_no_log_is_a_sentence(client: EcsQueue, arn: str) -> None:
    with pytest.raises(LogUnavailable, match="names a log"):
        LogOpener(client, environ={"ECS_QUEUE_LOCAL_LOG_DIR": "/tmp"}).open(make_record(), arn, LogChoice())


def test_an_aws_that_does_not_answer_delays_status_by_no_more_than_the_bound(client: EcsQueue) -> None:
    class SilentOpener(LogOpener):
        def open(self, record: Record, arn: str, choice: LogChoice) -> Any:
            time.sleep(60)

    started_at = time.monotonic()
    found = read_last_lines(client, make_record(), 10, 0.2, SilentOpener(client))
    assert found == "they could not be read within 0.2 s"
    assert time.monotonic() - started_at < 10


def test_a_log_that_cannot_be_read_does_not_end_the_wait(deployment: Deployment) -> None:
    environ = {name: value for name, value in deployment.environ.items() if name != "ECS_QUEUE_LOCAL_LOG_DIR"}
    done = Deployment(environ).run("submit", "--wait", "--logs", "--", "sh", "-c", "exit 6")
    assert (done.returncode, done.stdout) == (6, "")
    assert "the container's output cannot be shown: the container 'main' has no awslogs log driver" in done.stderr
    assert "ended as FAILED with exit code 6" in done.stderr


@pytest.mark.parametrize(("given", "shown"), [(TRACEPARENT, f"{TRACEPARENT}\n"), ("no trace", "none\n")])
def test_a_container_continues_the_trace_of_the_environment(deployment: Deployment, given: str, shown: str) -> None:
    environ = {**deployment.environ, "TRACEPARENT": given}
    command = ["sh", "-c", "echo ${TRACEPARENT:-none}"]
    done = Deployment(environ).run("submit", "--wait", "--logs", "--", *command)
    assert (done.returncode, done.stdout) == (0, shown)
