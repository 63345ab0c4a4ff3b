"""Checks requests before they are queued; what thousands of them have in common is checked once. Pure."""

from __future__ import annotations

from typing import Any

import msgspec

from ecs_queue.config import Config
from ecs_queue.core.envelope import TaskRequest
from ecs_queue.core.plan import queued_task
from ecs_queue.core.run_task_kwargs import MAX_OVERRIDES_CHARACTERS, validate_request

#: Different pairs of queue and executor_config that are remembered.
_REMEMBERED = 1000


class CheckedRequests:
    """Remembers, for each queue and executor_config that is right, how many characters are left for the command."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._room: dict[tuple[str, bytes], int] = {}

    def check(self, request: TaskRequest) -> None:
        """InvalidRequest or ConfigError as from `validate_request`."""
        key = (request.queue, msgspec.json.encode(request.executor_config, order="deterministic"))
        length = _at_most(request.command)
        if length <= self._room.get(key, -1):
            return
        kwargs = validate_request(self._config.profile(request.queue), queued_task(request, 1, request.submitted_at))
        if len(self._room) >= _REMEMBERED:
            del self._room[next(iter(self._room))]
        used = _at_most(kwargs.get("overrides", {}))
        self._room[key] = MAX_OVERRIDES_CHARACTERS - (used - length)


def _at_most(value: Any) -> int:
    """Characters as ECS counts them, or more: bytes of UTF-8 are never fewer than UTF-16's units."""
    return len(msgspec.json.encode(value))
