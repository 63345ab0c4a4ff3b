"""`submit`: nothing half-submitted, one result a request, the task's own exit status."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import redis

from ecs_queue.client.client import EcsQueue
from ecs_queue.local.redis_server import RedisServer
from ecs_queue.messages.result import RESULT_LINE_FIELDS
from tests.cli.conftest import Deployment, Invoke, json_lines, task_file
from tests.processes import CLI_COMMAND
from tests.servers import require_redis_binary
from tests.wait import wait_until
from tests.worker_info import make_worker_info


def queued(environ: Mapping[str, str]) -> list[str]:
    """The ids that the ledger knows."""
    with EcsQueue.from_config(environ=environ, owner="") as client:
        return sorted(record.id for record in client.ledger.list_records("", 1000)[0])


# Without waiting


def test_one_command_prints_its_id(invoke: Invoke, no_worker_environ: Mapping[str, str]) -> None:
    plain = invoke("submit", "--", "echo", "--wait", env=no_worker_environ)
    given = invoke("submit", "--json", "--id", "mine", "echo", "-n", "hello", env=no_worker_environ)
    assert (plain.exit_code, given.exit_code) == (0, 0)
    assert json_lines(given.stdout) == [{"id": "mine"}]
    assert queued(no_worker_environ) == sorted([plain.stdout.strip(), "mine"])
    with EcsQueue.from_config(environ=no_worker_environ, owner="") as client:
        [record] = client.ledger.get_with_payload(["mine"])
    assert record is not None
    assert json.loads(record.request)["command"] == ["echo", "-n", "hello"]
    assert record.owner == ""


def test_every_option_reaches_the_request(invoke: Invoke, no_worker_environ: Mapping[str, str]) -> None:
    config = '{"cpu": 512, "environment": [{"name": "A", "value": "b"}]}'
    options = ["--queue", "etl", "--priority", "5", "--expires-in", "60", "--time-limit", "7.5"]
    options += ["--relaunch", "interrupted", "--executor-config", config, "--id", "a1"]
    options += ["--start-timeout", "5m", "--key", "customer 7"]
    assert invoke("submit", *options, "--", "true", env=no_worker_environ).exit_code == 0
    with EcsQueue.from_config(environ=no_worker_environ, owner="") as client:
        [record] = client.ledger.get_with_payload(["a1"])
    assert record is not None
    request = json.loads(record.request)
    found = {
        name: request[name]
        for name in (
            "v",
            "queue",
            "priority",
            "expires_in",
            "time_limit",
            "relaunch",
            "start_timeout",
            "concurrency_key",
        )
    }
    assert found == {
        "v": 2,
        "start_timeout": 300.0,
        "concurrency_key": "customer 7",
        "queue": "etl",
        "priority": 5,
        "expires_in": 60.0,
        "time_limit": 7.5,
        "relaunch": "interrupted",
    }
    assert request["executor_config"] == json.loads(config)


def test_variables_cpu_and_memory_are_overrides_of_the_main_container(
    invoke: Invoke, no_worker_environ: Mapping[str, str], tmp_path: Path
) -> None:
    options = ["--env", "DAY=a=b", "--env", "FROM_SHELL", "--env", "EMPTY=", "--cpu", "512", "--memory", "1024"]
    environ = {**no_worker_environ, "FROM_SHELL": "wörld"}
    assert invoke("submit", *options, "--id", "a1", "--", "true", env=environ).exit_code == 0
    file = task_file(tmp_path, {"id": "f1", "command": ["x"], "cpu": 256}, {"id": "f2", "command": ["x"]})
    assert invoke("submit", "--file", str(file), *options, env=environ).exit_code == 0
    with EcsQueue.from_config(environ=no_worker_environ, owner="") as client:
        records = client.ledger.get_with_payload(["a1", "f1", "f2"])
    variables = [("DAY", "a=b"), ("EMPTY", ""), ("FROM_SHELL", "wörld")]
    expected = {"cpu": 512, "memory": 1024, "environment": [{"name": n, "value": v} for n, v in variables]}
    found = [json.loads(record.request)["executor_config"] for record in records if record is not None]
    assert found == [expected, {**expected, "cpu": 256}, expected]


def test_a_file_prints_its_ids_in_order_and_the_options_are_defaults_of_its_lines(
    invoke: Invoke, no_worker_environ: Mapping[str, str], tmp_path: Path
) -> None:
    file = task_file(tmp_path, {"id": "b", "command": ["x"], "queue": "own"}, "", {"id": "a", "command": ["y"]})
    done = invoke("submit", "--file", str(file), "--queue", "given", env=no_worker_environ)
    assert done.stdout.split() == ["b", "a"]
    assert done.exit_code == 0
    again = invoke("submit", "--json", "-f", "-", "--queue", "given", env=no_worker_environ, input=file.read_bytes())
    assert json_lines(again.stdout) == [{"id": "b"}, {"id": "a"}]
    with EcsQueue.from_config(environ=no_worker_environ, owner="") as client:
        assert [client.status(name).queue for name in ("b", "a")] == ["own", "given"]


def test_a_number_that_is_none_is_called_a_whole_number(invoke: Invoke) -> None:
    done = invoke("submit", "--cpu", "12x", "--", "true")
    assert (done.exit_code, done.stdout) == (2, "")
    assert "'--cpu': '12x' is not a valid whole number" in done.stderr
    assert "RANGE" not in invoke("tasks", "--help").stdout


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "expected a command, found none"),
        (["--file", "TASKS.jsonl", "--", "true"], "expected a command or --file, found both"),
        (["--file", "TASKS.jsonl", "--id", "a"], "--id is for one command"),
        (["--output", "r.jsonl", "--", "true"], "--output takes the results of --file and --wait"),
        (["--file", "TASKS.jsonl", "--output", "r.jsonl"], "--output takes the results of --file and --wait"),
        (["--timeout", "5", "--", "true"], "--timeout bounds --wait"),
        (["--logs", "--", "true"], "--logs prints the output of one command with --wait"),
        (["--file", "TASKS.jsonl", "--wait", "--output", "./TASKS.jsonl"], "would overwrite the tasks"),
        (["--file", "nope.jsonl"], "nope.jsonl: No such file or directory"),
        (["--file", "TASKS.jsonl", "--wait", "--output", "no/dir.jsonl"], "nothing was submitted"),
        (["--file", "."], "Is a directory"),
        (["--env", "=x", "--", "true"], "--env: expected NAME=VALUE or NAME, found no name"),
        (["--env", "NOT_IN_THIS_SHELL", "--", "true"], "this shell's environment has no NOT_IN_THIS_SHELL"),
        (["--env", "--", "true"], "--env: expected NAME=VALUE or NAME before the command, found --"),
        (["--cpu", "5", "--executor-config", '{"cpu": 1}', "--", "true"], "cpu: found in the request and in"),
        (["--executor-config", "{cpu}", "--", "true"], "--executor-config: expected JSON"),
        (["--executor-config", '{"nonsense": 1}', "--", "true"], "unknown key 'nonsense'"),
        (["--executor-config", '["cpu"]', "--", "true"], "executor_config"),
        (["--id", "two words", "--", "true"], "id"),
        (["--id", "", "--", "true"], "id"),
        (["--", "\udcff"], "expected UTF-8 text"),
    ],
)
def test_bad_input_is_one_sentence_and_nothing_is_submitted(
    invoke: Invoke,
    no_worker_environ: Mapping[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    sentence: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    task_file(tmp_path, {"command": ["true"]})
    done = invoke("submit", *arguments, env=no_worker_environ)
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr.startswith("ecs-queue: ")
    assert done.stderr.count("\n") == 1
    assert sentence in done.stderr
    assert queued(no_worker_environ) == []


def test_a_bad_line_17_is_named_and_nothing_is_submitted(
    invoke: Invoke, no_worker_environ: Mapping[str, str], tmp_path: Path
) -> None:
    good: list[Any] = [{"command": ["true"]}] * 16
    output = tmp_path / "results.jsonl"
    output.write_text("of the last run\n")
    file = task_file(tmp_path, *good, '{"command": "not a list"}', *good)
    done = invoke("submit", "--file", str(file), "--wait", "--output", str(output), env=no_worker_environ)
    assert done.exit_code == 2
    assert done.stderr.startswith(f"ecs-queue: {file} line 17: command: expected a list of strings")
    assert done.stderr.endswith("; nothing was submitted\n")
    assert queued(no_worker_environ) == []
    assert output.read_text() == "of the last run\n"


def test_a_queue_that_cannot_launch_is_refused(invoke: Invoke, no_worker_environ: Mapping[str, str]) -> None:
    env = {**no_worker_environ, "AIRFLOW__AWS_ECS_EXECUTOR__CLUSTER": ""}
    done = invoke("submit", "--queue", "gpu", "--", "true", env=env)
    assert done.exit_code == 2
    assert "queue 'gpu': expected cluster to be set" in done.stderr
    assert queued(no_worker_environ) == []


def test_an_id_that_another_request_has_is_refused(invoke: Invoke, no_worker_environ: Mapping[str, str]) -> None:
    assert invoke("submit", "--id", "a", "--", "true", env=no_worker_environ).exit_code == 0
    assert invoke("submit", "--id", "a", "--", "true", env=no_worker_environ).exit_code == 0  # the same request again
    done = invoke("submit", "--id", "a", "--", "false", env=no_worker_environ)
    assert done.exit_code == 2
    assert "another request was submitted under the id a" in done.stderr


# Servers that cannot be reached


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("redis://:hunter2@127.0.0.1:1/0", "Connection refused"),
        ("redis://:hunter2@no-such-host.invalid:6379/0", "no-such-host.invalid"),
        ("http://:hunter2@127.0.0.1/0", "expected a URL such as redis://"),
        ("redis://:hunter2@127.0.0.1:port/0", "expected a URL such as redis://"),
        ("hunter2@127.0.0.1", "expected a URL such as redis://"),
    ],
)
@pytest.mark.parametrize("command", [["submit", "--wait", "--", "true"], ["worker"], ["status"], ["stop", "a"]])
def test_a_server_that_cannot_be_reached_is_a_sentence_within_seconds_and_no_password_is_shown(
    invoke: Invoke, url: str, words: str, command: list[str]
) -> None:
    env = {
        "AIRFLOW__AWS_ECS_EXECUTOR__CLUSTER": "c",
        "AIRFLOW__AWS_ECS_EXECUTOR__TASK_DEFINITION": "t",
        "AIRFLOW__AWS_ECS_EXECUTOR__CONTAINER_NAME": "main",
        "AIRFLOW__AWS_ECS_EXECUTOR__SUBNETS": "subnet-1",
        "AWS_REGION": "eu-west-1",
    }
    start = time.monotonic()
    done = invoke("--log-level", "debug", *command, env={**env, "AIRFLOW__ECS_QUEUE__BROKER_URL": url})
    assert time.monotonic() - start < 5
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1
    assert words in done.stderr
    assert "hunter2" not in done.stderr


def test_a_wrong_password_is_a_sentence_that_shows_none(invoke: Invoke, no_worker_environ: Mapping[str, str]) -> None:
    with RedisServer(binary=require_redis_binary()) as server:
        with redis.Redis(port=server.port) as client:
            client.config_set("requirepass", "correct-horse")
        for url in (f"redis://:hunter2@127.0.0.1:{server.port}/0", f"redis://me:hunter2@127.0.0.1:{server.port}/0"):
            for command in (["submit", "--", "true"], ["status"], ["worker"]):
                done = invoke("--log-level", "debug", "--broker-url", url, *command, env=no_worker_environ)
                assert done.exit_code == 2
                assert "invalid username-password pair" in done.stderr
                assert "hunter2" not in done.stderr
        good = f"redis://:correct-horse@127.0.0.1:{server.port}/0"
        assert invoke("--broker-url", good, "submit", "--", "true", env=no_worker_environ).exit_code == 0


# Waiting


def test_the_exit_status_of_one_command_is_its_own(deployment: Deployment) -> None:
    done = deployment.run("submit", "--wait", "--json", "--", "sh", "-c", "exit 3")
    assert done.returncode == 3
    assert done.stderr == ""
    line = json_lines(done.stdout)[0]
    assert tuple(line) == RESULT_LINE_FIELDS
    assert (line["state"], line["exit_code"], line["attempts"]) == ("FAILED", 3, 1)


def test_without_json_the_result_is_printed_as_fields(deployment: Deployment) -> None:
    done = deployment.run("submit", "--wait", "--id", "in-words", "--", "true")
    assert done.returncode == 0
    shown = dict(line.split("  ", 1) for line in done.stdout.splitlines())
    assert {name: value.strip() for name, value in shown.items() if name in ("state", "exit code", "id")} == {
        "state": "SUCCESS",
        "exit code": "0",
        "id": "in-words",
    }
    assert shown["task"].strip().startswith("arn:aws:ecs:")
    assert shown["attempts"].strip() == "1"
    assert {"ran", "took", "reason"} <= set(shown)


def test_a_program_that_does_not_exist_is_removed_after_its_attempts_with_status_1(deployment: Deployment) -> None:
    done = deployment.run("submit", "--wait", "--json", "--", "/no/such/program")
    assert done.returncode == 1
    line = json_lines(done.stdout)[0]
    assert (line["state"], line["exit_code"], line["attempts"]) == ("REMOVED", None, 3)
    assert "CannotStartContainerError" in line["reason"]


def test_a_file_gives_exactly_one_result_line_a_request(deployment: Deployment, tmp_path: Path) -> None:
    tasks = [{"id": f"file-{n}", "command": ["sh", "-c", f"exit {n % 4}"]} for n in range(40)]
    output = tmp_path / "results.jsonl"
    output.write_text("of the last run\n")
    file = task_file(tmp_path, *tasks)
    done = deployment.run("submit", "--file", str(file), "--wait", "--output", str(output))
    assert (done.returncode, done.stdout) == (1, "")
    counts, *named, more = done.stderr.splitlines()
    assert counts == "40 ended: 30 FAILED, 10 SUCCESS"
    assert len(named) == 20
    assert all("ended as FAILED" in line for line in named)
    assert more == "ecs-queue: 10 more failed: their result lines name them"
    lines = json_lines(output.read_text())
    assert sorted(line["id"] for line in lines) == sorted(str(task["id"]) for task in tasks)
    assert all(line["exit_code"] == int(line["id"].split("-")[1]) % 4 for line in lines)


def test_a_file_of_successes_is_status_0_with_its_lines_on_stdout(deployment: Deployment) -> None:
    data = b'{"command": ["true"]}\n{"command": ["sh", "-c", "test \\"$1\\" = \\"\xc3\xbc\xf0\x9f\x9a\x80\\"", "sh", "'
    data += "ü🚀".encode() + b'"]}\n'
    done = deployment.run("submit", "--file", "-", "--wait", input=data)
    assert (done.returncode, done.stderr) == (0, "2 ended: 2 SUCCESS\n")
    assert [line["state"] for line in json_lines(done.stdout)] == ["SUCCESS", "SUCCESS"]


def test_the_same_file_again_gives_the_same_results(deployment: Deployment, tmp_path: Path) -> None:
    file = task_file(tmp_path, *({"id": f"twice-{n}", "command": ["true"]} for n in range(3)))
    first, second = (deployment.run("submit", "--file", str(file), "--wait") for _ in range(2))
    assert (first.returncode, second.returncode) == (0, 0)

    def arns(text: str) -> dict[str, str]:
        return {line["id"]: line["task_arn"] for line in json_lines(text)}

    assert arns(first.stdout) == arns(second.stdout)


def test_a_timeout_is_status_124_and_the_request_goes_on(deployment: Deployment) -> None:
    done = deployment.run("submit", "--wait", "--timeout", "0.3", "--id", "too-slow", "--", "sleep", "30")
    assert (done.returncode, done.stdout) == (124, "")
    assert "too-slow has not ended within 0.3 s; the request goes on: ecs-queue status too-slow" in done.stderr
    assert "too-slow: will be stopped" in deployment.run("stop", "too-slow").stdout


@pytest.fixture
def waiting(deployment: Deployment, tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A `submit --file --wait` of one task that has ended and one that goes on."""
    ids = [f"{tmp_path.name}-{kind}"[-48:] for kind in ("short", "long")]
    file = task_file(tmp_path, {"id": ids[0], "command": ["true"]}, {"id": ids[1], "command": ["sleep", "30"]})
    process = deployment.start("submit", "--file", str(file), "--wait", "--output", str(tmp_path / "results.jsonl"))
    try:
        wait_until(lambda: (tmp_path / "results.jsonl").exists(), "the output is opened", 20)
        wait_until(lambda: bool((tmp_path / "results.jsonl").read_text()), "a result", 20)
        yield process
    finally:
        process.kill()
        process.communicate()
        deployment.run("stop", ids[1])


def test_ctrl_c_while_waiting_says_that_the_requests_go_on(
    deployment: Deployment, waiting: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    waiting.send_signal(signal.SIGINT)
    _, said = waiting.communicate(timeout=20)
    assert waiting.returncode == 130
    assert "interrupted; the 2 submitted requests go on: ecs-queue tasks, ecs-queue stop ID" in said.decode()
    assert "Traceback" not in said.decode()
    assert len(json_lines((tmp_path / "results.jsonl").read_text())) == 1


def test_a_queue_that_no_worker_serves_is_reported_without_waiting_too(
    invoke: Invoke, no_worker_environ: Mapping[str, str], tmp_path: Path
) -> None:
    with EcsQueue.from_config(environ=no_worker_environ, owner="") as client:
        client.ledger.heartbeat(make_worker_info(queues=["etl_large"]), 15)
    done = invoke("submit", "--queue", "etl-lagre", "--", "true", env=no_worker_environ)
    assert (done.exit_code, done.stdout.count("\n")) == (0, 1)
    assert "no live worker serves queue etl_lagre; did you mean etl_large? Or start one" in done.stderr
    assert invoke("submit", "--queue", "etl_large", "--", "true", env=no_worker_environ).stderr == ""
    file = task_file(tmp_path, {"command": ["true"], "queue": "lonely"})
    assert "serves queue lonely; start one" in invoke("submit", "-f", str(file), env=no_worker_environ).stderr


def test_a_queue_without_a_worker_is_reported(deployment: Deployment) -> None:
    done = deployment.run("submit", "--queue", "lonely", "--id", "alone", "--wait", "--timeout", "0.2", "--", "true")
    with deployment.make_client() as queue:  # the doctor would report it to the tests that come later
        queue.stop("alone")
    assert done.returncode == 124
    assert "no live worker serves queue lonely; start one: ecs-queue worker --queues lonely" in done.stderr


def test_a_server_that_restarts_does_not_end_the_wait(no_worker_environ: Mapping[str, str], tmp_path: Path) -> None:
    server = RedisServer(binary=require_redis_binary(), data_dir=tmp_path, appendonly="always")
    with server:
        environ = {**no_worker_environ, "AIRFLOW__ECS_QUEUE__BROKER_URL": server.url}
        command = [*CLI_COMMAND, "submit", "--wait", "--json", "--id", "patient", "--", "true"]
        process = subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        try:
            wait_until(lambda: queued(environ) == ["patient"], "it is submitted", 20)
            server.kill()
            assert process.stderr is not None
            said = [""]
            while "the ledger failed" not in said[-1]:
                said.append(process.stderr.readline().decode())
                assert said[-1], said
            server.start()
            with EcsQueue.from_config(environ=environ, owner="") as client:
                client.stop("patient")
            out, _ = process.communicate(timeout=20)
        finally:
            process.kill()
            process.communicate()
    assert process.returncode == 1
    assert json_lines(out.decode())[0]["state"] == "REVOKED"
