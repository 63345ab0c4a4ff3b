"""Checks a profile's task definition: that it exists, has the container, fits the launch type, and can log."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ecs_queue.config import Config, Profile
from ecs_queue.doctor.aws_call import call_aws
from ecs_queue.doctor.warm_queue import check_warm_queue
from ecs_queue.ecs.awslogs import awslogs_options
from ecs_queue.ecs.clients import Target
from ecs_queue.findings import Finding, Reporter
from ecs_queue.protocol.aws_reasons import TASK_DEFINITION_ADVICE
from ecs_queue.protocol.ecs_results import EcsErrorKind
from ecs_queue.runtask.capacity import is_fargate

_SHELLS = frozenset({"sh", "bash", "ash", "dash", "zsh", "ksh"})
_POLICY_ADVICE = "grant what conf/iam-doctor-policy.json has, to check it"


def check_task_definition(
    reporter: Reporter, config: Config, profile: Profile, target: Target, ecs: Any, logs: Any
) -> Iterator[Finding]:
    """Check the task definition. `logs` is a CloudWatch Logs client; None: the endpoint is not AWS."""
    finding, definition = _describe(reporter, profile, ecs)
    yield finding
    if definition is None:
        return
    yield from _container(reporter, profile, definition)
    names = [container["name"] for container in definition["containerDefinitions"]]
    if profile.warm_seconds and profile.container_name in names:
        yield from check_warm_queue(reporter, config, profile, definition, has_secrets=logs is not None)
    yield from _placement(reporter, profile, definition)
    options = awslogs_options(definition, profile.container_name)
    if isinstance(options, str):
        yield reporter.info("aws.log_group", options)
    elif logs is None:
        text = f"awslogs to {options['awslogs-group']}: not checked, {ecs.meta.endpoint_url} is not AWS"
        yield reporter.info("aws.log_group", text)
    else:
        yield _log_group(reporter, target, options, logs)


def check_definition(reporter: Reporter, profile: Profile, target: Target, ecs: Any) -> Iterator[Finding]:
    """Check what a variant of a queue's capacity needs of its task definition, in the Region of `target`."""
    region = _region_of(_name(profile))
    if region not in ("", target.region):
        text = f"task_definition is an ARN of {region}, and this variant launches in {target.region}"
        yield reporter.error("aws.task_definition", text, "name the family, and register it in both Regions")
        return
    finding, definition = _describe(reporter, profile, ecs)
    yield finding
    if definition is not None:
        yield from _container(reporter, profile, definition)
        yield from _placement(reporter, profile, definition)


def _name(profile: Profile) -> str:
    return str(profile.task_definition or profile.run_task_kwargs.get("taskDefinition"))


def _region_of(name: str) -> str:
    """The Region of an ARN; "" for a family, because each Region has its own families."""
    parts = name.split(":")
    return parts[3] if parts[0] == "arn" and len(parts) > 4 else ""


def _describe(reporter: Reporter, profile: Profile, ecs: Any) -> tuple[Finding, Mapping[str, Any] | None]:
    """The finding, and the task definition; None when it cannot be read."""
    name = _name(profile)
    answer, reason, error_kind = call_aws(ecs.describe_task_definition, taskDefinition=name)
    if error_kind is not None:
        return _describe_failure(reporter, name, reason, error_kind), None
    definition = answer["taskDefinition"]
    shown = f"{definition.get('family')}:{definition.get('revision')}"
    if definition.get("status") == "ACTIVE":
        return reporter.ok("aws.task_definition", f"task definition {shown} is ACTIVE"), definition
    text = f"task definition {shown} is {definition.get('status')}"
    return reporter.error("aws.task_definition", text, "register a new revision, or name an ACTIVE one"), definition


def _describe_failure(reporter: Reporter, name: str, reason: str, error_kind: EcsErrorKind) -> Finding:
    if error_kind is EcsErrorKind.DENIED:
        text = f"task definition {name} cannot be checked: ecs:DescribeTaskDefinition is denied"
        return reporter.info("aws.task_definition", text, _POLICY_ADVICE)
    if error_kind in (EcsErrorKind.UNAVAILABLE, EcsErrorKind.THROTTLED):
        return reporter.info("aws.task_definition", reason, "run the doctor again")
    text = f"task definition {name} does not exist: {reason.removesuffix(TASK_DEFINITION_ADVICE).rstrip()}"
    return reporter.error("aws.task_definition", text, "check task_definition and region_name, or register it")


def _container(reporter: Reporter, profile: Profile, definition: Mapping[str, Any]) -> Iterator[Finding]:
    containers = {container["name"]: container for container in definition["containerDefinitions"]}
    names, main = list(containers), containers.get(profile.container_name or "")
    if main is not None:
        yield reporter.ok("aws.container", f"the task definition has the container {profile.container_name}")
        yield from _check_main_container(reporter, main)
        return
    text = f"the task definition has no container {profile.container_name!r}, only {', '.join(names)}"
    yield reporter.error("aws.container", text, "set container_name to the container that runs the command")


def _check_main_container(reporter: Reporter, main: Mapping[str, Any]) -> Iterator[Finding]:
    """Warn of what runs something other than a request's command, or does not end with it."""
    entry_point = [str(part) for part in main.get("entryPoint") or ()]
    if entry_point and _swallows_command(entry_point):
        text = f"its entryPoint {entry_point} swallows the command: a shell takes its words as script and arguments"
        advice = 'remove entryPoint from the task definition, or let its script end with exec "$@" and a word for $0'
        yield reporter.warning("aws.entry_point", text, advice)
    elif entry_point:
        yield reporter.info("aws.entry_point", f"a request's command is appended to its entryPoint {entry_point}")
    if main.get("essential") is False:
        text = f"the container {main['name']} is not essential: the task goes on after its command has ended"
        yield reporter.warning("aws.essential", text, "set essential to true for it, and to false for side-cars")


def _swallows_command(entry_point: Sequence[str]) -> bool:
    """Whether it is a shell with -c whose script does not run its arguments."""
    shell, *arguments = entry_point
    if shell.rpartition("/")[2] not in _SHELLS:
        return False
    has_script = any(part.startswith("-") and not part.startswith("--") and "c" in part for part in arguments)
    return has_script and not any(word in part for part in arguments for word in ("$@", "$*"))


def _placement(reporter: Reporter, profile: Profile, definition: Mapping[str, Any]) -> Iterator[Finding]:
    """Launch type and network mode must fit the task definition, otherwise RunTask refuses every task."""
    compatible, strategy = definition.get("compatibilities") or [], profile.capacity_provider_strategy
    launch_type = _launch_type_of(strategy) if strategy is not None else (profile.launch_type or "FARGATE")
    if launch_type and compatible and launch_type not in compatible:
        text = f"it is compatible with {', '.join(compatible)}, not with launch_type {launch_type}"
        if strategy:
            text = f"{text}, that of its capacity providers"
        yield reporter.error("aws.launch_type", text, "set requiresCompatibilities in it, or another launch_type")
    system = str((definition.get("runtimePlatform") or {}).get("operatingSystemFamily") or "LINUX")
    if any(entry.get("capacityProvider") == "FARGATE_SPOT" for entry in strategy or ()) and system != "LINUX":
        text = f"Fargate Spot runs Linux only, and the task definition has {system}"
        yield reporter.error("aws.launch_type", text, "use FARGATE for this queue")
    mode = definition.get("networkMode")
    if mode is None:
        return
    if launch_type == "FARGATE" and mode != "awsvpc":
        advice = "register it with networkMode awsvpc"
        yield reporter.error("aws.network", f"Fargate needs networkMode awsvpc, it has {mode}", advice)
    elif mode == "awsvpc" and not (profile.subnets or profile.run_task_kwargs.get("networkConfiguration")):
        yield reporter.error("aws.network", "its networkMode is awsvpc, and no subnets are set", "set subnets")
    elif mode != "awsvpc" and profile.subnets:
        text = f"subnets are set and its networkMode is {mode}: ECS refuses the network configuration"
        yield reporter.error("aws.network", text, "remove subnets and security_groups, or use networkMode awsvpc")


def _launch_type_of(strategy: Sequence[Mapping[str, Any]]) -> str | None:
    """The launch type that the tasks of a strategy have; None where the cluster decides, or none fits."""
    kinds = {is_fargate({"capacityProviderStrategy": [entry]}) for entry in strategy}
    return None if len(kinds) != 1 else "FARGATE" if kinds == {True} else "EC2"


def _log_group(reporter: Reporter, target: Target, options: Mapping[str, str], logs: Any) -> Finding:
    group = options["awslogs-group"]
    if options.get("awslogs-create-group") == "true":
        text = f"awslogs to {group}, which it creates; whether the execution role may do that was not checked"
        return reporter.info("aws.log_group", text, "it needs logs:CreateLogGroup")
    if options.get("awslogs-region", target.region) != target.region:
        return reporter.info("aws.log_group", f"{group} is in {options['awslogs-region']}, and was not checked")
    answer, reason, error_kind = call_aws(logs.describe_log_groups, logGroupNamePrefix=group)
    if error_kind is not None:
        return reporter.info("aws.log_group", f"the log group {group} cannot be checked: {reason}", _POLICY_ADVICE)
    if any(entry.get("logGroupName") == group for entry in answer["logGroups"]):
        return reporter.ok("aws.log_group", f"awslogs to {group}, which exists")
    text = f"the log group {group} does not exist: every task would fail to start"
    return reporter.error("aws.log_group", text, "create it, or set awslogs-create-group in the task definition")
