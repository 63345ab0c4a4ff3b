"""A profile: where and how the tasks of one queue are launched."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from ecs_queue.config.redact import redact_run_task_kwargs, redact_url
from ecs_queue.errors import ConfigError, InvalidRequest
from ecs_queue.runtask.arguments import check_launchable
from ecs_queue.runtask.botocore_model import normalize, run_task_shape
from ecs_queue.runtask.config_keys import CONFIG_DEFAULTS
from ecs_queue.runtask.executor_config import normalize_run_task_kwargs
from ecs_queue.runtask.overrides import SAFE_OVERRIDES


@dataclass(frozen=True, repr=False)
class Profile:
    """The keys of `[aws_ecs_executor.NAME]`, falling back to `[aws_ecs_executor]`, for the queue NAME.

    `run_task_kwargs` is in run_task's own spelling whatever was given, and must not be changed by its
    readers. `capacity_provider_strategy`: None = not set, empty = the cluster's default strategy. A profile
    may be incomplete (a client needs no cluster); `require_launchable` says whether it is.
    """

    queue: str
    conn_id: str | None = CONFIG_DEFAULTS["conn_id"]
    region_name: str | None = None
    assign_public_ip: bool = False
    cluster: str | None = None
    capacity_provider_strategy: tuple[dict[str, Any], ...] | None = field(default=None, hash=False)
    container_name: str | None = None
    launch_type: str | None = None
    platform_version: str | None = CONFIG_DEFAULTS["platform_version"]
    security_groups: tuple[str, ...] = ()
    subnets: tuple[str, ...] = ()
    task_definition: str | None = None
    max_run_task_attempts: int = int(CONFIG_DEFAULTS["max_run_task_attempts"])
    run_task_kwargs: dict[str, Any] = field(default_factory=dict, hash=False)
    check_health_on_startup: bool = True
    weight: int = 1
    max_in_flight: int = 0
    event_queue_url: str | None = None
    role_arn: str | None = None
    endpoint_url: str | None = None
    allowed_overrides: tuple[str, ...] = SAFE_OVERRIDES

    def __post_init__(self) -> None:
        """Bring what has a structure into run_task's spelling; ConfigError when it cannot be."""
        try:
            if self.run_task_kwargs:
                conformed = normalize_run_task_kwargs(self.run_task_kwargs, self.container_name)
                object.__setattr__(self, "run_task_kwargs", conformed)
            if self.capacity_provider_strategy:
                object.__setattr__(self, "capacity_provider_strategy", self._conform_strategy())
        except InvalidRequest as error:
            raise ConfigError(str(error)) from None
        if self.launch_type and self.capacity_provider_strategy is not None:
            raise ConfigError(
                "capacity_provider_strategy, launch_type: expected only one of them, found both; remove one"
            )

    def _conform_strategy(self) -> tuple[dict[str, Any], ...]:
        key = "capacity_provider_strategy"
        shape = run_task_shape().members["capacityProviderStrategy"]
        return tuple(normalize(list(self.capacity_provider_strategy or ()), shape, key))

    def require_launchable(self) -> None:
        """ConfigError when no task can be launched with it alone; it names the queue and what to set.

        Not found here: an unknown region (the gateway sees it), and what only AWS knows.
        """
        check_launchable(self)

    def for_queue(self, queue: str) -> Profile:
        """The same profile under another queue's name; shares everything with this one."""
        other = copy.copy(self)
        object.__setattr__(other, "queue", queue)
        return other

    def __repr__(self) -> str:
        """Every field; no password and no value of an environment variable."""
        shown = {item.name: _redact_field(item.name, getattr(self, item.name)) for item in fields(self)}
        return f"Profile({', '.join(f'{name}={value!r}' for name, value in shown.items())})"


def _redact_field(name: str, value: Any) -> Any:
    if name == "endpoint_url" and value:
        return redact_url(value)
    return redact_run_task_kwargs(value) if isinstance(value, Mapping) else value
