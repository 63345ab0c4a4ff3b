"""Checks each variant of `capacity_fallback` where its tasks would be started: in its own cluster and Region."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from botocore.exceptions import BotoCoreError

from ecs_queue.config import Config, Profile
from ecs_queue.doctor.aws_call import CREDENTIALS_ADVICE, call_aws, is_not_aws
from ecs_queue.doctor.capacity import capacity_defects, describe_capacity
from ecs_queue.doctor.permissions import check_permissions, pass_role_finding
from ecs_queue.doctor.task_definition import check_definition
from ecs_queue.ecs.clients import Target
from ecs_queue.ecs.cluster_check import cluster_finding
from ecs_queue.error_text import error_text
from ecs_queue.errors import EcsQueueError
from ecs_queue.findings import Finding, Reporter, Severity

_CHECK = "aws.capacity_fallback"


def check_capacity_fallback(
    config: Config, profile: Profile, target: Target, make_ecs_client: Callable[[Target], Any]
) -> Iterator[Finding]:
    """Check each variant but the first, which is the queue itself.

    Args:
        config: Whether it has ECS events decides what another Region needs.
        profile: The queue's.
        target: Where the queue's own tasks are started.
        make_ecs_client: Makes a client of ECS for a cluster and Region.
    """
    for number, variant in enumerate(profile.capacity_fallback, 2):
        reporter = Reporter(f"{profile.queue}, variant {number}")
        cluster, region = variant.cluster or target.cluster, variant.region_name or target.region
        place = replace(target, cluster=cluster, region=region)
        try:
            ecs = make_ecs_client(place)
        except (EcsQueueError, BotoCoreError) as error:
            yield reporter.error("aws.credentials", error_text(error), CREDENTIALS_ADVICE)
            continue
        if region != target.region:
            yield from _other_region(reporter, config, profile, number, place)
        yield from _cluster_and_capacity(reporter, profile.variant(number), place, ecs)
        yield from check_definition(reporter, profile.variant(number), place, ecs)
        if variant.is_elsewhere:
            yield from check_permissions(reporter, profile, place, ecs)
            yield pass_role_finding(reporter)


def _other_region(
    reporter: Reporter, config: Config, profile: Profile, number: int, place: Target
) -> Iterator[Finding]:
    """Check what a Region does not share with the queue's own: subnets, security groups, ECS events."""
    variant = profile.capacity_fallback[number - 2]
    for key in ("subnets", "security_groups"):
        if getattr(profile, key) and getattr(variant, key) is None:
            text = f"{key} are the queue's own, and those of one Region do not exist in {place.region}"
            yield reporter.error("aws.network", text, f"give the variant {key} of {place.region}")
    if config.event_queue_url_for(profile.queue):
        text = f"ECS events of {place.region} come only if a rule there forwards them; its tasks are polled without"
        yield reporter.info("aws.event_queue", text)


def _cluster_and_capacity(reporter: Reporter, profile: Profile, place: Target, ecs: Any) -> Iterator[Finding]:
    """Check the cluster, and that it has what the variant's tasks are to run on."""
    answer, reason, error_kind = call_aws(ecs.describe_clusters, clusters=[place.cluster])
    finding = cluster_finding(reporter, place, answer, reason, error_kind)
    yield finding
    if finding.severity is not Severity.OK:
        return
    if is_not_aws(ecs.meta.endpoint_url):
        yield reporter.info(_CHECK, f"{describe_capacity(profile)}: not checked, {ecs.meta.endpoint_url} is not AWS")
        return
    defects = list(capacity_defects(reporter, _CHECK, profile, place, answer["clusters"][0]))
    yield from defects
    if not defects:
        yield reporter.ok(_CHECK, f"{describe_capacity(profile)} in cluster {place.cluster} in {place.region}")
