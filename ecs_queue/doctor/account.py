"""Checks what one queue's profile needs of AWS: identity, cluster, task definition, log group, permissions, quotas.

Every call only reads, or is one that AWS must refuse because its object does not exist. Nothing is started, stopped
or changed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

from botocore.exceptions import BotoCoreError

from ecs_queue.config import Config, Profile
from ecs_queue.doctor.aws_call import call_aws
from ecs_queue.doctor.capacity_fallback import check_capacity_fallback
from ecs_queue.doctor.server import is_loopback
from ecs_queue.doctor.task_definition import check_task_definition
from ecs_queue.ecs.clients import Target
from ecs_queue.ecs.cluster_check import capacity_finding, cluster_finding
from ecs_queue.error_text import error_text
from ecs_queue.errors import EcsQueueError
from ecs_queue.findings import Finding, Reporter, Severity
from ecs_queue.protocol.ecs_results import EcsErrorKind
from ecs_queue.runtask.capacity import leaves_capacity_to_the_cluster

#: Makes a client of an AWS service, given by name, with the credentials of the queue's profile.
ClientFactory = Callable[[str], Any]
CREDENTIALS_ADVICE = "set AWS_PROFILE, AWS_ACCESS_KEY_ID ... or a role"
POLICY_ADVICE = "grant it as in conf/iam-worker-policy.json"
#: No task definition has this revision: IAM authorizes the call, and then ECS refuses it.
_NONEXISTENT_REVISION = 2_147_483_647
#: No task has this id: ids are random.
_NONEXISTENT_TASK_ID = "0" * 32
#: AWS's published throttling quotas: calls a second for RunTask on Fargate, RunTask, and reads; and burst.
_FARGATE_RUN_TASK_QUOTA, _RUN_TASK_QUOTA, _READ_QUOTA, _QUOTA_BURST = 20, 40, 20, 100
_VCPU_QUOTA_CODE = "L-3032A538"  # Fargate On-Demand vCPU resource count


def check_account(config: Config, profile: Profile, target: Target, make_client: ClientFactory) -> Iterator[Finding]:
    """Check everything about one queue's profile that AWS can answer."""
    reporter = Reporter(profile.queue)
    try:
        ecs = make_client("ecs")
    except (EcsQueueError, BotoCoreError) as error:
        yield reporter.error("aws.credentials", error_text(error), CREDENTIALS_ADVICE)
        return
    is_stand_in = is_not_aws(ecs.meta.endpoint_url)
    if is_stand_in:
        yield reporter.info("aws.identity", f"not checked: {ecs.meta.endpoint_url} is not AWS")
    else:
        yield from _identity(reporter, make_client("sts"))
    cluster, strategy = _cluster(reporter, ecs, target)
    yield cluster
    if cluster.severity is Severity.ERROR:
        return
    if leaves_capacity_to_the_cluster(profile):
        asks_for_default = profile.capacity_provider_strategy is not None
        yield capacity_finding(reporter, strategy, asks_for_default=asks_for_default)
    yield from check_capacity_fallback(reporter, profile, target, ecs)
    logs = None if is_stand_in else make_client("logs")
    yield from check_task_definition(reporter, config, profile, target, ecs, logs)
    yield from check_permissions(reporter, profile, target, ecs)
    yield from check_rate_limits(reporter, config, profile)
    if not is_stand_in and _is_fargate(profile):
        yield from _vcpu_quota(reporter, make_client("service-quotas"))


def is_not_aws(endpoint_url: str) -> bool:
    """Return whether the endpoint is a stand-in (a local ECS, moto), without AWS's other services."""
    host = urlsplit(endpoint_url).hostname or ""
    return is_loopback(host) or not host.endswith((".amazonaws.com", ".amazonaws.com.cn", ".api.aws"))


def _identity(reporter: Reporter, sts: Any) -> Iterator[Finding]:
    answer, reason, error_kind = call_aws(sts.get_caller_identity)
    if error_kind is None:
        yield reporter.ok("aws.identity", f"{answer.get('Arn')} in account {answer.get('Account')}")
    else:
        yield reporter.error("aws.identity", reason, "renew the credentials, or correct role_arn and its trust policy")


def _cluster(reporter: Reporter, ecs: Any, target: Target) -> tuple[Finding, list[dict[str, Any]] | None]:
    """The finding, and the cluster's default capacity provider strategy; None when it cannot be read."""
    answer, reason, error_kind = call_aws(ecs.describe_clusters, clusters=[target.cluster])
    clusters = answer.get("clusters") or [{}]
    strategy = None if error_kind else clusters[0].get("defaultCapacityProviderStrategy") or []
    return cluster_finding(reporter, target, answer, reason, error_kind), strategy


def check_permissions(reporter: Reporter, profile: Profile, target: Target, ecs: Any) -> Iterator[Finding]:
    """Make each call of a worker for an object that does not exist: IAM authorizes it before ECS refuses it."""
    family = str(profile.task_definition or profile.run_task_kwargs.get("taskDefinition")).rsplit("/", 1)[-1]
    nothing = f"{family.partition(':')[0]}:{_NONEXISTENT_REVISION}"
    calls: dict[str, Callable[[], Any]] = {
        "ecs:RunTask": lambda: ecs.run_task(cluster=target.cluster, taskDefinition=nothing, count=1),
        "ecs:DescribeTasks": lambda: ecs.describe_tasks(cluster=target.cluster, tasks=[_NONEXISTENT_TASK_ID]),
        "ecs:ListTasks": lambda: ecs.list_tasks(cluster=target.cluster, startedBy="ecs-queue/doctor"),
        "ecs:StopTask": lambda: ecs.stop_task(
            cluster=target.cluster, task=_NONEXISTENT_TASK_ID, reason="ecs-queue doctor"
        ),
    }
    if profile.tag_labels or profile.run_task_kwargs.get("tags"):
        tags = [{"key": "ecs-queue", "value": "doctor"}]
        calls["ecs:TagResource"] = lambda: ecs.run_task(
            cluster=target.cluster, taskDefinition=nothing, count=1, tags=tags
        )
    granted, unknown = [], []
    for action, call in calls.items():
        _, reason, error_kind = call_aws(call)
        if error_kind is EcsErrorKind.DENIED:
            yield reporter.error("aws.permissions", f"{action} is denied: {reason}", POLICY_ADVICE)
        elif error_kind in (EcsErrorKind.UNAVAILABLE, EcsErrorKind.THROTTLED, EcsErrorKind.UNUSABLE_PROFILE):
            unknown.append(f"{action}: {reason}")
        else:
            granted.append(action)
    for text in unknown:
        yield reporter.info("aws.permissions", text, "run the doctor again")
    if granted:
        yield reporter.ok("aws.permissions", f"allowed: {', '.join(granted)}")
    yield reporter.info("aws.permissions", "iam:PassRole is only tested by a real launch", "add --canary")


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
