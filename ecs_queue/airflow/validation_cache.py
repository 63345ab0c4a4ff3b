"""Validates requests before they are queued; what thousands of them have in common is validated once. Pure."""

from __future__ import annotations

from typing import Any

import msgspec

from ecs_queue.config import Config
from ecs_queue.messages.request import TaskRequest
from ecs_queue.runtask.arguments import MAX_OVERRIDES_CHARACTERS, validate_request
from ecs_queue.runtask.launch_spec import build_queued_task

#: How many different pairs of queue and executor_config are remembered.
_MAX_ENTRIES = 1000


class ValidationCache:
    """Remembers how many characters each valid pair of queue and executor_config leaves for the command."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._remaining_characters: dict[tuple[str, bytes], int] = {}

    def validate(self, request: TaskRequest) -> None:
        """Raise what `validate_request` raises for the request: InvalidRequest or ConfigError."""
        key = (request.queue, msgspec.json.encode(request.executor_config, order="deterministic"))
        length = _max_ecs_length(request.command)
        if length <= self._remaining_characters.get(key, -1):
            return
        task = build_queued_task(request, 1, request.submitted_at)
        run_task_kwargs = validate_request(self._config.profile(request.queue), task)
        if len(self._remaining_characters) >= _MAX_ENTRIES:
            del self._remaining_characters[next(iter(self._remaining_characters))]
        used = _max_ecs_length(run_task_kwargs.get("overrides", {}))
        self._remaining_characters[key] = MAX_OVERRIDES_CHARACTERS - (used - length)


def _max_ecs_length(value: Any) -> int:
    """An upper bound of the characters that ECS counts: UTF-8 never has fewer bytes than UTF-16 has units."""
    return len(msgspec.json.encode(value))
