"""Amazon ECS as one queue's profile reaches it: identity, cluster, task definition, log group, rights and quotas.

Every call only reads, or is one that AWS must refuse for something that does not exist: nothing is started, stopped
or changed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

from botocore.exceptions import BotoCoreError

from ecs_queue.config import Config, Profile
from ecs_queue.doctor.aws_call import call_aws
from ecs_queue.doctor.finding import Finding, Reporter, Severity
from ecs_queue.doctor.server import is_loopback
from ecs_queue.doctor.task_definition import check_task_definition
from ecs_queue.ecs.clients import Target
from ecs_queue.errors import EcsQueueError
from ecs_queue.protocol.ecs_results import EcsErrorKind

#: A client of an AWS service, by its name, with the credentials of the queue's profile.
ClientFactory = Callable[[str], Any]
POLICY_ADVICE = "grant it as in conf/iam-worker-policy.json"
#: No task definition has so many revisions: the calls with it are judged by IAM and then refused.
_NONEXISTENT_REVISION = 2_147_483_647
#: The id of no task: ids are random.
_NONEXISTENT_TASK_ID = "0" * 32
#: AWS's published throttling quotas: calls a second and burst (ECS_FACTS in docs: RunTask on Fargate, RunTask, reads).
_FARGATE_RUN_TASK_QUOTA, _RUN_TASK_QUOTA, _READ_QUOTA, _QUOTA_BURST = 20, 40, 20, 100
_VCPU_QUOTA_CODE = "L-3032A538"  # Fargate On-Demand vCPU resource count


def check_account(config: Config, profile: Profile, target: Target, make_client: ClientFactory) -> Iterator[Finding]:
    """Everything about one queue's profile that AWS can be asked."""
    report = Reporter(profile.queue)
    try:
        ecs = make_client("ecs")
    except (EcsQueueError, BotoCoreError) as error:
        yield report.error("aws.credentials", str(error), "set AWS_PROFILE, AWS_ACCESS_KEY_ID ... or a role")
        return
    elsewhere = is_not_aws(ecs.meta.endpoint_url)
    if elsewhere:
        yield report.info("aws.identity", f"not asked: {ecs.meta.endpoint_url} is not AWS")
    else:
        yield from _identity(report, make_client("sts"))
    usable = True
    for finding in _cluster(report, ecs, target):
        usable = usable and finding.severity is not Severity.ERROR
        yield finding
    if not usable:
        return
    yield from check_task_definition(report, profile, target, ecs, None if elsewhere else make_client("logs"))
    yield from check_permissions(report, profile, target, ecs)
    yield from check_rate_limits(report, config, profile)
    if not elsewhere and _is_fargate(profile):
        yield from _vcpu_quota(report, make_client("service-quotas"))


def is_not_aws(endpoint_url: str) -> bool:
    """Whether the endpoint is a stand-in (a local ECS, moto): the other services are not there then."""
    host = urlsplit(endpoint_url).hostname or ""
    return is_loopback(host) or not host.endswith((".amazonaws.com", ".amazonaws.com.cn", ".api.aws"))


def _identity(reporter: Reporter, sts: Any) -> Iterator[Finding]:
    answer, reason, trouble = call_aws(sts.get_caller_identity)
    if trouble is None:
        yield reporter.ok("aws.identity", f"{answer.get('Arn')} in account {answer.get('Account')}")
    else:
        yield reporter.error("aws.identity", reason, "renew the credentials, or correct role_arn and its trust policy")


def _cluster(reporter: Reporter, ecs: Any, target: Target) -> Iterator[Finding]:
    where = f"cluster {target.cluster} in {target.region}"
    answer, reason, trouble = call_aws(ecs.describe_clusters, clusters=[target.cluster])
    if trouble is EcsErrorKind.DENIED:
        yield reporter.info("aws.cluster", f"{where} cannot be looked at: {reason}")
        return
    if trouble is not None:
        yield reporter.error("aws.cluster", f"{where}: {reason}", "check region_name, endpoint_url and the credentials")
        return
    found = answer.get("clusters") or []
    if not found:
        yield reporter.error("aws.cluster", f"{where} does not exist", "check cluster and region_name, or create it")
    elif found[0].get("status") != "ACTIVE":
        text = f"{where} is {found[0].get('status')}"
        yield reporter.error("aws.cluster", text, "use an ACTIVE cluster: no task can be started in this one")
    else:
        running = found[0].get("runningTasksCount", 0)
        yield reporter.ok("aws.cluster", f"{where} is ACTIVE, {running} tasks run there")


def check_permissions(reporter: Reporter, profile: Profile, target: Target, ecs: Any) -> Iterator[Finding]:
    """Each call a worker makes, for a thing that does not exist: IAM is asked before ECS looks."""
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
    granted, unknown = [], []
    for action, call in calls.items():
        _, reason, trouble = call_aws(call)
        if trouble is EcsErrorKind.DENIED:
            yield reporter.error("aws.permissions", f"{action} is denied: {reason}", POLICY_ADVICE)
        elif trouble in (EcsErrorKind.UNAVAILABLE, EcsErrorKind.THROTTLED, EcsErrorKind.UNUSABLE_PROFILE):
            unknown.append(f"{action}: {reason}")
        else:
            granted.append(action)
    for text in unknown:
        yield reporter.info("aws.permissions", text, "run the doctor again")
    if granted:
        yield reporter.ok("aws.permissions", f"allowed: {', '.join(granted)}")
    yield reporter.info("aws.permissions", "iam:PassRole shows only with a real launch", "add --canary")


def check_rate_limits(reporter: Reporter, config: Config, profile: Profile) -> Iterator[Finding]:
    """The configured rates beside AWS's published quotas."""
    launches = _FARGATE_RUN_TASK_QUOTA if _is_fargate(profile) else _RUN_TASK_QUOTA
    limits = (
        ("run_task", config.run_task_rate, config.run_task_burst, launches),
        ("describe_tasks", config.describe_tasks_rate, config.describe_tasks_burst, _READ_QUOTA),
    )
    for name, rate, burst, quota in limits:
        text = (
            f"{name}_rate = {rate:g}, {name}_burst = {burst}; AWS's quota is {quota} a second with burst {_QUOTA_BURST}"
        )
        if rate == 0:
            yield reporter.warning(
                "aws.rate_limits", f"{name}_rate = 0: no limit", "set it, or AWS throttles the account"
            )
        elif rate > quota or burst > _QUOTA_BURST:
            advice = "lower them, unless AWS has raised this account's quota: what is above is throttled"
            yield reporter.warning("aws.rate_limits", text, advice)
        else:
            yield reporter.ok("aws.rate_limits", text)


def _vcpu_quota(reporter: Reporter, quotas: Any) -> Iterator[Finding]:
    answer, reason, trouble = call_aws(quotas.get_service_quota, ServiceCode="fargate", QuotaCode=_VCPU_QUOTA_CODE)
    if trouble is not None:
        text = f"the account's Fargate vCPU quota is not known: {reason}"
        yield reporter.info("aws.vcpu_quota", text, "servicequotas:GetServiceQuota lets the doctor look")
        return
    value = float((answer.get("Quota") or {}).get("Value") or 0)
    yield reporter.ok("aws.vcpu_quota", f"Fargate On-Demand: {value:g} vCPUs at a time in this account and Region")


def _is_fargate(profile: Profile) -> bool:
    if profile.capacity_provider_strategy is not None:
        return any("FARGATE" in str(entry.get("capacityProvider")) for entry in profile.capacity_provider_strategy)
    return profile.launch_type in (None, "FARGATE")
