"""`local` and `local-ecs` as processes: what they print can be used, and Ctrl-C ends all of it."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError

from ecs_queue.errors import UsageError
from ecs_queue.local.running_stacks import find_environments, publish_environment
from ecs_queue.local.stack import StackOptions
from tests.cli.conftest import Invoke
from tests.processes import CLI_COMMAND, assert_process_ended
from tests.servers import require_redis_binary
from tests.wait import wait_until

pytestmark = [pytest.mark.server, pytest.mark.slow]


@contextmanager
def running(*arguments: str, environ: dict[str, str] | None = None) -> Iterator[subprocess.Popen[bytes]]:
    """A command that stays; killed at the end if it still runs."""
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    process = subprocess.Popen([*CLI_COMMAND, *arguments], env=environ, **pipes)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def until(process: subprocess.Popen[bytes], words: str) -> str:
    """stderr until a line with `words`."""
    assert process.stderr is not None
    said = ""
    while words not in said:
        line = process.stderr.readline().decode()
        assert line, said
        said += line
    return said


def test_local_prints_an_environment_in_which_a_command_runs_and_ctrl_c_ends_it(tmp_path: Path) -> None:
    require_redis_binary()
    environ = {**os.environ, "AWS_SESSION_TOKEN": "it's mine", "TMPDIR": str(tmp_path)}
    with running("local", "--dir", str(tmp_path / "kept"), environ=environ) as process:
        said = until(process, "Ctrl-C here ends everything")
        assert 'eval "$(ecs-queue local env)"' in said
        pids = [int(pid) for pid in re.findall(r"pid (\d+)", said)]
        assert process.stdout is not None
        last = b"export AIRFLOW__AWS_ECS_EXECUTOR__SUBNETS=subnet-local\n"
        script = b"".join(iter(process.stdout.readline, last)) + last
        assert (tmp_path / "kept" / "env.sh").read_bytes() == script
        use = f'eval "$({shlex.join(CLI_COMMAND)} local env)"; "$@"'
        command = [*CLI_COMMAND, "submit", "--wait", "--logs", "--", "sh", "-c", "echo hello; exit 3"]
        done = subprocess.run(["sh", "-c", use, "sh", *command], env=environ, capture_output=True, timeout=60)
        assert (done.returncode, done.stdout) == (3, b"hello\n")
        shown = subprocess.run([*CLI_COMMAND, "local", "env"], env=environ, capture_output=True, timeout=60)
        assert shown.stdout == script
        process.send_signal(signal.SIGINT)
        _, rest = process.communicate(timeout=20)
        assert process.returncode == 0
        assert rest == b"stopping\n"
    for pid in pids:
        assert_process_ended(pid)
    assert [path.read_text() for path in (tmp_path / "kept" / "tasks").iterdir()] == ["hello\n"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["kept"]


def test_the_environments_of_several_stacks_are_told_apart_by_their_ports_and_those_of_killed_ones_are_gone(
    invoke: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    endpoints = [f"http://127.0.0.1:{port}" for port in (8001, 8002)]
    none = invoke("local", "env")
    assert (none.exit_code, none.stdout) == (2, "false\n")
    assert "no local stack of yours is running: start one in another shell" in none.stderr
    with publish_environment({"AWS_ENDPOINT_URL_ECS": endpoints[0]}):
        with publish_environment({"AWS_ENDPOINT_URL_ECS": endpoints[1], "WORD": "it's"}):
            several = invoke("local", "env")
            assert (several.exit_code, several.stdout) == (2, "false\n")
            assert "2 local stacks are running: choose one with --port 8001 or --port 8002" in several.stderr
            assert 'eval "$(ecs-queue local env --port 8001)"' in several.stderr
            chosen = invoke(
                "local", "env", "--port", "8002", env={"AWS_PROFILE": "mine", "ECS_QUEUE_CONFIG": "mine.cfg"}
            )
            lines = chosen.stdout.splitlines()
            assert lines[-2:] == [f"export AWS_ENDPOINT_URL_ECS={endpoints[1]}", "export WORD='it'\"'\"'s'"]
            assert {"unset AWS_PROFILE", "unset ECS_QUEUE_CONFIG"} <= set(lines)
        only = json.loads(invoke("local", "env", "--json").stdout)
        assert only["environment"] == {"AWS_ENDPOINT_URL_ECS": endpoints[0]}
        (directory,) = tmp_path.iterdir()
        (directory / "environment.json").chmod(0o640)
        assert find_environments() == []
    assert list(tmp_path.iterdir()) == []
    with running("local", "--workers", "0", environ={**os.environ, "TMPDIR": str(tmp_path)}) as process:
        until(process, "Ctrl-C here ends everything")
        (environment,) = find_environments()
        with running("local", "--workers", "0", environ={**os.environ, "TMPDIR": str(tmp_path)}) as second:
            until(second, "local env --port ")
        assert find_environments() == [environment]
    assert find_environments() == []


@pytest.mark.parametrize("shell", [name for name in ("sh", "bash", "zsh", "ksh") if name == "sh" or shutil.which(name)])
def test_a_script_that_evaluates_the_environment_of_no_stack_goes_no_further(tmp_path: Path, shell: str) -> None:
    """The text that `eval` gets must fail: of nothing `eval` makes a success, whatever the command's status was."""
    environ = {**os.environ, "TMPDIR": str(tmp_path), "AIRFLOW__ECS_QUEUE__NAMESPACE": "mine"}
    use = f'eval "$({shlex.join(CLI_COMMAND)} local env)"'
    script = f'{use} && echo reached; echo "$? $AIRFLOW__ECS_QUEUE__NAMESPACE"; set -e; {use}; echo reached'
    done = subprocess.run([shell, "-c", script], env=environ, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (1, "1 mine\n")
    assert done.stderr.count("no local stack of yours is running") == 2


@pytest.mark.parametrize(
    "arguments",
    [("env", "--prot", "1"), ("env", "--port", "x"), ("--port", "8001", "env"), ("enw",), ("env", "--namespace", "n")],
    ids=" ".join,
)
def test_a_shell_gets_a_line_that_fails_for_every_mistake(
    invoke: Invoke, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...]
) -> None:
    done = invoke("local", *arguments)
    assert (done.exit_code, done.stdout, done.stderr.count("\n")) == (2, "false\n", 1)
    assert invoke("local", *arguments, "--json").stdout == ""
    monkeypatch.setattr("ecs_queue.cli.local.is_terminal", lambda: True)
    assert invoke("local", *arguments).stdout == ""


def test_the_help_of_local_is_no_line_for_a_shell(invoke: Invoke) -> None:
    for arguments in (("--help",), ("env", "--help")):
        done = invoke("local", *arguments)
        assert (done.exit_code, "false\n" in done.stdout.splitlines(keepends=True)) == (0, False)


def test_local_takes_no_configuration_and_says_how_workers_get_one(invoke: Invoke) -> None:
    done = invoke("local", "--config", "policies.cfg")
    assert done.exit_code == 2
    assert "local takes no --config: it starts its own server and ECS; for workers with a configuration" in done.stderr
    assert "--workers 0" in done.stderr


def test_local_hands_the_time_before_a_start_to_its_ecs(invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[StackOptions] = []

    class Stack:
        def __init__(self, options: StackOptions) -> None:
            given.append(options)

        def start(self, _: object) -> None:
            raise UsageError("enough")

        def stop(self) -> None:
            pass

    monkeypatch.setattr("ecs_queue.local.stack.LocalStack", Stack)
    assert invoke("local", "--provision-seconds", "20-60").exit_code == 2
    assert [options.ecs.provision_seconds for options in given] == [(20.0, 60.0)]


def test_local_starts_a_killed_worker_again_and_prints_json_on_request(tmp_path: Path) -> None:
    require_redis_binary()
    with running("local", "--json", "--workers", "2") as process:
        assert process.stdout is not None
        ready = json.loads(process.stdout.readline())
        assert sorted(ready["workers"]) == ["local-1", "local-2"]
        assert ready["environment"]["AWS_ENDPOINT_URL_ECS"].startswith("http://127.0.0.1:")
        os.kill(ready["workers"]["local-2"], signal.SIGKILL)
        said = until(process, "the worker local-2 ended by itself with status -9; started again (pid ")
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=20)
        assert process.returncode == 0
    assert_process_ended(ready["workers"]["local-1"])
    assert_process_ended(int(said.rpartition("(pid ")[2].partition(")")[0]))


def test_a_local_ecs_prints_its_url_and_answers_boto3_until_it_is_stopped(tmp_path: Path) -> None:
    options = ["--fault", "capacity=1", "--seed", "7", "--log-dir", str(tmp_path), "--stop-timeout", "1"]
    with running("local-ecs", *options) as process:
        assert process.stdout is not None
        url = process.stdout.readline().decode().strip()
        exports = dict(word.split("=") for word in process.stdout.readline().decode().split()[1:])
        assert "runs commands as your user" in until(process, "Ctrl-C ends it")
        names = {name.lower(): value for name, value in exports.items()}
        client = boto3.client("ecs", endpoint_url=url, region_name="us-east-1", **names)
        assert client.describe_clusters(clusters=["local"])["clusters"][0]["status"] == "ACTIVE"
        answer = client.run_task(cluster="local", taskDefinition="local")
        assert [failure["reason"] for failure in answer["failures"]] == ["RESOURCE:CPU"]
        client.close()
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=20)
        assert process.returncode == 0


def test_a_local_ecs_has_the_given_quotas(tmp_path: Path) -> None:
    options = ["--run-task-rate", "0.01", "--run-task-burst", "1", "--log-dir", str(tmp_path)]
    options += ["--json", "--any-access-key"]
    with running("local-ecs", *options) as process:
        assert process.stdout is not None
        url = json.loads(process.stdout.readline())["endpoint_url"]
        client = boto3.client("ecs", endpoint_url=url, region_name="us-east-1")
        override = {"containerOverrides": [{"name": "main", "command": ["true"]}]}
        client.run_task(cluster="local", taskDefinition="local", overrides=override)
        wait_until(lambda: bool(list(tmp_path.iterdir())), "the command has run", 20)
        client.meta.config.retries = {"total_max_attempts": 1}
        with pytest.raises(ClientError, match="ThrottlingException"):
            client.run_task(cluster="local", taskDefinition="local", overrides=override)
        client.close()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--fault", "rain=0.5"], "--fault: expected NAME=PROBABILITY"),
        (["--fault", "throttle=often"], "--fault: expected NAME=PROBABILITY"),
        (["--fault", "throttle"], "--fault: expected NAME=PROBABILITY"),
        (["--fault", "throttle=1.5"], "fault throttle: expected a probability"),
        (["--fault", "operations=1"], "--fault: expected NAME=PROBABILITY"),
        (["--event-fault", "throttle=0.5"], "--event-fault: expected NAME=PROBABILITY"),
        (["--event-fault", "drop=2"], "event fault drop: expected a probability"),
        (["--event-queue-url", "events"], "--event-queue-url: expected a URL"),
        (["--run-task-rate", "0"], "quota rate: expected calls a second > 0"),
        (["--port", "70000"], "--port"),
    ],
)
def test_a_local_ecs_refuses_invalid_options(invoke: Invoke, arguments: list[str], words: str) -> None:
    done = invoke("local-ecs", *arguments)
    assert (done.exit_code, done.stdout) == (2, "")
    assert words in done.stderr
