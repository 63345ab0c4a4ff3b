"""`wait`: the ends of requests that were submitted earlier."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from ecs_queue.cli import wait as wait_module
from tests.cli.conftest import Deployment, Invoke, json_lines
from tests.wait import wait_until


def test_the_exit_status_is_the_containers_and_the_result_is_printed(deployment: Deployment) -> None:
    assert deployment.run("submit", "--id", "wait-3", "--", "sh", "-c", "echo oops; exit 3").returncode == 0
    done = deployment.run("wait", "wait-3")
    assert done.returncode == 3, done.stderr
    assert "FAILED" in done.stdout
    assert "oops" in done.stdout, "its last lines say why"
    again = deployment.run("wait", "wait-3", "--json")
    assert again.returncode == 3
    (line,) = json_lines(again.stdout)
    assert (line["id"], line["state"], line["exit_code"]) == ("wait-3", "FAILED", 3)
    by_task = deployment.run("wait", line["task_arn"], "--json")
    assert json_lines(by_task.stdout) == [line]


def test_of_several_each_has_its_line_and_all_must_succeed(deployment: Deployment) -> None:
    for name, command in (("wait-a", "true"), ("wait-b", "false"), ("wait-c", "true")):
        assert deployment.run("submit", "--id", name, "--", command).returncode == 0
    done = deployment.run("wait", "wait-a", "wait-b", "wait-c", "wait-a")
    assert done.returncode == 1
    states = {line["id"]: line["state"] for line in json_lines(done.stdout)}
    assert states == {"wait-a": "SUCCESS", "wait-b": "FAILED", "wait-c": "SUCCESS"}
    assert deployment.run("wait", "wait-a", "wait-c").returncode == 0


def test_its_output_can_be_followed(deployment: Deployment) -> None:
    assert deployment.run("submit", "--id", "wait-logs", "--", "echo", "hello").returncode == 0
    done = deployment.run("wait", "wait-logs", "--logs")
    assert (done.returncode, done.stdout) == (0, "hello\n")
    assert "wait-logs ended as SUCCESS" in done.stderr


def test_waiting_takes_no_result_away_from_its_owner(deployment: Deployment) -> None:
    """Neither the one who waits first, nor the client that submitted it."""
    submitting = deployment.start("submit", "--wait", "--json", "--id", "wait-owned", "--", "true")
    try:
        with deployment.make_client() as client:
            wait_until(lambda: client.ledger.get(["wait-owned"])[0] is not None, "it is submitted")
        assert deployment.run("wait", "wait-owned").returncode == 0
        out, _ = submitting.communicate(timeout=60)
    finally:
        submitting.kill()
    assert submitting.returncode == 0
    assert json_lines(out.decode())[0]["state"] == "SUCCESS"


def test_a_timeout_leaves_the_request_alone(invoke: Invoke, no_worker_environ: Mapping[str, str]) -> None:
    assert invoke("submit", "--id", "waits", "--", "true", env=no_worker_environ).exit_code == 0
    done = invoke("wait", "waits", "--timeout", "0.2", env=no_worker_environ)
    assert (done.exit_code, done.stdout) == (124, "")
    assert "waits has not ended within 0.2 s; the request goes on: ecs-queue status waits" in done.stderr
    assert "no live worker serves queue default; start one" in done.stderr  # why it waits
    assert invoke("submit", "--id", "too", "--", "true", env=no_worker_environ).exit_code == 0
    assert invoke("wait", "waits", "too", "--timeout", "0.2", env=no_worker_environ).exit_code == 124


def test_ctrl_c_ends_only_the_waiting(
    invoke: Invoke, no_worker_environ: Mapping[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert invoke("submit", "--id", "waits", "--", "true", env=no_worker_environ).exit_code == 0

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(wait_module, "wait_for_one", interrupt)
    done = invoke("wait", "waits", env=no_worker_environ)
    assert (done.exit_code, done.stdout) == (130, "")
    assert "interrupted; the request goes on: ecs-queue status waits, ecs-queue stop waits" in done.stderr
    assert "QUEUED" in invoke("status", "waits", env=no_worker_environ).stdout


@pytest.mark.parametrize(
    ("arguments", "status", "sentence"),
    [
        ([], 2, "ID"),
        (["waits", "TYPO"], 1, "no request TYPO is known"),
        (["two words"], 2, "nothing was awaited"),
        (["arn:aws:ecs:eu-west-1:123456789012:task/prod/nope"], 2, "nothing was awaited"),
        (["waits", "other", "--logs"], 2, "--logs prints the output of one request"),
        (["waits", "--logs", "--json"], 2, "--logs prints the output of one request"),
    ],
)
def test_what_is_not_known_is_not_awaited(
    invoke: Invoke, no_worker_environ: Mapping[str, str], arguments: list[str], status: int, sentence: str
) -> None:
    assert invoke("submit", "--id", "waits", "--", "true", env=no_worker_environ).exit_code == 0
    done = invoke("wait", *arguments, env=no_worker_environ)
    assert (done.exit_code, done.stdout) == (status, "")
    assert sentence in done.stderr
