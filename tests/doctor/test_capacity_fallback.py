"""What the doctor finds about the variants of a queue's capacity."""

from __future__ import annotations

from typing import Any

import pytest

from ecs_queue.config import Profile
from ecs_queue.doctor.capacity_fallback import check_capacity_fallback
from ecs_queue.ecs.clients import Target
from ecs_queue.findings import Reporter, Severity
from ecs_queue.runtask.capacity_variants import CapacityVariant

TARGET = Target("us-east-1", None, None, "jobs")
ON_DEMAND = ({"capacityProvider": "FARGATE"},)


class Ecs:
    """DescribeClusters of two clusters."""

    def describe_clusters(self, clusters: list[str]) -> dict[str, Any]:
        known = {"jobs": ["FARGATE"], "spare": ["FARGATE_SPOT"]}
        return {
            "clusters": [
                {"clusterName": name, "status": "ACTIVE", "capacityProviders": known[name]}
                for name in clusters
                if name in known
            ]
        }


@pytest.mark.parametrize(
    ("variant", "severity", "text"),
    [
        (CapacityVariant(capacity_provider_strategy=ON_DEMAND), Severity.OK, "variant 2: FARGATE in jobs"),
        (
            CapacityVariant(capacity_provider_strategy=ON_DEMAND, cluster="spare"),
            Severity.ERROR,
            "the cluster spare has no capacity provider FARGATE",
        ),
        (CapacityVariant(launch_type="EC2", cluster="gone"), Severity.ERROR, "the cluster gone is not usable: MISSING"),
        (CapacityVariant(launch_type="EC2", region_name="us-west-2"), Severity.INFO, "not checked"),
    ],
)
def test_a_variant_needs_its_cluster_and_its_providers(variant: CapacityVariant, severity: Severity, text: str) -> None:
    profile = Profile("default", cluster="jobs", capacity_fallback=(variant,))
    (finding,) = check_capacity_fallback(Reporter("default"), profile, TARGET, Ecs())
    assert finding.severity is severity
    assert text in str(finding)
