"""Profiles of queues."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ecs_queue.config import Config, Profile, load_config
from ecs_queue.config.profile_keys import PROFILE_KEYS
from ecs_queue.errors import ConfigError
from ecs_queue.runtask.arguments import render_run_task_kwargs
from ecs_queue.runtask.config_keys import AllEcsConfigKeys
from ecs_queue.tasks import EcsQueuedTask

BASE = "AWS_ECS_EXECUTOR"


def load(text: str = "", folder: Path | None = None, **environ: str) -> Config:
    file = None
    if folder is not None:
        file = str(folder / "x.cfg")
        Path(file).write_text(text, encoding="utf-8")
    return load_config(file, {f"AIRFLOW__{key}": value for key, value in environ.items()})


def base(**keys: str) -> Profile:
    return load("", None, **{f"{BASE}__{key.upper()}": value for key, value in keys.items()}).profile("default")


def problem(**keys: str) -> str:
    with pytest.raises(ConfigError) as caught:
        base(**keys)
    return str(caught.value)


def test_the_defaults_are_those_of_the_upstream_executor() -> None:
    profile = base()
    assert profile == Profile("default")
    assert (profile.conn_id, profile.platform_version, profile.max_run_task_attempts) == (
        "aws_default",
        "LATEST",
        3,
    )
    assert (profile.assign_public_ip, profile.check_health_on_startup) == (False, True)


def test_every_key_of_the_reference_is_a_field() -> None:
    assert all(hasattr(Profile("q"), key) for key in AllEcsConfigKeys())


def test_a_profile_falls_back_key_by_key(tmp_path: Path) -> None:
    text = (
        "[aws_ecs_executor]\ncluster = prod\ntask_definition = small\nregion_name = eu-west-1\n"
        "[aws_ecs_executor.gpu]\ntask_definition = big\n"
    )
    config = load(text, tmp_path, AWS_ECS_EXECUTOR_GPU__REGION_NAME="us-east-1", AWS_ECS_EXECUTOR__CLUSTER="new")
    gpu = config.profile("gpu")
    assert (gpu.queue, gpu.cluster, gpu.task_definition, gpu.region_name) == (
        "gpu",
        "new",
        "big",
        "us-east-1",
    )
    other = config.profile("other")
    assert (other.queue, other.cluster, other.task_definition) == ("other", "new", "small")
    assert [profile.queue for profile in config.profiles()] == ["default", "gpu"]


@pytest.mark.parametrize("queue", ["GPU-big.x", "gpu_big_x", "Gpu.Big-X"])
def test_a_queue_name_matches_in_any_case_and_with_any_separator(tmp_path: Path, queue: str) -> None:
    config = load("[aws_ecs_executor.gpu-big.x]\ncluster = a\n", tmp_path, AWS_ECS_EXECUTOR_GPU_BIG_X__SUBNETS="s")
    profile = config.profile(queue)
    assert (profile.queue, profile.cluster, profile.subnets) == (queue, "a", ("s",))


@pytest.mark.slow
@settings(deadline=None)
@given(st.from_regex(r"\A[A-Za-z0-9_.-]{1,20}\Z"))
def test_the_variable_made_from_any_queue_name_reaches_that_queue(queue: str) -> None:
    section = "".join(c if c.isalnum() else "_" for c in queue).upper()
    config = load("", None, **{f"{BASE}_{section}__CLUSTER": "mine"})
    assert config.profile(queue).cluster == "mine"


def test_two_sections_of_one_queue_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"\[aws_ecs_executor.a_b\]: expected one section a queue, found .*a-b"):
        load("[aws_ecs_executor.a-b]\ncluster=x\n[aws_ecs_executor.a_b]\ncluster=y\n", tmp_path)


def test_the_queue_default_may_have_its_own_section(tmp_path: Path) -> None:
    config = load("[aws_ecs_executor]\ncluster=x\n[aws_ecs_executor.default]\ncluster=y\n", tmp_path)
    assert [profile.cluster for profile in config.profiles()] == ["y"]
    assert config.profile("other").cluster == "x"


def test_a_profile_that_sets_one_exclusive_key_does_not_inherit_the_other() -> None:
    config = load(
        AWS_ECS_EXECUTOR__LAUNCH_TYPE="EC2",
        AWS_ECS_EXECUTOR_SPOT__CAPACITY_PROVIDER_STRATEGY='[{"capacity_provider": "FARGATE_SPOT"}]',
    )
    spot = config.profile("spot")
    assert (spot.launch_type, spot.capacity_provider_strategy) == (
        None,
        ({"capacityProvider": "FARGATE_SPOT"},),
    )
    assert config.profile("x").launch_type == "EC2"


def test_both_exclusive_keys_in_one_profile_are_an_error_that_names_both_origins() -> None:
    text = problem(launch_type="EC2", capacity_provider_strategy='[{"capacityProvider": "a"}]')
    assert "capacity_provider_strategy, launch_type: expected only one of them, found both" in text
    assert "AIRFLOW__AWS_ECS_EXECUTOR__LAUNCH_TYPE" in text
    assert "AIRFLOW__AWS_ECS_EXECUTOR__CAPACITY_PROVIDER_STRATEGY" in text


def test_an_empty_value_removes_an_inherited_one() -> None:
    config = load(AWS_ECS_EXECUTOR__ROLE_ARN="arn:aws:iam::123456789012:role/r", AWS_ECS_EXECUTOR_LOCAL__ROLE_ARN="")
    assert config.profile("local").role_arn is None
    assert base(conn_id="", platform_version="") == Profile("default", conn_id=None, platform_version=None)


@pytest.mark.parametrize("value", ["a,b", " a , b,", '["a", "b"]'])
def test_lists_are_texts_with_commas_or_json(value: str) -> None:
    profile = base(subnets=value, security_groups=value)
    assert profile.subnets == profile.security_groups == ("a", "b")


@pytest.mark.parametrize("value", ["True", "yes", "1", "on"])
def test_flags_are_read_in_any_usual_spelling(value: str) -> None:
    assert base(assign_public_ip=value).assign_public_ip is True


def test_run_task_kwargs_are_json_in_either_spelling() -> None:
    kwargs = base(container_name="main", run_task_kwargs='{"cpu": 5, "enable_ecs_managed_tags": true}').run_task_kwargs
    assert kwargs == {
        "enableECSManagedTags": True,
        "overrides": {"containerOverrides": [{"name": "main", "cpu": 5}]},
    }


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("launch_type", "FARGAT", "expected one of EC2, FARGATE, EXTERNAL"),
        ("assign_public_ip", "maybe", "expected True or False, found 'maybe'"),
        ("max_run_task_attempts", "0", "expected a whole number >= 1, found '0'"),
        ("subnets", '["a", 5]', "expected texts separated by commas or a JSON list of texts"),
        (
            "capacity_provider_strategy",
            "FARGATE_SPOT",
            "expected a JSON list of capacity providers, found text that",
        ),
        ("capacity_provider_strategy", "{}", "found JSON of another type (dict)"),
        ("capacity_provider_strategy", '[{"weight": 1}]', "[0]: expected the key 'capacityProvider'"),
        (
            "run_task_kwargs",
            "{'a': x}",
            "expected a JSON object, found text that is not JSON (line 1, column 2)",
        ),
        ("run_task_kwargs", "[]", "expected a JSON object, found JSON of another type (list)"),
        ("run_task_kwargs", '{"tagz": []}', "unknown key 'tagz'"),
        (
            "role_arn",
            "my-role",
            "expected an ARN such as arn:aws:iam::123456789012:role/NAME, found 'my-role'",
        ),
        ("endpoint_url", "localhost:4566", "expected a URL such as http://127.0.0.1:4566"),
        ("clutser", "x", "did you mean 'cluster'?"),
    ],
)
def test_a_bad_value_is_reported_with_its_origin(key: str, value: str, message: str) -> None:
    text = problem(**{key: value})
    assert text.startswith(f"[aws_ecs_executor] {key}")
    assert message in text
    assert text.endswith(f"(from AIRFLOW__AWS_ECS_EXECUTOR__{key.upper()})")


def test_json_that_is_nested_too_deep_is_refused() -> None:
    assert "expected a JSON object, found" in problem(run_task_kwargs='{"a":' * 100_000)


def test_an_inherited_problem_is_reported_once_for_its_own_section() -> None:
    with pytest.raises(ConfigError) as caught:
        load(
            AWS_ECS_EXECUTOR__RUN_TASK_KWARGS='{"count": 2}',
            AWS_ECS_EXECUTOR__MAX_RUN_TASK_ATTEMPTS="x",
            AWS_ECS_EXECUTOR_GPU__CLUSTER="a",
            AWS_ECS_EXECUTOR_GPU__CLUTSER="b",
        )
    lines = str(caught.value).splitlines()
    assert [line.partition(":")[0] for line in lines] == [
        "[aws_ecs_executor] max_run_task_attempts",
        "[aws_ecs_executor] run_task_kwargs.count",
        "[aws_ecs_executor.gpu] clutser",
    ]


def test_no_environment_value_and_no_password_is_shown() -> None:
    secret = '{"environment": [{"name": "TOKEN", "value": "hunter2"}], "tags": [{"key": "a", "value": "b"}]}'
    config = load(
        AWS_ECS_EXECUTOR__RUN_TASK_KWARGS=secret,
        AWS_ECS_EXECUTOR__ENDPOINT_URL="http://u:hunter2@127.0.0.1:1",
    )
    shown = f"{config.profile('default')!r} {config.effective_values} {config!r}"
    assert "hunter2" not in shown
    assert "TOKEN" in shown
    wrong = secret.replace('"hunter2"', '{"hunter2": 1}')
    assert "hunter2" not in problem(run_task_kwargs=wrong)


def test_the_effective_values_of_a_named_profile_are_those_it_sets_itself() -> None:
    config = load(AWS_ECS_EXECUTOR_GPU__CLUSTER="a")
    (setting,) = [item for item in config.effective_values if item.section == "aws_ecs_executor.gpu"]
    assert (setting.key, setting.value, setting.origin) == (
        "cluster",
        "a",
        "AIRFLOW__AWS_ECS_EXECUTOR_GPU__CLUSTER",
    )


def test_a_profile_under_another_name_shares_everything_else() -> None:
    config = load(AWS_ECS_EXECUTOR__RUN_TASK_KWARGS='{"group": "g"}')
    assert config.profile("a").run_task_kwargs is config.profile("b").run_task_kwargs
    assert config.profile("default").queue == "default"


@pytest.mark.parametrize(
    "value",
    [
        "[{'capacityProvider': 'cp1', 'weight': 5, 'base': 1}]",
        '[{"capacityProvider": "cp1", "weight": 5, "base": 1}]',
        "[{'capacity_provider': 'cp1', 'weight': 5, 'base': 1},]",
    ],
)
def test_a_strategy_may_have_the_single_quotes_of_the_upstream_documentation(value: str) -> None:
    assert base(capacity_provider_strategy=value).capacity_provider_strategy == (
        {"capacityProvider": "cp1", "weight": 5, "base": 1},
    )


def test_a_literal_is_accepted_wherever_json_is() -> None:
    profile = base(run_task_kwargs="{'enableECSManagedTags': True, }", subnets="['a', 'b']")
    assert profile.run_task_kwargs["enableECSManagedTags"] is True
    assert profile.subnets == ("a", "b")


@pytest.mark.parametrize("value", ["[open('x')]", "[b'x']", "[{1, 2}]", "[", "[a]"])
def test_a_literal_that_is_no_json_is_refused(value: str) -> None:
    assert "capacity_provider_strategy: expected a JSON list" in problem(capacity_provider_strategy=value)


def test_no_key_offers_managed_instances_as_a_launch_type() -> None:
    assert "MANAGED_INSTANCES" not in PROFILE_KEYS["launch_type"].doc
    assert "Managed Instances need a capacity_provider_strategy" in PROFILE_KEYS["launch_type"].doc


@pytest.mark.parametrize("launch_type", ["EC2", "EXTERNAL"])
def test_a_public_ip_in_the_default_profile_asks_no_subnets_of_a_queue_without_fargate(launch_type: str) -> None:
    config = load(
        AWS_ECS_EXECUTOR__ASSIGN_PUBLIC_IP="True",
        AWS_ECS_EXECUTOR__CLUSTER="c",
        AWS_ECS_EXECUTOR__TASK_DEFINITION="t",
        AWS_ECS_EXECUTOR__CONTAINER_NAME="main",
        AWS_ECS_EXECUTOR_BIG__LAUNCH_TYPE=launch_type,
    )
    config.profile("big").require_launchable()
    kwargs = render_run_task_kwargs(
        config.profile("big"), EcsQueuedTask("k", ["true"], "big", {}, 1, datetime.now(UTC))
    )
    assert "networkConfiguration" not in kwargs
    with pytest.raises(ConfigError, match="at least one subnet"):
        config.profile("default").require_launchable()
