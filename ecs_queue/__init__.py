"""A durable queue between clients that want a container to run and Amazon ECS.

    from ecs_queue import EcsQueue

    with EcsQueue.from_config() as queue:
        print(queue.submit(["echo", "hello"]).result(timeout=300).exit_code)

Each name below is loaded at its first use, so that importing the package is cheap.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ecs_queue.calls.executor import CallFailed, EcsExecutor
    from ecs_queue.client.aio import AsyncEcsQueue, AsyncHandle
    from ecs_queue.client.batch import Batch
    from ecs_queue.client.client import EcsQueue
    from ecs_queue.client.handle import Handle
    from ecs_queue.client.request import Request
    from ecs_queue.config import Config, load_config
    from ecs_queue.messages.request import TaskRequest
    from ecs_queue.messages.result import TaskResult
    from ecs_queue.protocol.states import State
    from ecs_queue.worker.worker import Worker

    __version__: str

_HOMES = {
    "AsyncEcsQueue": "ecs_queue.client.aio",
    "AsyncHandle": "ecs_queue.client.aio",
    "Batch": "ecs_queue.client.batch",
    "Config": "ecs_queue.config",
    "CallFailed": "ecs_queue.calls.executor",
    "EcsExecutor": "ecs_queue.calls.executor",
    "EcsQueue": "ecs_queue.client.client",
    "Handle": "ecs_queue.client.handle",
    "Request": "ecs_queue.client.request",
    "State": "ecs_queue.protocol.states",
    "TaskRequest": "ecs_queue.messages.request",
    "TaskResult": "ecs_queue.messages.result",
    "Worker": "ecs_queue.worker.worker",
    "load_config": "ecs_queue.config",
}

__all__ = [
    "AsyncEcsQueue",
    "AsyncHandle",
    "Batch",
    "CallFailed",
    "Config",
    "EcsExecutor",
    "EcsQueue",
    "Handle",
    "Request",
    "State",
    "TaskRequest",
    "TaskResult",
    "Worker",
    "load_config",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return import_module("ecs_queue.version").package_version()
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
