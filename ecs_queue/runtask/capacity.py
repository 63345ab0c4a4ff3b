"""On which capacity a task is launched, and whose launch quota it takes."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

from ecs_queue.errors import ConfigError, InvalidRequest
from ecs_queue.runtask.profile import RunTaskProfile

#: The capacity providers of Fargate; any other one consists of instances.
_FARGATE_PROVIDERS = frozenset({"FARGATE", "FARGATE_SPOT"})


class LaunchQuota(StrEnum):
    """A quota of launches a second in one account and Region; the value is the name of its token bucket.

    AWS has one for Fargate On-Demand and one for Fargate Spot, 20 a second each, above RunTask's own of 40 a second, to
    which launches on instances are limited too (Amazon ECS service quotas, request throttling). So whatever is not
    Spot alone shares one bucket, and both together keep RunTask's quota.
    """

    RUN_TASK = "run_task"
    FARGATE_SPOT = "run_task_spot"


def launch_quota(arguments: Mapping[str, Any]) -> LaunchQuota:
    """Return the quota of a launch with this launchType or capacityProviderStrategy.

    A strategy that uses both kinds of Fargate counts as On-Demand: only ECS knows which one a task gets.
    """
    strategy = arguments.get("capacityProviderStrategy") or ()
    used = [entry for entry in strategy if entry.get("weight") or entry.get("base")] or strategy
    is_spot = bool(used) and all(entry.get("capacityProvider") == "FARGATE_SPOT" for entry in used)
    return LaunchQuota.FARGATE_SPOT if is_spot else LaunchQuota.RUN_TASK


def profile_launch_quota(profile: RunTaskProfile) -> LaunchQuota:
    """Return the quota of launches with this profile alone; that of RunTask if it contradicts itself."""
    try:
        return launch_quota(effective_capacity(profile, choose_capacity(profile, profile.run_task_kwargs, {})))
    except ConfigError:
        return LaunchQuota.RUN_TASK


def choose_capacity(
    profile: RunTaskProfile, defaults: Mapping[str, Any], executor_config: Mapping[str, Any]
) -> dict[str, Any]:
    """Return launchType or capacityProviderStrategy of the last layer that sets one.

    If none does: nothing where the cluster is known to have a default strategy, which RunTask then uses, else FARGATE.

    Raises:
        ConfigError, InvalidRequest: The profile, or the request, sets both.
    """
    own = {"launchType": profile.launch_type, "capacityProviderStrategy": profile.capacity_provider_strategy}
    capacity: dict[str, Any] = {} if profile.cluster_strategy else {"launchType": "FARGATE"}
    for layer in (own, defaults, executor_config):
        chosen = {key: layer[key] for key in own if layer.get(key) is not None} if layer else {}
        if len(chosen) > 1:
            problem = "expected capacity_provider_strategy or launch_type, found both; leave one of them out"
            if layer is executor_config:
                raise InvalidRequest(f"queue {profile.queue!r}: {problem}")
            raise ConfigError(problem, profile.queue)
        capacity = chosen or capacity
    # An empty strategy means the cluster's default one, which RunTask uses if neither argument is sent.
    return {key: value for key, value in capacity.items() if value}


def leaves_capacity_to_the_cluster(profile: RunTaskProfile) -> bool:
    """Return whether the profile sets neither a launch type nor a strategy, or an empty one."""
    given = (profile.launch_type, profile.capacity_provider_strategy)
    return not any((*given, *map(profile.run_task_kwargs.get, ("launchType", "capacityProviderStrategy"))))


def effective_capacity(profile: RunTaskProfile, capacity: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return what these arguments mean: the cluster's default strategy, if it is known, where they name no capacity."""
    if capacity.get("launchType") or capacity.get("capacityProviderStrategy") or not profile.cluster_strategy:
        return capacity
    return {"capacityProviderStrategy": list(profile.cluster_strategy)}


def is_fargate(capacity: Mapping[str, Any]) -> bool:
    """Return whether every task of these arguments runs on Fargate."""
    strategy = capacity.get("capacityProviderStrategy")
    if strategy:
        return all(entry.get("capacityProvider") in _FARGATE_PROVIDERS for entry in strategy)
    return capacity.get("launchType") == "FARGATE"
