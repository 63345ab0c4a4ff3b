"""Checks what one queue's profile needs of AWS: identity, cluster, task definition, log group, permissions, quotas.

Every call only reads, or is one that AWS must refuse because its object does not exist. Nothing is started, stopped
or changed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from botocore.exceptions import BotoCoreError

from ecs_queue.config import Config, Profile
from ecs_queue.doctor.aws_call import CREDENTIALS_ADVICE, call_aws, is_not_aws
from ecs_queue.doctor.capacity import capacity_defects, describe_capacity
from ecs_queue.doctor.permissions import check_permissions, pass_role_finding
from ecs_queue.doctor.task_definition import check_task_definition
from ecs_queue.ecs.clients import Target
from ecs_queue.ecs.cluster_check import capacity_finding, cluster_finding
from ecs_queue.error_text import error_text
from ecs_queue.errors import EcsQueueError
from ecs_queue.findings import Finding, Reporter, Severity
from ecs_queue.runtask.capacity import leaves_capacity_to_the_cluster

#: Makes a client of an AWS service, given by name, with the credentials of the queue's profile.
ClientFactory = Callable[[str], Any]
#: AWS's published throttling quotas: calls a second for RunTask on Fargate, RunTask, and reads; and burst.
_FARGATE_RUN_TASK_QUOTA, _RUN_TASK_QUOTA, _READ_QUOTA, _QUOTA_BURST = 20, 40, 20, 100
_VCPU_QUOTA_CODE = "L-3032A538"  # Fargate On-Demand vCPU resource count


def check_account(
    config: Config, profile: Profile, target: Target, make_client: ClientFactory, *, has_canary: bool = False
) -> Iterator[Finding]:
    """Check everything about one queue's profile that AWS can answer; `has_canary`: a launch follows."""
    reporter = Reporter(profile.queue)
    try:
        ecs = make_client("ecs")
    except (EcsQueueError, BotoCoreError) as error:
        yield reporter.error("aws.credentials", error_text(error), CREDENTIALS_ADVICE)
        return
    is_stand_in = is_not_aws(ecs.meta.endpoint_url)
    if is_stand_in:
        yield reporter.info("aws.identity", f"credentials: not checked, {ecs.meta.endpoint_url} is not AWS")
    else:
        yield from _identity(reporter, make_client("sts"))
    finding, cluster = _cluster(reporter, ecs, target)
    yield finding
    if finding.severity is Severity.ERROR:
        return
    if leaves_capacity_to_the_cluster(profile):
        asks_for_default = profile.capacity_provider_strategy is not None
        strategy = None if cluster is None else cluster.get("defaultCapacityProviderStrategy") or []
        yield capacity_finding(reporter, strategy, asks_for_default=asks_for_default)
    elif is_stand_in and profile.launch_type != "FARGATE":
        text = f"{describe_capacity(profile)}: not checked, {ecs.meta.endpoint_url} is not AWS"
        yield reporter.info("aws.capacity", text)
    if not is_stand_in:
        yield from capacity_defects(reporter, "aws.capacity", profile, target, cluster or {})
    logs = None if is_stand_in else make_client("logs")
    yield from check_task_definition(reporter, config, profile, target, ecs, logs)
    yield from check_permissions(reporter, profile, target, ecs)
    if not has_canary:
        yield pass_role_finding(reporter)
    yield from check_rate_limits(reporter, config, profile)
    if not _is_fargate(profile):
        return
    if is_stand_in:
        text = f"quota of Fargate vCPUs: not checked, {ecs.meta.endpoint_url} is not AWS"
        yield reporter.info("aws.vcpu_quota", text)
    else:
        yield from _vcpu_quota(reporter, make_client("service-quotas"))


def _identity(reporter: Reporter, sts: Any) -> Iterator[Finding]:
    answer, reason, error_kind = call_aws(sts.get_caller_identity)
    if error_kind is None:
        yield reporter.ok("aws.identity", f"{answer.get('Arn')} in account {answer.get('Account')}")
    else:
        yield reporter.error("aws.identity", reason, "renew the credentials, or correct role_arn and its trust policy")


def _cluster(reporter: Reporter, ecs: Any, target: Target) -> tuple[Finding, Mapping[str, Any] | None]:
    """The finding, and the cluster; None when it cannot be read."""
    answer, reason, error_kind = call_aws(ecs.describe_clusters, clusters=[target.cluster])
    clusters = answer.get("clusters") or [{}]
    return cluster_finding(reporter, target, answer, reason, error_kind), None if error_kind else clusters[0]


def check_rate_limits(reporter: Reporter, config: Config, profile: Profile) -> Iterator[Finding]:
    """Compare the configured rates with AWS's published quotas."""
    launches = _FARGATE_RUN_TASK_QUOTA if _is_fargate(profile) else _RUN_TASK_QUOTA
    limits = (
        ("run_task", config.run_task_rate, config.run_task_burst, launches),
        ("describe_tasks", config.describe_tasks_rate, config.describe_tasks_burst, _READ_QUOTA),
    )
    for name, rate, burst, quota in limits:
        text = f"{name}_rate = {rate:g}, {name}_burst = {burst}; AWS's quota is {quota} a second, burst {_QUOTA_BURST}"
        if rate == 0:
            advice = "set it, or AWS throttles the account"
            yield reporter.warning("aws.rate_limits", f"{name}_rate = 0: no limit", advice)
        elif rate > quota or burst > _QUOTA_BURST:
            advice = "lower them, unless AWS has raised this account's quota: AWS throttles calls above it"
            yield reporter.warning("aws.rate_limits", text, advice)
        else:
            yield reporter.ok("aws.rate_limits", text)
    if profile.launch_rate > config.run_task_rate > 0:
        text = f"launch_rate = {profile.launch_rate:g} has no effect: run_task_rate = {config.run_task_rate:g} is lower"
        yield reporter.warning("aws.rate_limits", text, "lower launch_rate, or remove it")


def _vcpu_quota(reporter: Reporter, quotas: Any) -> Iterator[Finding]:
    answer, reason, error_kind = call_aws(quotas.get_service_quota, ServiceCode="fargate", QuotaCode=_VCPU_QUOTA_CODE)
    if error_kind is not None:
        text = f"the account's Fargate vCPU quota cannot be read: {reason}"
        yield reporter.info("aws.vcpu_quota", text, "grant servicequotas:GetServiceQuota to check it")
        return
    value = float((answer.get("Quota") or {}).get("Value") or 0)
    yield reporter.ok("aws.vcpu_quota", f"Fargate On-Demand: {value:g} vCPUs at a time in this account and Region")


def _is_fargate(profile: Profile) -> bool:
    if profile.capacity_provider_strategy is not None:
        return any("FARGATE" in str(entry.get("capacityProvider")) for entry in profile.capacity_provider_strategy)
    return profile.launch_type in (None, "FARGATE")
