"""What the doctor says of the task definition of a warm queue."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ecs_queue.config import load_config
from ecs_queue.doctor.warm_queue import check_warm_queue
from ecs_queue.findings import Finding, Reporter, Severity

SECTION = "AIRFLOW__AWS_ECS_EXECUTOR__"
KEYS = {"AIRFLOW__ECS_QUEUE__SIGNING_KEYS": f"k1:{'s' * 40}"}
SECRET_URL = "redis://runner:do-not-show@server/0"
URL = {"name": "ECS_QUEUE_RUNNER_URL", "valueFrom": "arn:url"}
KEY = {"name": "ECS_QUEUE_RUNNER_KEY", "valueFrom": "arn:key"}
PLAIN_URL = {"name": "ECS_QUEUE_RUNNER_URL", "value": SECRET_URL}
SIDE_CAR = {"name": "log", "image": "log", "restartPolicy": {"enabled": True}}


def wrong_findings(
    main: dict[str, Any] | None = None,
    *others: dict[str, Any],
    definition: dict[str, Any] | None = None,
    environ: dict[str, str] | None = None,
    has_secrets: bool = True,
) -> list[Finding]:
    """The warnings and errors; checks what holds for the others."""
    settings = {f"{SECTION}CONTAINER_NAME": "main", f"{SECTION}WARM_SECONDS": "60", **KEYS, **(environ or {})}
    config = load_config(environ=settings)
    container = {"name": "main", "image": "job:1", "secrets": [URL, KEY], **(main or {})}
    given = {"networkMode": "awsvpc", "containerDefinitions": [*others, container], **(definition or {})}
    reporter, profile = Reporter("default"), config.profile("default")
    findings = list(check_warm_queue(reporter, config, profile, given, has_secrets=has_secrets))
    assert "do-not-show" not in "".join(finding.sentence for finding in findings)
    assert [finding.severity for finding in findings if finding.check == "aws.runner_image"] == [Severity.INFO]
    return [finding for finding in findings if finding.severity in (Severity.WARNING, Severity.ERROR)]


@pytest.mark.parametrize("policy", [None, {"enabled": False}])
def test_a_definition_with_both_secrets_and_side_cars_is_in_order(policy: dict[str, Any] | None) -> None:
    assert wrong_findings({"restartPolicy": policy}, SIDE_CAR) == []
    assert wrong_findings({"secrets": [URL]}, environ={"AIRFLOW__ECS_QUEUE__SIGNING_KEYS": ""}) == []


def test_a_restart_policy_of_the_main_container_is_an_error() -> None:
    (finding,) = wrong_findings({"restartPolicy": {"enabled": True}})
    assert (finding.check, finding.severity) == ("aws.restart_policy", Severity.ERROR)
    assert "would hang until its time limit" in finding.text


@pytest.mark.parametrize(("secrets", "missing"), [([KEY], "RUNNER_URL"), ([URL], "RUNNER_KEY")])
def test_a_secret_that_is_missing_is_an_error(secrets: list[dict[str, str]], missing: str) -> None:
    (finding,) = wrong_findings({"secrets": secrets})
    assert (finding.check, finding.severity, missing in finding.text) == ("aws.runner_secrets", Severity.ERROR, True)


def test_a_key_for_commands_that_are_unsigned_is_a_warning() -> None:
    (finding,) = wrong_findings(environ={"AIRFLOW__ECS_QUEUE__SIGNING_KEYS": ""})
    assert (finding.check, finding.severity) == ("aws.runner_secrets", Severity.WARNING)


@pytest.mark.parametrize(("container", "count"), [("main", 2), ("log", 1)])
def test_a_secret_in_plain_text_is_an_error_that_does_not_show_it(container: str, count: int) -> None:
    """In the main container it stands in the place of the secret, which is then missing, too."""
    plain = {"environment": [PLAIN_URL]}
    in_main, in_side_car = {"secrets": [KEY], **plain}, SIDE_CAR | plain
    in_definition = wrong_findings(in_main) if container == "main" else wrong_findings({}, in_side_car)
    override = {"name": container, **plain}
    kwargs = json.dumps({"overrides": {"containerOverrides": [override]}})
    in_overrides = wrong_findings(environ={f"{SECTION}RUN_TASK_KWARGS": kwargs})
    assert (len(in_definition), len(in_overrides)) == (count, 1)
    for (finding, *_), place in ((in_definition, "the task definition"), (in_overrides, "run_task_kwargs")):
        assert (finding.check, finding.severity) == ("aws.runner_secrets", Severity.ERROR)
        assert f"container {container} in {place}" in finding.text


def test_on_an_endpoint_that_is_not_aws_secrets_are_not_checked() -> None:
    assert wrong_findings({"secrets": [], "environment": [PLAIN_URL]}, has_secrets=False) == []


@pytest.mark.parametrize(
    ("definition", "environ", "words"),
    [
        ({"runtimePlatform": {"operatingSystemFamily": "WINDOWS_SERVER_2022_CORE"}}, {}, "needs Linux"),
        ({"networkMode": "none"}, {}, "cannot reach the server"),
        ({}, {f"{SECTION}PLATFORM_VERSION": "1.3.0"}, "needs Fargate 1.4.0"),
    ],
)
def test_a_platform_on_which_no_runner_works_is_an_error(
    definition: dict[str, Any], environ: dict[str, str], words: str
) -> None:
    (finding,) = wrong_findings(definition=definition, environ=environ)
    assert (finding.check, finding.severity, words in finding.text) == ("aws.runner_platform", Severity.ERROR, True)


def test_linux_and_fargate_1_4_and_instances_are_platforms_for_runners() -> None:
    linux = {"runtimePlatform": {"operatingSystemFamily": "LINUX"}}
    assert wrong_findings(definition=linux, environ={f"{SECTION}PLATFORM_VERSION": "1.4.0"}) == []
    instances = {f"{SECTION}PLATFORM_VERSION": "1.3.0", f"{SECTION}LAUNCH_TYPE": "EC2"}
    assert wrong_findings(environ=instances) == []
