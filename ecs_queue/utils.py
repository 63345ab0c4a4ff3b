"""The reference API in one import: a drop-in for `airflow.providers.amazon.aws.executors.ecs.utils`."""

from ecs_queue.errors import EcsExecutorException
from ecs_queue.runtask.casing import camelize_dict_keys, parse_assign_public_ip
from ecs_queue.runtask.config_keys import (
    CONFIG_DEFAULTS,
    CONFIG_GROUP_NAME,
    AllEcsConfigKeys,
    BaseConfigKeys,
    RunTaskKwargsConfigKeys,
)
from ecs_queue.tasks import (
    CommandType,
    EcsExecutorTask,
    EcsQueuedTask,
    EcsTaskCollection,
    EcsTaskInfo,
    EcsTaskState,
    ExecutorConfigFunctionType,
    ExecutorConfigType,
)

__all__ = [
    "CONFIG_DEFAULTS",
    "CONFIG_GROUP_NAME",
    "AllEcsConfigKeys",
    "BaseConfigKeys",
    "CommandType",
    "EcsExecutorException",
    "EcsExecutorTask",
    "EcsQueuedTask",
    "EcsTaskCollection",
    "EcsTaskInfo",
    "EcsTaskState",
    "ExecutorConfigFunctionType",
    "ExecutorConfigType",
    "RunTaskKwargsConfigKeys",
    "camelize_dict_keys",
    "parse_assign_public_ip",
]
