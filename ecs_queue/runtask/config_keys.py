"""The keys of `[aws_ecs_executor]` under the upstream executor's names, and its built-in defaults."""

from __future__ import annotations

from collections.abc import Iterator

CONFIG_GROUP_NAME = "aws_ecs_executor"

#: The values that apply when neither a file nor the environment sets a key, as text in a file.
CONFIG_DEFAULTS = {
    "conn_id": "aws_default",
    "max_run_task_attempts": "3",
    "assign_public_ip": "False",
    "platform_version": "LATEST",
    "check_health_on_startup": "True",
}


def _values(cls: type) -> list[str]:
    """The values of the public text attributes of a class and its bases, the base's first."""
    attributes = {name: value for base in reversed(cls.__mro__) for name, value in vars(base).items()}
    return [value for name, value in attributes.items() if not name.startswith("_") and isinstance(value, str)]


class _IterableClass(type):
    """Makes a class of keys iterable, as its instances are."""

    def __iter__(cls) -> Iterator[str]:
        return iter(_values(cls))


class BaseConfigKeys(metaclass=_IterableClass):
    """Keys loaded into the configuration. Class and instances iterate over the values, inherited ones first."""

    def __iter__(self) -> Iterator[str]:
        return iter(_values(type(self)))


class RunTaskKwargsConfigKeys(BaseConfigKeys):
    """Keys loaded into the config which are valid ECS run_task kwargs."""

    ASSIGN_PUBLIC_IP = "assign_public_ip"
    CAPACITY_PROVIDER_STRATEGY = "capacity_provider_strategy"
    CLUSTER = "cluster"
    CONTAINER_NAME = "container_name"
    LAUNCH_TYPE = "launch_type"
    PLATFORM_VERSION = "platform_version"
    SECURITY_GROUPS = "security_groups"
    SUBNETS = "subnets"
    TASK_DEFINITION = "task_definition"


class AllEcsConfigKeys(RunTaskKwargsConfigKeys):
    """All keys loaded into the config which are related to the ECS Executor."""

    AWS_CONN_ID = "conn_id"
    CHECK_HEALTH_ON_STARTUP = "check_health_on_startup"
    MAX_RUN_TASK_ATTEMPTS = "max_run_task_attempts"
    REGION_NAME = "region_name"
    RUN_TASK_KWARGS = "run_task_kwargs"
