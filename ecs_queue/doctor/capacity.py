"""Finds what a cluster lacks of a profile's capacity, and what ECS does not combine."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ecs_queue.config import Profile
from ecs_queue.ecs.clients import Target
from ecs_queue.findings import Finding, Reporter
from ecs_queue.runtask.capacity import is_fargate


def capacity_defects(
    reporter: Reporter, check: str, profile: Profile, target: Target, cluster: Mapping[str, Any]
) -> Iterator[Finding]:
    """Check the launch type or strategy that a profile sets.

    Args:
        reporter: Makes the findings.
        check: The name of the check.
        profile: The queue's, or that of one of its capacity's variants.
        target: Where its tasks are started.
        cluster: As DescribeClusters shows it.
    """
    where = f"the cluster {target.cluster} in {target.region}"
    strategy = profile.capacity_provider_strategy or ()
    kinds = {is_fargate({"capacityProviderStrategy": [entry]}) for entry in strategy}
    if len(kinds) > 1:
        text = "capacity_provider_strategy has FARGATE or FARGATE_SPOT beside another one: ECS refuses both in one"
        yield reporter.error(check, text, "name providers of one kind, and the others in a variant of their own")
    named = {str(entry.get("capacityProvider")) for entry in strategy}
    attached = cluster.get("capacityProviders")
    missing = [] if attached is None else sorted(named.difference(attached))
    if missing:
        text = f"{where} has no capacity provider {', '.join(missing)}"
        yield reporter.error(check, text, "attach it with PutClusterCapacityProviders, or name another one")
    if profile.launch_type in ("EC2", "EXTERNAL") and cluster.get("registeredContainerInstancesCount") == 0:
        text = f"launch_type is {profile.launch_type}, and {where} has no instances: RunTask is refused for capacity"
        yield reporter.warning(check, text, "register instances there, or use a capacity provider that starts them")


def describe_capacity(profile: Profile) -> str:
    """Return what a profile's tasks run on, for people."""
    strategy: tuple[Mapping[str, Any], ...] = profile.capacity_provider_strategy or ()
    names = ", ".join(sorted({str(entry.get("capacityProvider")) for entry in strategy}))
    return names or f"launch type {profile.launch_type or 'FARGATE'}"
