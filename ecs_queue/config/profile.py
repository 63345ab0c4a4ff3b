"""A profile: where and how one queue's tasks are launched."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from ecs_queue.config.redact import redact_run_task_kwargs, redact_url
from ecs_queue.errors import ConfigError, InvalidRequest
from ecs_queue.protocol.retry_rules import RetryRule
from ecs_queue.runtask.arguments import check_launchable
from ecs_queue.runtask.botocore_model import normalize, run_task_shape
from ecs_queue.runtask.capacity import leaves_capacity_to_the_cluster
from ecs_queue.runtask.capacity_variants import OVERRIDING_KWARGS, CapacityVariant
from ecs_queue.runtask.config_keys import CONFIG_DEFAULTS
from ecs_queue.runtask.executor_config import normalize_run_task_kwargs
from ecs_queue.runtask.profile import RunTaskProfile


@dataclass(frozen=True, repr=False)
class Profile(RunTaskProfile):
    """The keys of `[aws_ecs_executor.NAME]`, falling back to `[aws_ecs_executor]`, for the queue NAME.

    `run_task_kwargs` has run_task's spelling, whatever spelling was given; readers must not change it.
    `capacity_provider_strategy`: None is not set, empty is the cluster's default strategy. A profile may be
    incomplete (a client needs no cluster); `require_launchable` checks that.
    """

    conn_id: str | None = CONFIG_DEFAULTS["conn_id"]
    region_name: str | None = None
    max_run_task_attempts: int = int(CONFIG_DEFAULTS["max_run_task_attempts"])
    check_health_on_startup: bool = True
    start_timeout: float = 0.0
    retry_rules: tuple[RetryRule, ...] = ()
    capacity_fallback: tuple[CapacityVariant, ...] = field(default=(), hash=False)
    capacity_fallback_after: int = 3
    capacity_fallback_seconds: float = 300.0
    weight: int = 1
    max_in_flight: int = 0
    max_starting: int = 0
    max_per_key: int = 0
    launch_rate: float = 0.0
    launch_burst: int = 1
    event_queue_url: str | None = None
    role_arn: str | None = None
    endpoint_url: str | None = None
    warm_seconds: float = 0.0
    warm_max_age: float = 0.0
    runner_preload: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Convert JSON values into run_task's spelling; ConfigError when they do not fit its model."""
        try:
            if self.run_task_kwargs:
                kwargs = normalize_run_task_kwargs(self.run_task_kwargs, self.container_name)
                object.__setattr__(self, "run_task_kwargs", kwargs)
            if self.capacity_provider_strategy:
                object.__setattr__(self, "capacity_provider_strategy", self._normalize_strategy())
        except InvalidRequest as error:
            raise ConfigError(str(error)) from None
        if self.launch_type and self.capacity_provider_strategy is not None:
            raise ConfigError(
                "capacity_provider_strategy, launch_type: expected only one of them, found both; remove one"
            )
        self._check_variants()

    def _normalize_strategy(self) -> tuple[dict[str, Any], ...]:
        shape = run_task_shape().members["capacityProviderStrategy"]
        return tuple(normalize(list(self.capacity_provider_strategy or ()), shape, "capacity_provider_strategy"))

    def _check_variants(self) -> None:
        overriding = [name for name in OVERRIDING_KWARGS if name in self.run_task_kwargs]
        if self.capacity_fallback and overriding:
            raise ConfigError(
                f"capacity_fallback: expected run_task_kwargs without {overriding[0]}, which would override every "
                "variant, found it there; use the queue's own key for it"
            )
        for number, variant in enumerate(self.capacity_fallback, 2):
            try:
                other = self.variant(number)
            except ConfigError as error:
                raise ConfigError(f"capacity_fallback: variant {number}: {error}") from None
            if variant.is_elsewhere and leaves_capacity_to_the_cluster(other):
                raise ConfigError(
                    f"capacity_fallback: variant {number}: expected launch_type or capacity_provider_strategy beside "
                    "cluster or region_name, found neither; only the queue's own cluster is asked for its default"
                )
            if variant.is_elsewhere and self.warm_seconds:
                raise ConfigError(
                    f"capacity_fallback: variant {number}: expected no cluster and no region_name in a queue with "
                    "warm_seconds, found one: the runners of a pool are in one cluster"
                )

    @property
    def variants(self) -> int:
        """The number of variants of the capacity, with this profile itself as the first."""
        return 1 + len(self.capacity_fallback)

    def variant(self, number: int) -> Profile:
        """Return the profile of a variant of the capacity, from 1 on; itself for a number that it does not have."""
        if not 1 < number <= self.variants:
            return self
        return replace(self, **self.capacity_fallback[number - 2].changes(), capacity_fallback=())

    def require_launchable(self) -> None:
        """Check that a task can be launched with this profile alone.

        Raises:
            ConfigError: names the queue and what to set. An unknown region (the gateway finds it) and facts that only
                AWS knows are not checked.
        """
        check_launchable(self)
        for number in range(2, self.variants + 1):
            check_launchable(self.variant(number))

    def for_queue(self, queue: str) -> Profile:
        """Return the same profile under another queue's name; it shares all values with this one."""
        other = copy.copy(self)
        object.__setattr__(other, "queue", queue)
        return other

    def with_cluster_strategy(self, strategy: tuple[dict[str, Any], ...]) -> Profile:
        """Return the same profile for a cluster with this default capacity provider strategy."""
        other = copy.copy(self)
        object.__setattr__(other, "cluster_strategy", strategy)
        return other

    def __repr__(self) -> str:
        """Show every field without passwords and values of environment variables."""
        shown = {item.name: _redact_field(item.name, getattr(self, item.name)) for item in fields(self)}
        return f"Profile({', '.join(f'{name}={value!r}' for name, value in shown.items())})"


def _redact_field(name: str, value: Any) -> Any:
    if name == "endpoint_url" and value:
        return redact_url(value)
    return redact_run_task_kwargs(value) if isinstance(value, Mapping) else value
