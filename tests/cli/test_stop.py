"""What `stop` says of each id."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
from msgspec.structs import replace

from ecs_queue.cli import stop as stop_module
from ecs_queue.protocol.record import Record
from ecs_queue.protocol.states import State
from tests.cli.conftest import Deployment, Invoke, json_lines, task_file
from tests.wait import wait_until


def test_stop_reports_what_happened_to_each_id(invoke: Invoke, no_worker_environ: Mapping[str, str]) -> None:
    assert invoke("submit", "--id", "waits", "--", "true", env=no_worker_environ).exit_code == 0
    done = invoke("stop", "--ahead", "waits", "later", "waits", env=no_worker_environ)
    assert done.exit_code == 0
    assert done.stdout.splitlines() == [
        "waits: revoked before its launch",
        "later: not known yet; it is revoked if it arrives within 1 d",
    ]
    again = json_lines(invoke("stop", "waits", "--json", env=no_worker_environ).stdout)
    assert again == [{"id": "waits", "state": "REVOKED", "result": "ended"}]
    assert "had ended already: REVOKED" in invoke("stop", "waits", env=no_worker_environ).stdout


def test_a_misspelt_id_ends_with_1_and_writes_nothing(invoke: Invoke, no_worker_environ: Mapping[str, str]) -> None:
    assert invoke("submit", "--id", "waits", "--", "true", env=no_worker_environ).exit_code == 0
    for arguments in (["TYPO"], ["TYPO", "waits"], ["waits", "TYPO", "--json"]):
        done = invoke("stop", *arguments, env=no_worker_environ)
        assert done.exit_code == 1
        assert "TYPO" in done.stdout
        assert "unknown" in done.stdout or "no such request is known, nothing was done" in done.stdout
    assert invoke("status", "TYPO", env=no_worker_environ).exit_code == 1
    assert "REVOKED" in invoke("status", "waits", env=no_worker_environ).stdout
    assert invoke("submit", "--id", "TYPO", "--", "true", env=no_worker_environ).exit_code == 0
    assert "QUEUED" in invoke("status", "TYPO", env=no_worker_environ).stdout


def test_all_of_a_state_and_queue_are_stopped_after_a_count(
    invoke: Invoke, no_worker_environ: Mapping[str, str], tmp_path: Path
) -> None:
    names = [f"etl-{n}" for n in range(60)]
    file = task_file(tmp_path, *({"id": name, "command": ["true"], "queue": "etl"} for name in names))
    assert invoke("submit", "--file", str(file), env=no_worker_environ).exit_code == 0
    assert invoke("submit", "--id", "other", "--", "true", env=no_worker_environ).exit_code == 0

    def queued() -> list[str]:
        lines = json_lines(invoke("tasks", "--state", "queued", "--json", env=no_worker_environ).stdout)
        return sorted(line["id"] for line in lines)

    counted = invoke("stop", "--state", "queued", "--queue", "etl", env=no_worker_environ)
    assert (counted.exit_code, counted.stdout) == (0, "")
    assert counted.stderr == "60 requests would be stopped; dry run: nothing was done, --yes does it\n"
    assert queued() == sorted([*names, "other"])
    done = invoke("stop", "--queue", "etl", "--yes", "--json", env=no_worker_environ)
    assert sorted(line["id"] for line in json_lines(done.stdout)) == sorted(names)
    assert done.stderr == "60 of 60 were stopped, or will be\n"
    assert queued() == ["other"]


@pytest.mark.parametrize(
    "arguments", [[], ["a", "--queue", "etl"], ["a", "--yes"], ["--state", "queued", "--ahead"], ["--state", "SUCCESS"]]
)
def test_wrong_usage_stops_nothing(invoke: Invoke, arguments: list[str]) -> None:
    done = invoke("stop", *arguments)
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1


def test_an_invalid_id_stops_nothing(invoke: Invoke, no_worker_environ: Mapping[str, str]) -> None:
    assert invoke("submit", "--id", "waits", "--", "true", env=no_worker_environ).exit_code == 0
    for wrong in ("two words", "x" * 49, "arn:aws:ecs:eu-west-1:123456789012:task/prod/nope"):
        done = invoke("stop", "waits", wrong, env=no_worker_environ)
        assert done.exit_code == 2
        assert "nothing was stopped" in done.stderr
    assert "QUEUED" in invoke("status", "waits", env=no_worker_environ).stdout


def test_a_running_task_is_stopped_and_its_real_exit_code_reported(deployment: Deployment) -> None:
    waiting = deployment.start("submit", "--wait", "--json", "--id", "sleeper", "--", "sleep", "60")
    with deployment.make_client() as client:

        def arn() -> str:
            record = client.ledger.get(["sleeper"])[0]
            return record.arn if record is not None and record.last_status == "RUNNING" else ""

        wait_until(lambda: bool(arn()), "the task runs", 20)
        lines = json_lines(deployment.run("stop", arn(), "--json").stdout)
    assert [(line["state"], line["result"]) for line in lines] == [("LAUNCHED", "stopping")]
    out, _ = waiting.communicate(timeout=30)
    assert waiting.returncode == 143
    assert json_lines(out.decode())[0]["state"] == "REVOKED"


def test_a_stop_of_an_airflow_task_says_what_sigterm_does_not_stop(capsys: pytest.CaptureFixture[str]) -> None:
    running = Record(id="a", owner="airflow-7", state=State.LAUNCHED)
    waiting, other = replace(running, state=State.REVOKED), replace(running, owner="results")
    stop_module._note_airflow_tasks([None, waiting, other])
    assert capsys.readouterr().err == ""
    stop_module._note_airflow_tasks([running, running])
    [line] = capsys.readouterr().err.splitlines()
    assert "mark it as failed in Airflow" in line
