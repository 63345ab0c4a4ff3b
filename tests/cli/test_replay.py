"""`replay ID`: the same request again, as a new one, on this machine, or compared with what was sent."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from ecs_queue.cli.ui.options import open_journal_reader
from ecs_queue.client.client import EcsQueue
from ecs_queue.journal.base import newest_envelope
from ecs_queue.messages.envelope import decode_request
from ecs_queue.messages.request import TaskRequest
from tests.cli.conftest import PYTHON, Deployment, Invoke, json_lines, run_failing_request
from tests.wait import wait_until

_SCRIPT = 'echo "hello $WHO, $DB_PASSWORD"; echo oops >&2; test -z "$SECRET_OF_THE_SHELL" || exit 9; exit 3'
_CONFIG = {
    "cpu": 256,
    "environment": [{"name": "WHO", "value": "wörld"}, {"name": "DB_PASSWORD", "value": "hunter2"}],
}


@pytest.fixture
def client(no_worker_environ: dict[str, str]) -> Iterator[EcsQueue]:
    with EcsQueue.from_config(environ=no_worker_environ, owner="") as queue:
        yield queue


@pytest.fixture(scope="module")
def past(deployment: Deployment) -> Deployment:
    """The installation, with a request `broken` in its past."""
    run_failing_request(deployment, "broken", ["sh", "-c", _SCRIPT], _CONFIG)
    return deployment


def request_of(queue: EcsQueue, record_id: str) -> TaskRequest:
    record = queue.ledger.get_with_payload([record_id])[0]
    assert record is not None
    return decode_request(record.request)


class TestLocal:
    def test_a_failure_of_the_stack_is_the_same_here_with_its_output_and_exit_code(self, past: Deployment) -> None:
        past = Deployment({**past.environ, "SECRET_OF_THE_SHELL": "1"})
        done = past.run("replay", "broken", "--local", "--env", "DB_PASSWORD=hunter2", "--env", "WHO=wörld")
        assert done.returncode == 3
        assert done.stdout == "hello wörld, hunter2\n"
        assert "oops\n" in done.stderr
        assert "not here: what task definition local supplies" in done.stderr
        assert "WHO, DB_PASSWORD" in done.stderr
        assert "hunter2" not in done.stderr

    def test_with_json_the_output_goes_to_stderr_and_an_object_to_stdout(self, past: Deployment) -> None:
        done = past.run("replay", "broken", "--local", "--env", "DB_PASSWORD=x", "--env", "WHO=you", "--json")
        (line,) = json_lines(done.stdout)
        assert (done.returncode, line["id"], line["exit_code"]) == (3, "broken", 3)
        assert "hello you, x\n" in done.stderr

    def test_what_the_journal_has_redacted_must_be_given(self, past: Deployment) -> None:
        done = past.run("replay", "broken", "--local")
        assert (done.returncode, done.stdout) == (2, "")
        assert "the journal does not keep these values; give --env DB_PASSWORD=... --env WHO=..." in done.stderr
        assert "To have the journal keep it for later requests, set encryption_keys" in done.stderr
        assert "or another journal_redaction" in done.stderr
        ours = Deployment({**past.environ, "DB_PASSWORD": "of this shell"})
        arguments = ("replay", "broken", "--local", "--env", "DB_PASSWORD", "--env", "WHO=x")
        assert "of this shell" in ours.run(*arguments).stdout

    def test_a_request_that_still_waits_runs_from_the_ledger(
        self, invoke: Invoke, no_worker_environ: Mapping[str, str], client: EcsQueue, tmp_path: Path
    ) -> None:
        made = tmp_path / "made"
        client.submit(["sh", "-c", f'echo "$TOKEN" > {made}'], id="waits", executor_config={"environment": _TOKEN})
        done = invoke("replay", "waits", "--local", env=no_worker_environ)
        assert done.exit_code == 0, done.stderr
        assert made.read_text() == "hunter2\n"
        record = client.ledger.get(["waits"])[0]
        assert record is not None
        assert record.state == "QUEUED"

    @pytest.mark.parametrize(("command", "status"), [(["/no/such/program"], 127), (["/"], 126)])
    def test_a_command_that_cannot_be_started_is_reported(
        self, invoke: Invoke, no_worker_environ: Mapping[str, str], client: EcsQueue, command: list[str], status: int
    ) -> None:
        client.submit(command, id="waits")
        done = invoke("replay", "waits", "--local", env=no_worker_environ)
        assert done.exit_code == status
        assert "program cannot be started here" in done.stderr

    def test_a_signal_is_passed_on_and_is_the_exit_code(
        self, no_worker_environ: dict[str, str], client: EcsQueue
    ) -> None:
        command = [PYTHON, "-u", "-c", "import time; print('up'); time.sleep(60)"]
        client.submit(command, id="waits")
        process = Deployment({**dict_of_environ(), **no_worker_environ}).start("replay", "waits", "--local")
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"up\n"
            process.send_signal(signal.SIGTERM)
            assert process.wait(20) == 128 + signal.SIGTERM
        finally:
            end(process)


_TOKEN = [{"name": "TOKEN", "value": "hunter2"}]


def dict_of_environ() -> dict[str, str]:
    import os

    return dict(os.environ)


def end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.kill()
    process.communicate()


class TestSubmit:
    def test_it_runs_again_as_a_new_request_that_names_its_origin(self, invoke: Invoke, past: Deployment) -> None:
        values = ("--env", "DB_PASSWORD=hunter2", "--env", "WHO=you")
        done = invoke("replay", "broken", "--submit", *values, "--json", env=past.environ)
        (line,) = json_lines(done.stdout)
        assert (line["origin"], line["queue"]) == ("broken", "default")
        assert line["id"].startswith("broken-r-")
        with past.make_client() as queue:
            result = queue.handle(line["id"]).result(timeout=30)
            assert (result.state, result.exit_code) == ("FAILED", 3)
            with open_journal_reader(queue.config) as journal:
                wait_until(
                    lambda: newest_envelope(journal.request_events(line["id"])) is not None, "the journal has it", 20
                )
                again = json.loads(newest_envelope(journal.request_events(line["id"])) or b"")
        assert (again["origin"], again["command"]) == ("broken", ["sh", "-c", _SCRIPT])

    def test_it_is_changed_as_asked(
        self, invoke: Invoke, no_worker_environ: Mapping[str, str], client: EcsQueue
    ) -> None:
        client.submit(["run"], id="job", executor_config=_CONFIG, priority=2, expires_in=60.0)
        changes = ["--set", "cpu=512", "--set", "memory=64", "--set", "priority=9", "--set", "expires_in=null"]
        done = invoke(
            *("replay", "job", "--submit", "--queue", "big", "--id", "mine", "--env", "WHO=you", *changes),
            env=no_worker_environ,
        )
        assert (done.exit_code, done.stdout) == (0, "mine\n")
        request = request_of(client, "mine")
        (container,) = (request.executor_config or {})["overrides"]["containerOverrides"]
        assert (container["cpu"], container["memory"]) == (512, 64)
        values = {one["name"]: one["value"] for one in container["environment"]}
        assert values == {"WHO": "you", "DB_PASSWORD": "hunter2"}
        assert (request.queue, request.priority, request.expires_in, request.origin) == ("big", 9, None, "job")

    @pytest.mark.parametrize(
        ("value", "key"), [("7", "7"), ("true", "true"), ('"7"', "7"), ("null", None), ("customer 8", "customer 8")]
    )
    def test_a_concurrency_key_is_text_whatever_it_looks_like(
        self,
        value: str,
        key: str | None,
        invoke: Invoke,
        no_worker_environ: Mapping[str, str],
        client: EcsQueue,
    ) -> None:
        client.submit(["run"], id="job", concurrency_key="customer 7")
        change = f"concurrency_key={value}"
        done = invoke("replay", "job", "--submit", "--id", "mine", "--set", change, env=no_worker_environ)
        assert (done.exit_code, done.stdout) == (0, "mine\n")
        assert request_of(client, "mine").concurrency_key == key

    def test_a_missing_redacted_value_submits_nothing(self, invoke: Invoke, past: Deployment) -> None:
        before = invoke("tasks", "--counts", "--json", env=past.environ).stdout
        done = invoke("replay", "broken", "--submit", env=past.environ)
        assert done.exit_code == 2
        assert "give --env DB_PASSWORD=..." in done.stderr
        assert invoke("tasks", "--counts", "--json", env=past.environ).stdout == before

    def test_a_change_that_ecs_does_not_know_submits_nothing(
        self, invoke: Invoke, no_worker_environ: Mapping[str, str], client: EcsQueue
    ) -> None:
        client.submit(["run"], id="job")
        done = invoke("replay", "job", "--submit", "--set", "colour=red", env=no_worker_environ)
        assert done.exit_code == 2
        assert "colour" in done.stderr
        assert client.backlog("default") == 1


class TestExplain:
    def test_without_a_change_it_is_identical_and_status_0(self, invoke: Invoke, past: Deployment) -> None:
        done = invoke("replay", "broken", "--explain", env=past.environ)
        assert (done.exit_code, done.stdout) == (0, "")
        assert "the same would be sent now as in launch 1 of broken" in done.stderr

    def test_differences_are_a_diff_without_secrets_and_status_1(self, invoke: Invoke, past: Deployment) -> None:
        changed = Deployment({**past.environ, "AIRFLOW__AWS_ECS_EXECUTOR__TASK_DEFINITION": "newer"})
        done = invoke("replay", "broken", "--explain", "--set", "cpu=512", "--env", "WHO=you", env=changed.environ)
        assert done.exit_code == 1
        lines = [line.replace(" ", "") for line in done.stdout.splitlines()]
        for line in ('-"cpu":256,', '+"cpu":512,', '-"taskDefinition":"local"'):
            assert line in lines
        assert "wörld" not in done.stdout
        assert "hunter2" not in done.stdout + done.stderr
        (facts,) = json_lines(invoke("replay", "broken", "--explain", "--json", env=changed.environ).stdout)
        assert (facts["identical"], facts["launch"]) == (False, 1)
        assert facts["previous"]["run_task"]["taskDefinition"] == "local"
        assert facts["current"]["run_task"]["taskDefinition"] == "newer"

    def test_a_changed_secret_is_marked_though_neither_value_is_shown(self) -> None:
        from ecs_queue.cli.replay_explain import _mark_changed_secrets
        from ecs_queue.journal.redact import redact

        then = {"environment": [{"name": "DAY", "value": "1"}, {"name": "TOKEN", "value": "old"}]}
        now = {"environment": [{"name": "TOKEN", "value": "new"}]}
        assert _mark_changed_secrets(redact(now), then, now) == {
            "environment": [{"name": "TOKEN", "value": "[redacted] (another value)"}]
        }
        assert _mark_changed_secrets(redact(now), now, now) == redact(now)

    def test_a_value_with_a_line_separator_is_one_line_of_the_diff(self) -> None:
        from ecs_queue.cli.replay_explain import Comparison, diff_lines

        comparison = Comparison("job", "default", {"command": ["a\u2028b"]}, {"command": ["a"]}, 1, 0.0)
        lines = [line.strip() for line in diff_lines(comparison)]
        assert lines[3:] == ["{", '"command": [', '-    "a"', '+    "a\u2028b"', "]", "}"]

    def test_what_was_never_launched_shows_what_would_be_sent(
        self, invoke: Invoke, no_worker_environ: Mapping[str, str], client: EcsQueue
    ) -> None:
        client.submit(["run"], id="job", executor_config=_CONFIG)
        done = invoke("replay", "job", "--explain", env=no_worker_environ)
        assert done.exit_code == 0
        assert "was never launched" in done.stderr
        assert json.loads(done.stdout)["run_task"]["overrides"]["containerOverrides"][0]["command"] == ["run"]
        assert "hunter2" not in done.stdout


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["job"], "expected one of --submit, --local, --explain, found none"),
        (["job", "--submit", "--local"], "found --submit and --local"),
        (["job", "--offline"], "found --offline"),
        (["job", "--local", "--set", "cpu=1"], "--set has no effect with --local"),
        (["job", "--explain", "--id", "x"], "--id has no effect with --explain"),
        (["job", "--submit", "--speed", "2"], "--speed has no effect with --submit"),
        (["job", "--submit", "--set", "cpu"], "--set: expected KEY=VALUE, such as cpu=512, found 'cpu'"),
        (["job", "--submit", "--env", "NO_SUCH_VARIABLE_HERE"], "this shell's environment has no NO_SUCH_VARIABLE"),
        (["no/such.jsonl", "--offline"], "none at no/such.jsonl"),
        (["never-submitted", "--local"], "no request never-submitted is known"),
    ],
)
def test_invalid_options_are_one_sentence_and_do_nothing(
    invoke: Invoke, no_worker_environ: Mapping[str, str], arguments: list[str], sentence: str
) -> None:
    done = invoke("replay", *arguments, env=no_worker_environ)
    assert (done.exit_code, done.stdout) == (2, "")
    assert sentence in done.stderr
