"""The key capacity_fallback: what it may hold, and the one sentence about what it may not."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ecs_queue.config import Profile, load_config
from ecs_queue.errors import ConfigError

_SECTION = "AIRFLOW__AWS_ECS_EXECUTOR__"


def load(variants: Any, **keys: str) -> Profile:
    environ = {f"{_SECTION}{name.upper()}": value for name, value in keys.items()}
    environ[f"{_SECTION}CAPACITY_FALLBACK"] = variants if isinstance(variants, str) else json.dumps(variants)
    return load_config(environ=environ).profile("default")


def test_a_variant_changes_what_it_names_and_keeps_the_rest() -> None:
    profile = load([{"launch_type": "ec2", "subnets": ["s-2"]}], launch_type="FARGATE", cluster="jobs", subnets="s-1")
    assert profile.variants == 2
    assert profile.variant(1) is profile
    second = profile.variant(2)
    assert (second.launch_type, second.subnets, second.cluster) == ("EC2", ("s-2",), "jobs")


def test_a_variant_with_a_strategy_does_not_have_the_launch_type_of_the_queue() -> None:
    strategy = [{"capacityProvider": "FARGATE", "weight": 1}]
    second = load([{"capacity_provider_strategy": strategy}], launch_type="EC2").variant(2)
    assert (second.launch_type, second.capacity_provider_strategy) == (None, tuple(strategy))


@pytest.mark.parametrize(
    ("variants", "keys", "sentence"),
    [
        ([{"task_definition": "x"}], {}, "variant 2: Object contains unknown field `task_definition`; members are"),
        ([{}], {}, "variant 2: expected an object with one of launch_type"),
        ([{"launch_type": "EC2"}] * 6, {}, "expected at most 5 variants, found 6"),
        ([{"launch_type": "SPOT"}], {}, "expected one of EC2, FARGATE"),
        ([{"launch_type": "EC2", "capacity_provider_strategy": []}], {}, "variant 2: expected launch_type or"),
        ([{"capacity_provider_strategy": [{"provider": "x"}]}], {}, "variant 2: capacity_provider_strategy"),
        ([{"cluster": "b"}], {}, "expected launch_type or capacity_provider_strategy beside cluster"),
        ([{"launch_type": "EC2", "cluster": "b"}], {"warm_seconds": "60"}, "expected no cluster and no region_name"),
        ([{"launch_type": "EC2"}], {"run_task_kwargs": '{"launchType": "EC2"}'}, "expected run_task_kwargs without"),
        ("{}", {}, "expected a JSON list of variants"),
    ],
)
def test_what_it_may_not_hold_is_one_sentence(variants: Any, keys: dict[str, str], sentence: str) -> None:
    with pytest.raises(ConfigError) as error:
        load(variants, **keys)
    assert sentence in str(error.value)
    assert str(error.value).count("\n") == 0
