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
from ecs_queue.core.answers import TroubleKind
from ecs_queue.doctor.asking import asked
from ecs_queue.doctor.definition import examine_definition
from ecs_queue.doctor.finding import Finding, Level, Report
from ecs_queue.doctor.server import is_loopback
from ecs_queue.ecs.clients import Target
from ecs_queue.errors import EcsQueueError

#: A client of an AWS service, by its name, with the credentials of the queue's profile.
ClientFor = Callable[[str], Any]
POLICY = "grant it as in conf/iam-worker-policy.json"
#: No task definition has so many revisions: the calls with it are judged by IAM and then refused.
_NO_REVISION = 2_147_483_647
#: The id of no task: ids are random.
_NO_TASK = "0" * 32
#: AWS's published throttling quotas: calls a second and burst (ECS_FACTS in docs: RunTask on Fargate, RunTask, reads).
_FARGATE_LAUNCHES, _TASK_CALLS, _READ_CALLS, _BURST = 20, 40, 20, 100
_VCPU_QUOTA = "L-3032A538"  # Fargate On-Demand vCPU resource count


def examine_account(config: Config, profile: Profile, target: Target, client_for: ClientFor) -> Iterator[Finding]:
    """Everything about one queue's profile that AWS can be asked."""
    report = Report(profile.queue)
    try:
        ecs = client_for("ecs")
    except (EcsQueueError, BotoCoreError) as error:
        yield report.wrong("aws.credentials", str(error), "set AWS_PROFILE, AWS_ACCESS_KEY_ID ... or a role")
        return
    elsewhere = not_aws(ecs.meta.endpoint_url)
    if elsewhere:
        yield report.note("aws.identity", f"not asked: {ecs.meta.endpoint_url} is not AWS")
    else:
        yield from _identity(report, client_for("sts"))
    usable = True
    for finding in _cluster(report, ecs, target):
        usable = usable and finding.level is not Level.WRONG
        yield finding
    if not usable:
        return
    yield from examine_definition(report, profile, target, ecs, None if elsewhere else client_for("logs"))
    yield from examine_rights(report, profile, target, ecs)
    yield from examine_rates(report, config, profile)
    if not elsewhere and _is_fargate(profile):
        yield from _vcpus(report, client_for("service-quotas"))


def not_aws(endpoint_url: str) -> bool:
    """Whether the endpoint is a stand-in (a local ECS, moto): the other services are not there then."""
    host = urlsplit(endpoint_url).hostname or ""
    return is_loopback(host) or not host.endswith((".amazonaws.com", ".amazonaws.com.cn", ".api.aws"))


def _identity(report: Report, sts: Any) -> Iterator[Finding]:
    answer, reason, trouble = asked(sts.get_caller_identity)
    if trouble is None:
        yield report.ok("aws.identity", f"{answer.get('Arn')} in account {answer.get('Account')}")
    else:
        yield report.wrong("aws.identity", reason, "renew the credentials, or correct role_arn and its trust policy")


def _cluster(report: Report, ecs: Any, target: Target) -> Iterator[Finding]:
    where = f"cluster {target.cluster} in {target.region}"
    answer, reason, trouble = asked(ecs.describe_clusters, clusters=[target.cluster])
    if trouble is TroubleKind.DENIED:
        yield report.note("aws.cluster", f"{where} cannot be looked at: {reason}")
        return
    if trouble is not None:
        yield report.wrong("aws.cluster", f"{where}: {reason}", "check region_name, endpoint_url and the credentials")
        return
    found = answer.get("clusters") or []
    if not found:
        yield report.wrong("aws.cluster", f"{where} does not exist", "check cluster and region_name, or create it")
    elif found[0].get("status") != "ACTIVE":
        text = f"{where} is {found[0].get('status')}"
        yield report.wrong("aws.cluster", text, "use an ACTIVE cluster: no task can be started in this one")
    else:
        running = found[0].get("runningTasksCount", 0)
        yield report.ok("aws.cluster", f"{where} is ACTIVE, {running} tasks run there")


def examine_rights(report: Report, profile: Profile, target: Target, ecs: Any) -> Iterator[Finding]:
    """Each call a worker makes, for a thing that does not exist: IAM is asked before ECS looks."""
    family = str(profile.task_definition or profile.run_task_kwargs.get("taskDefinition")).rsplit("/", 1)[-1]
    nothing = f"{family.partition(':')[0]}:{_NO_REVISION}"
    calls: dict[str, Callable[[], Any]] = {
        "ecs:RunTask": lambda: ecs.run_task(cluster=target.cluster, taskDefinition=nothing, count=1),
        "ecs:DescribeTasks": lambda: ecs.describe_tasks(cluster=target.cluster, tasks=[_NO_TASK]),
        "ecs:ListTasks": lambda: ecs.list_tasks(cluster=target.cluster, startedBy="ecs-queue/doctor"),
        "ecs:StopTask": lambda: ecs.stop_task(cluster=target.cluster, task=_NO_TASK, reason="ecs-queue doctor"),
    }
    granted, unknown = [], []
    for action, call in calls.items():
        _, reason, trouble = asked(call)
        if trouble is TroubleKind.DENIED:
            yield report.wrong("aws.rights", f"{action} is denied: {reason}", POLICY)
        elif trouble in (TroubleKind.UNAVAILABLE, TroubleKind.THROTTLED, TroubleKind.PROFILE):
            unknown.append(f"{action}: {reason}")
        else:
            granted.append(action)
    for text in unknown:
        yield report.note("aws.rights", text, "run the doctor again")
    if granted:
        yield report.ok("aws.rights", f"allowed: {', '.join(granted)}")
    yield report.note("aws.rights", "iam:PassRole shows only with a real launch", "add --canary")


def examine_rates(report: Report, config: Config, profile: Profile) -> Iterator[Finding]:
    """The configured rates beside AWS's published quotas."""
    launches = _FARGATE_LAUNCHES if _is_fargate(profile) else _TASK_CALLS
    limits = (
        ("run_task", config.run_task_rate, config.run_task_burst, launches),
        ("describe_tasks", config.describe_tasks_rate, config.describe_tasks_burst, _READ_CALLS),
    )
    for name, rate, burst, quota in limits:
        text = f"{name}_rate = {rate:g}, {name}_burst = {burst}; AWS's quota is {quota} a second with burst {_BURST}"
        if rate == 0:
            yield report.warning("aws.rates", f"{name}_rate = 0: no limit", "set it, or AWS throttles the account")
        elif rate > quota or burst > _BURST:
            advice = "lower them, unless AWS has raised this account's quota: what is above is throttled"
            yield report.warning("aws.rates", text, advice)
        else:
            yield report.ok("aws.rates", text)


def _vcpus(report: Report, quotas: Any) -> Iterator[Finding]:
    answer, reason, trouble = asked(quotas.get_service_quota, ServiceCode="fargate", QuotaCode=_VCPU_QUOTA)
    if trouble is not None:
        text = f"the account's Fargate vCPU quota is not known: {reason}"
        yield report.note("aws.vcpus", text, "servicequotas:GetServiceQuota lets the doctor look")
        return
    value = float((answer.get("Quota") or {}).get("Value") or 0)
    yield report.ok("aws.vcpus", f"Fargate On-Demand: {value:g} vCPUs at a time in this account and Region")


def _is_fargate(profile: Profile) -> bool:
    if profile.capacity_provider_strategy is not None:
        return any("FARGATE" in str(entry.get("capacityProvider")) for entry in profile.capacity_provider_strategy)
    return profile.launch_type in (None, "FARGATE")
