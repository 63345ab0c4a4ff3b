"""Checks requests before they are queued; what thousands of them have in common is checked once. Pure."""

from __future__ import annotations

from typing import Any

import msgspec

from ecs_queue.config import Config
from ecs_queue.messages.envelope import TaskRequest
from ecs_queue.runtask.arguments import MAX_OVERRIDES_CHARACTERS, validate_request
from ecs_queue.runtask.launch_spec import build_queued_task

#: Different pairs of queue and executor_config that are remembered.
_MAX_ENTRIES = 1000


class ValidationCache:
    """Remembers, for each queue and executor_config that is right, how many characters are left for the command."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._remaining_characters: dict[tuple[str, bytes], int] = {}

    def validate(self, request: TaskRequest) -> None:
        """InvalidRequest or ConfigError as from `validate_request`."""
        key = (request.queue, msgspec.json.encode(request.executor_config, order="deterministic"))
        length = _max_ecs_length(request.command)
        if length <= self._remaining_characters.get(key, -1):
            return
        kwargs = validate_request(
            self._config.profile(request.queue), build_queued_task(request, 1, request.submitted_at)
        )
        if len(self._remaining_characters) >= _MAX_ENTRIES:
            del self._remaining_characters[next(iter(self._remaining_characters))]
        used = _max_ecs_length(kwargs.get("overrides", {}))
        self._remaining_characters[key] = MAX_OVERRIDES_CHARACTERS - (used - length)


def _max_ecs_length(value: Any) -> int:
    """Characters as ECS counts them, or more: bytes of UTF-8 are never fewer than UTF-16's units."""
    return len(msgspec.json.encode(value))
