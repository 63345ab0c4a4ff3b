"""`retry`: requests that ended without a success, once more."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from ecs_queue.cli.retry import FAILED_STATE_NAMES
from ecs_queue.client.client import EcsQueue
from ecs_queue.messages.envelope import decode_request
from ecs_queue.protocol.states import State
from ecs_queue.replay.retry import RETRYABLE_STATES
from tests.cli.conftest import Deployment, Invoke, json_lines, run_failing_request

_CONFIG = {"cpu": 256, "environment": [{"name": "DB_PASSWORD", "value": "hunter2"}]}
_FAILS = ["sh", "-c", "exit 3"]


@pytest.fixture(scope="module")
def past(deployment: Deployment) -> Deployment:
    """The installation, with two requests in its past that have failed with exit 3."""
    run_failing_request(deployment, "retry-a", _FAILS, {"cpu": 512})
    run_failing_request(deployment, "retry-secret", _FAILS, _CONFIG)
    return deployment


def test_the_states_of_the_option_are_the_ends_without_success() -> None:
    assert {State(name) for name in FAILED_STATE_NAMES} == RETRYABLE_STATES


def test_a_failed_request_runs_again_under_an_id_that_follows_from_it(past: Deployment) -> None:
    done = past.run("retry", "retry-a")
    assert (done.returncode, done.stderr) == (0, "")
    new_id = done.stdout.strip()
    assert new_id.startswith("retry-a-r-")
    assert past.run("wait", new_id).returncode == 3
    request = decode_request(past.run("journal", "show", new_id, "--envelope").stdout.encode())
    assert (request.origin, request.command, request.executor_config) == ("retry-a", _FAILS, {"cpu": 512})
    again = past.run("retry", "retry-a", "--json")
    assert again.returncode == 0
    assert [(line["id"], line["result"]) for line in json_lines(again.stdout)] == [(new_id, "earlier")]
    assert f"retry-a was retried already, as {new_id}, which is FAILED" in again.stderr
    next_id = past.run("retry", new_id).stdout.strip()
    assert next_id.startswith("retry-a-r-")
    assert next_id != new_id


def test_what_the_journal_does_not_keep_must_be_given(past: Deployment) -> None:
    refused = past.run("retry", "retry-secret", "--json")
    assert refused.returncode == 1
    assert [line["result"] for line in json_lines(refused.stdout)] == ["refused"]
    assert "retry-secret is not retried: the journal does not keep these values" in refused.stderr
    assert "give --env DB_PASSWORD=..." in refused.stderr
    done = past.run("retry", "retry-secret", "--env", "DB_PASSWORD=hunter3", "--env", "MORE=1")
    assert done.returncode == 0, done.stderr
    assert past.run("wait", done.stdout.strip()).returncode == 3


def test_a_selection_is_listed_first_and_then_submitted_once(deployment: Deployment) -> None:
    run_failing_request(deployment, "retry-many", _FAILS, {})
    arguments = ("retry", "--state", "failed", "--since", "1h")
    listed = deployment.run(*arguments)
    assert "retry-many  FAILED  default" in listed.stdout
    assert "would be submitted once more; dry run: nothing was done, --yes does it" in listed.stderr

    def lines(*more: str) -> dict[str, dict[str, object]]:
        return {line["origin"]: line for line in json_lines(deployment.run(*arguments, "--json", *more).stdout)}

    selected = lines()["retry-many"]
    assert selected["result"] == "selected"
    assert lines("--yes")["retry-many"] == {**selected, "result": "submitted"}
    assert deployment.run("wait", str(selected["id"])).returncode == 3
    assert lines("--yes")["retry-many"]["result"] == "earlier"


def test_only_what_failed_is_retried_and_the_others_of_the_call_are(past: Deployment) -> None:
    assert past.run("submit", "--wait", "--id", "retry-good", "--", "true").returncode == 0
    done = past.run("retry", "retry-good", "retry-a", "TYPO")
    assert done.returncode == 1
    assert "retry-good is not retried: it succeeded" in done.stderr
    assert "no request TYPO is known" in done.stderr
    assert done.stdout.startswith("retry-a-r-")


def test_what_waits_and_what_is_airflows_is_not_retried(invoke: Invoke, no_worker_environ: Mapping[str, str]) -> None:
    assert invoke("submit", "--id", "waits", "--", "true", env=no_worker_environ).exit_code == 0
    with EcsQueue.from_config(environ=no_worker_environ, owner="airflow-1") as client:
        client.submit(["true"], id="of-airflow")
        client.stop("of-airflow")
    done = invoke("retry", "waits", "of-airflow", env=no_worker_environ)
    assert (done.exit_code, done.stdout) == (1, "")
    assert "waits is not retried: it has not ended: it is QUEUED" in done.stderr
    assert "of-airflow is not retried: it is a task of Airflow" in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [[], ["a", "--state", "failed"], ["a", "--yes"], ["a", "--queue", "etl"], ["a", "--since", "1h"]],
)
def test_wrong_usage_submits_nothing(invoke: Invoke, arguments: list[str]) -> None:
    done = invoke("retry", *arguments)
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1
