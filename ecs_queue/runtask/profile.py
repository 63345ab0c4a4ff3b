"""What of a queue's configuration RunTask needs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ecs_queue.runtask.config_keys import CONFIG_DEFAULTS
from ecs_queue.runtask.overrides import SAFE_OVERRIDES


@dataclass(frozen=True, repr=False)
class RunTaskProfile:
    """Where and how the tasks of one queue are launched; `ecs_queue.config.Profile` extends it.

    `run_task_kwargs` has run_task's spelling; readers must not change it. `capacity_provider_strategy`: None is not
    set, empty is the cluster's default strategy. `cluster_strategy` is that default strategy, as far as it is known:
    it decides where nothing is set, and is never sent. `tag_labels`: the labels of a request that become tags.
    """

    queue: str
    cluster: str | None = None
    task_definition: str | None = None
    container_name: str | None = None
    launch_type: str | None = None
    capacity_provider_strategy: tuple[dict[str, Any], ...] | None = field(default=None, hash=False)
    platform_version: str | None = CONFIG_DEFAULTS["platform_version"]
    subnets: tuple[str, ...] = ()
    security_groups: tuple[str, ...] = ()
    assign_public_ip: bool = False
    run_task_kwargs: dict[str, Any] = field(default_factory=dict, hash=False)
    allowed_overrides: tuple[str, ...] = SAFE_OVERRIDES
    cluster_strategy: tuple[dict[str, Any], ...] = field(default=(), hash=False)
    tag_labels: tuple[str, ...] = ()
