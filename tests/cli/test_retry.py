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
    run_failing_request(deployment, "retry-a", _FAILS, {})
    run_failing_request(deployment, "retry-secret", _FAILS, _CONFIG)
    return deployment


def test_the_states_of_the_option_are_the_ends_without_success() -> None:
    assert {State(name) for name in FAILED_STATE_NAMES} == RETRYABLE_STATES


def test_a_failed_request_runs_again_under_an_id_that_follows_from_it(deployment: Deployment) -> None:
    run_failing_request(deployment, "retry-b", _FAILS, {"cpu": 512})
    done = deployment.run("retry", "retry-b")
    assert (done.returncode, done.stderr) == (0, "")
    new_id = done.stdout.strip()
    assert new_id.startswith("retry-b-r-")
    assert deployment.run("wait", new_id).returncode == 3
    request = decode_request(deployment.run("journal", "show", new_id, "--envelope").stdout.encode())
    assert (request.origin, request.command, request.executor_config) == ("retry-b", _FAILS, {"cpu": 512})
    again = deployment.run("retry", "retry-b", "--json")
    assert again.returncode == 0
    assert [(line["id"], line["result"]) for line in json_lines(again.stdout)] == [(new_id, "earlier")]
    assert f"retry-b was retried already, as {new_id}, which is FAILED" in again.stderr
    next_id = deployment.run("retry", new_id).stdout.strip()
    assert next_id.startswith("retry-b-r-")
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


def test_one_reason_for_many_requests_is_said_once_with_their_number(
    invoke: Invoke, no_worker_environ: Mapping[str, str]
) -> None:
    with EcsQueue.from_config(environ=no_worker_environ, owner="airflow-1") as client:
        handles = client.submit_many({"command": ["true"], "id": f"task-{number}"} for number in range(7))
        client.stop_many([handle.id for handle in handles])
    assert invoke("submit", "--id", "waits", "--", "true", env=no_worker_environ).exit_code == 0

    done = invoke("retry", "--state", "revoked", env=no_worker_environ)

    assert done.exit_code == 1
    (reason, summary) = done.stderr.splitlines()
    assert reason.startswith("ecs-queue: 7 requests (task-")
    assert " and 2 more) are not retried: it is a task of Airflow" in reason
    assert summary.startswith("0 requests would be submitted")
    lines = json_lines(invoke("retry", "--state", "revoked", "--json", env=no_worker_environ).stdout)
    assert {line["origin"] for line in lines if "Airflow" in line["problem"]} == {handle.id for handle in handles}
    named = invoke("retry", "task-0", "waits", "NO-1", "NO-2", env=no_worker_environ).stderr.splitlines()
    assert [line.split(":")[1].split(" is not retried")[0].strip() for line in named] == [
        "no request NO-1 is known",
        "no request NO-2 is known",
        "the journal may have what is not known",
        "task-0",
        "waits",
    ]


def test_what_no_journal_has_is_refused_once_for_all(invoke: Invoke, no_worker_environ: Mapping[str, str]) -> None:
    environ = {**no_worker_environ, "AIRFLOW__ECS_QUEUE__JOURNAL": "off"}
    with EcsQueue.from_config(environ=environ, owner="") as client:
        client.submit_many({"command": ["true"], "id": f"job-{number}"} for number in range(3))
        client.stop_many([f"job-{number}" for number in range(3)])

    refused = invoke("retry", "--state", "revoked", env=environ).stderr.splitlines()

    assert len(refused) == 2
    assert refused[0].startswith("ecs-queue: 3 requests (job-")
    assert "are not retried: it has ended (REVOKED)" in refused[0]


@pytest.mark.parametrize(
    "arguments",
    [[], ["a", "--state", "failed"], ["a", "--yes"], ["a", "--queue", "etl"], ["a", "--since", "1h"]],
)
def test_wrong_usage_submits_nothing(invoke: Invoke, arguments: list[str]) -> None:
    done = invoke("retry", *arguments)
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1
