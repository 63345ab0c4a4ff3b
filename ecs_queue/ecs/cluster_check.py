"""What is found about a cluster, from the answer of DescribeClusters: one sentence for workers and the doctor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ecs_queue.ecs.clients import Target
from ecs_queue.findings import Finding, Reporter
from ecs_queue.protocol.ecs_results import EcsErrorKind

_CHECK = "aws.cluster"
_CAPACITY_CHECK = "aws.capacity"


def cluster_finding(
    reporter: Reporter, target: Target, answer: Mapping[str, Any], reason: str, error_kind: EcsErrorKind | None
) -> Finding:
    """Return the finding about a target's cluster. What these credentials may not look at is a note.

    Args:
        reporter: About what.
        target: Where the cluster is.
        answer: AWS's answer; empty after an error.
        reason: The error's reason.
        error_kind: The error's kind; None for an answer.
    """
    where = f"cluster {target.cluster} in {target.region}"
    if error_kind is EcsErrorKind.DENIED:
        advice = "grant ecs:DescribeClusters as in conf/iam-worker-policy.json, or set check_health_on_startup = False"
        return reporter.info(_CHECK, f"{where} cannot be checked: {reason}", advice)
    if error_kind is not None:
        advice = "check region_name, endpoint_url and the credentials"
        return reporter.error(_CHECK, f"{where} cannot be used: {reason}", advice)
    found = answer.get("clusters") or []
    if not found:
        return reporter.error(_CHECK, f"{where} does not exist", "check cluster and region_name, or create it")
    status = found[0].get("status") or "unknown"
    if status != "ACTIVE":
        advice = "use an ACTIVE cluster: no task can be started in this one"
        return reporter.error(_CHECK, f"{where} is {status}, not ACTIVE", advice)
    return reporter.ok(_CHECK, f"{where} is ACTIVE, {found[0].get('runningTasksCount', 0)} tasks run there")


def capacity_finding(
    reporter: Reporter, strategy: Sequence[Mapping[str, Any]] | None, *, asks_for_default: bool, reason: str = ""
) -> Finding:
    """Return where the tasks of a profile run that sets no launch type.

    Args:
        reporter: About what.
        strategy: The cluster's default capacity provider strategy; None when it cannot be read.
        asks_for_default: The profile's own strategy is set and empty.
        reason: Why it cannot be read.
    """
    unset = "neither launch_type nor capacity_provider_strategy is set"
    if strategy:
        names = ", ".join(str(entry.get("capacityProvider")) for entry in strategy)
        return reporter.ok(_CAPACITY_CHECK, f"tasks run on the cluster's default strategy ({names})")
    advice = "set launch_type or capacity_provider_strategy"
    if strategy is None:
        text = f"the cluster's default strategy cannot be read: {reason}".rstrip(": ")
        if not asks_for_default:
            text = f"{unset}, and {text}: tasks run on FARGATE"
        return reporter.info(_CAPACITY_CHECK, text, f"{advice}, or grant ecs:DescribeClusters to the workers")
    if asks_for_default:
        text = "capacity_provider_strategy is empty, and the cluster has no default strategy"
        return reporter.warning(_CAPACITY_CHECK, text, f"give the cluster one, or {advice}")
    return reporter.ok(_CAPACITY_CHECK, f"{unset}, and the cluster has no default strategy: tasks run on FARGATE")
