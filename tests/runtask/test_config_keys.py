"""The classes of configuration keys."""

from __future__ import annotations

from ecs_queue.runtask.config_keys import (
    CONFIG_DEFAULTS,
    CONFIG_GROUP_NAME,
    AllEcsConfigKeys,
    BaseConfigKeys,
    RunTaskKwargsConfigKeys,
)

RUN_TASK_KEYS = {
    "assign_public_ip",
    "capacity_provider_strategy",
    "cluster",
    "container_name",
    "launch_type",
    "platform_version",
    "security_groups",
    "subnets",
    "task_definition",
}
OTHER_KEYS = {
    "conn_id",
    "check_health_on_startup",
    "max_run_task_attempts",
    "region_name",
    "run_task_kwargs",
}


def test_the_run_task_keys_iterate_over_their_values() -> None:
    assert sorted(RunTaskKwargsConfigKeys()) == sorted(RunTaskKwargsConfigKeys) == sorted(RUN_TASK_KEYS)


def test_all_keys_are_those_of_both_classes() -> None:
    assert sorted(AllEcsConfigKeys()) == sorted(AllEcsConfigKeys) == sorted(RUN_TASK_KEYS | OTHER_KEYS)
    assert AllEcsConfigKeys.CLUSTER == "cluster"
    assert AllEcsConfigKeys.AWS_CONN_ID == "conn_id"


def test_both_share_the_base_which_has_no_keys() -> None:
    assert AllEcsConfigKeys.__mro__[1:3] == (RunTaskKwargsConfigKeys, BaseConfigKeys)
    assert list(BaseConfigKeys()) == []


def test_every_default_is_text_for_a_known_key() -> None:
    assert CONFIG_GROUP_NAME == "aws_ecs_executor"
    assert set(CONFIG_DEFAULTS) <= set(AllEcsConfigKeys())
    assert all(isinstance(value, str) for value in CONFIG_DEFAULTS.values())
