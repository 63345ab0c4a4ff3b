"""A local ECS: an endpoint on loopback that boto3 talks to unchanged and that runs commands as local
processes.

A development tool. It runs whatever it is asked to as the user who started it, checks no credentials, and is
therefore bound to 127.0.0.1 only. What it models and what it leaves out is said where it is done:
``operations`` (calls), ``life`` (statuses), ``tokens`` (idempotency), ``runners`` (processes).
"""

from ecs_queue.local.ecs.environment import local_environment
from ecs_queue.local.ecs.options import EventFaultOptions, FaultOptions, LocalEcsOptions, Quota
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
    "run_local_ecs",
]
