"""A local ECS: an endpoint on loopback for an unmodified boto3 that runs commands as local processes.

This is a development tool. It runs every command as the user who started it. Therefore it listens on 127.0.0.1 only,
and answers only calls that are signed with its access key, if it has one. These modules document
what they model and what they leave out: `operations` (calls), `task_lifecycle` (statuses), `client_tokens`
(idempotency), `processes` (containers).
"""

from ecs_queue.local.ecs.options import (
    EventFaultOptions,
    FaultOptions,
    LocalEcsOptions,
    Quota,
    local_environment,
    new_access_key_id,
    secrets_of,
)
from ecs_queue.local.ecs.processes import ProcessRunner
from ecs_queue.local.ecs.runners import ContainerListener, ContainerRunner, ContainerSpec, RunningContainer, TimerRunner
from ecs_queue.local.ecs.server import LocalEcs, run_local_ecs

__all__ = [
    "ContainerListener",
    "ContainerRunner",
    "ContainerSpec",
    "EventFaultOptions",
    "FaultOptions",
    "LocalEcs",
    "LocalEcsOptions",
    "ProcessRunner",
    "Quota",
    "RunningContainer",
    "TimerRunner",
    "local_environment",
    "new_access_key_id",
    "run_local_ecs",
    "secrets_of",
]
