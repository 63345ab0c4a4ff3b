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
    from ecs_queue.client.client import EcsQueue, Handle
    from ecs_queue.config import Config, load_config
    from ecs_queue.messages.envelope import TaskRequest, TaskResult
    from ecs_queue.protocol.states import State
    from ecs_queue.worker.worker import Worker

    __version__: str

_HOMES = {
    "Config": "ecs_queue.config",
    "EcsQueue": "ecs_queue.client.client",
    "Handle": "ecs_queue.client.client",
    "State": "ecs_queue.protocol.states",
    "TaskRequest": "ecs_queue.messages.envelope",
    "TaskResult": "ecs_queue.messages.envelope",
    "Worker": "ecs_queue.worker.worker",
    "load_config": "ecs_queue.config",
}

__all__ = ["Config", "EcsQueue", "Handle", "State", "TaskRequest", "TaskResult", "Worker", "load_config"]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return import_module("ecs_queue.version").package_version()
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
