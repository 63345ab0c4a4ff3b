"""The command `doctor`, on a stack of its own."""

from __future__ import annotations

from collections.abc import Mapping

from tests.cli.conftest import Deployment, Invoke, json_lines


def test_a_stack_in_order_is_exit_status_0_and_its_canary_comes_back(deployment: Deployment) -> None:
    done = deployment.run("doctor", "--json", "--canary")
    lines = json_lines(done.stdout)
    assert done.returncode == 0, done.stdout
    assert set(lines[0]) == {"check", "subject", "severity", "text", "advice"}
    by_check = {line["check"]: line for line in lines}
    assert by_check["canary.result"]["severity"] == "ok"
    assert by_check["canary.result"]["text"].startswith("SUCCESS")
    assert "--canary" not in done.stdout  # nothing is left to test with one
    assert by_check["aws.identity"]["severity"] == "info"  # the local ECS is not AWS
    assert all(line["advice"] for line in lines if line["severity"] in ("warning", "error"))


def test_strict_counts_warnings(deployment: Deployment) -> None:
    """The stack's server keeps nothing on disk, and its times are a test's."""
    assert deployment.run("doctor", "--strict").returncode == 1
    done = deployment.run("doctor")
    assert done.returncode == 0
    assert done.stderr == f"the doctor found {done.stdout.count('WARNING')} warnings: see above\n"


def test_a_canary_that_fails_is_exit_status_1(deployment: Deployment) -> None:
    done = deployment.run("doctor", "--canary", "--canary-command", "sh -c 'exit 3'")
    assert done.returncode == 1
    assert "exit 3" in done.stdout
    assert "-> `ecs-queue status " in done.stdout
    warnings = done.stdout.count("WARNING")
    assert done.stderr.endswith(f"the doctor found 1 error and {warnings} warnings: see above\n")


def test_without_a_worker_the_canary_says_so_and_is_stopped(
    invoke: Invoke, no_worker_environ: Mapping[str, str]
) -> None:
    done = invoke("doctor", "--canary", "--canary-timeout", "1", "--json", env=no_worker_environ)
    assert done.exit_code == 1
    checks = {line["check"]: line for line in json_lines(done.stdout)}
    assert checks["canary.unserved"]["advice"] == "start one: ecs-queue worker --queues default"
    canary = checks["canary.result"]
    assert "it was QUEUED" in canary["text"]
    request = canary["advice"].split("`")[1].split()[-1]
    assert json_lines(invoke("status", request, "--json", env=no_worker_environ).stdout)[0]["state"] == "REVOKED"


def test_only_the_chosen_queues_are_checked(deployment: Deployment) -> None:
    lines = json_lines(deployment.run("doctor", "--json", "--queue", "etl").stdout)
    assert {line["subject"] for line in lines if line["check"].startswith("aws.")} == {"etl"}


def test_a_profile_that_cannot_launch_is_an_error_that_names_the_queue_once(
    invoke: Invoke, no_worker_environ: Mapping[str, str]
) -> None:
    env = {**no_worker_environ, "AIRFLOW__AWS_ECS_EXECUTOR__CLUSTER": ""}
    done = invoke("doctor", "--queue", "etl", env=env)
    assert done.exit_code == 1
    assert "ERROR    etl: expected cluster to be set, found nothing" in done.stdout


def test_an_unreachable_server_is_exit_status_1_and_the_rest_is_checked(deployment: Deployment) -> None:
    done = deployment.run("doctor", "--json", "--broker-url", "redis://127.0.0.1:1/0")
    assert done.returncode == 1
    lines = json_lines(done.stdout)
    assert [line["check"] for line in lines if line["severity"] == "error"] == ["server.reachable"]
    assert any(line["check"] == "aws.permissions" for line in lines)


def test_an_invalid_configuration_is_exit_status_2(invoke: Invoke, no_worker_environ: Mapping[str, str]) -> None:
    done = invoke("doctor", env={**no_worker_environ, "AIRFLOW__ECS_QUEUE__CONCURRENCY": "many"})
    assert done.exit_code == 2
    assert "concurrency" in done.stderr
