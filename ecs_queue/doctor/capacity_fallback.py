"""Checks that the clusters of a queue's capacity variants are there, and have the capacity providers that they name."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ecs_queue.config import Profile
from ecs_queue.doctor.aws_call import call_aws
from ecs_queue.ecs.clients import Target
from ecs_queue.findings import Finding, Reporter

_CHECK = "aws.capacity_fallback"


def check_capacity_fallback(reporter: Reporter, profile: Profile, target: Target, ecs: Any) -> Iterator[Finding]:
    """Check each variant but the first. `ecs` is the client of the queue's own Region."""
    for number, variant in enumerate(profile.capacity_fallback, 2):
        cluster = variant.cluster or target.cluster
        if variant.region_name not in (None, target.region):
            text = f"variant {number}: not checked, it is in {variant.region_name}"
            yield reporter.info(_CHECK, text, f"run the doctor with region_name = {variant.region_name} once")
            continue
        answer, reason, error_kind = call_aws(ecs.describe_clusters, clusters=[cluster])
        found = (answer.get("clusters") or [{}])[0]
        if error_kind is not None or found.get("status") != "ACTIVE":
            text = f"variant {number}: the cluster {cluster} is not usable: {reason or found.get('status', 'MISSING')}"
            yield reporter.error(_CHECK, text, "correct capacity_fallback, or create the cluster")
            continue
        strategy = profile.variant(number).capacity_provider_strategy or ()
        named = {str(entry.get("capacityProvider")) for entry in strategy}
        missing = sorted(named.difference(found.get("capacityProviders") or ()))
        if missing:
            text = f"variant {number}: the cluster {cluster} has no capacity provider {', '.join(missing)}"
            yield reporter.error(_CHECK, text, "attach it with PutClusterCapacityProviders, or correct the variant")
        else:
            yield reporter.ok(_CHECK, f"variant {number}: {', '.join(sorted(named)) or 'its launch type'} in {cluster}")
