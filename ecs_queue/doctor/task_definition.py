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
from ecs_queue.protocol.ecs_results import EcsErrorKind

_SHELLS = frozenset({"sh", "bash", "ash", "dash", "zsh", "ksh"})
_POLICY_ADVICE = "grant what conf/iam-doctor-policy.json has, to check it"


def check_task_definition(
    reporter: Reporter, config: Config, profile: Profile, target: Target, ecs: Any, logs: Any
) -> Iterator[Finding]:
    """Check the task definition. `logs` is a CloudWatch Logs client; None: not AWS, without log groups and secrets."""
    name = str(profile.task_definition or profile.run_task_kwargs.get("taskDefinition"))
    answer, reason, error_kind = call_aws(ecs.describe_task_definition, taskDefinition=name)
    if error_kind is not None:
        yield _describe_failure(reporter, name, reason, error_kind)
        return
    definition = answer["taskDefinition"]
    shown = f"{definition.get('family')}:{definition.get('revision')}"
    if definition.get("status") != "ACTIVE":
        text = f"task definition {shown} is {definition.get('status')}"
        yield reporter.error("aws.task_definition", text, "register a new revision, or name an ACTIVE one")
    else:
        yield reporter.ok("aws.task_definition", f"{shown} is ACTIVE")
    yield from _container(reporter, profile, definition)
    names = [container["name"] for container in definition["containerDefinitions"]]
    if profile.warm_seconds and profile.container_name in names:
        yield from check_warm_queue(reporter, config, profile, definition, has_secrets=logs is not None)
    yield from _placement(reporter, profile, definition)
    yield from _log_group(reporter, profile, target, definition, logs)


def _describe_failure(reporter: Reporter, name: str, reason: str, error_kind: EcsErrorKind) -> Finding:
    if error_kind is EcsErrorKind.DENIED:
        text = f"task definition {name} cannot be checked: ecs:DescribeTaskDefinition is denied"
        return reporter.info("aws.task_definition", text, _POLICY_ADVICE)
    if error_kind in (EcsErrorKind.UNAVAILABLE, EcsErrorKind.THROTTLED):
        return reporter.info("aws.task_definition", reason, "run the doctor again")
    text = f"task definition {name} does not exist: {reason}"
    return reporter.error("aws.task_definition", text, "check task_definition and region_name, or register it")


def _container(reporter: Reporter, profile: Profile, definition: Mapping[str, Any]) -> Iterator[Finding]:
    containers = {container["name"]: container for container in definition["containerDefinitions"]}
    names, main = list(containers), containers.get(profile.container_name or "")
    if main is not None:
        yield reporter.ok("aws.container", f"it has the container {profile.container_name}")
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
    compatible = definition.get("compatibilities") or []
    launch_type = None if profile.capacity_provider_strategy is not None else (profile.launch_type or "FARGATE")
    if launch_type and compatible and launch_type not in compatible:
        text = f"it is compatible with {', '.join(compatible)}, not with launch_type {launch_type}"
        yield reporter.error("aws.launch_type", text, "set requiresCompatibilities in it, or another launch_type")
    mode = definition.get("networkMode")
    if mode is None:
        return
    if launch_type == "FARGATE" and mode != "awsvpc":
        advice = "register it with networkMode awsvpc"
        yield reporter.error("aws.network", f"Fargate needs networkMode awsvpc, it has {mode}", advice)
    elif mode != "awsvpc" and profile.subnets:
        text = f"subnets are set and its networkMode is {mode}: ECS refuses the network configuration"
        yield reporter.error("aws.network", text, "remove subnets and security_groups, or use networkMode awsvpc")


def _log_group(
    reporter: Reporter, profile: Profile, target: Target, definition: Mapping[str, Any], logs: Any
) -> Iterator[Finding]:
    options = awslogs_options(definition, profile.container_name)
    if isinstance(options, str):
        yield reporter.info("aws.log_group", options)
        return
    group = options["awslogs-group"]
    if options.get("awslogs-create-group") == "true" or logs is None:
        yield reporter.ok("aws.log_group", f"awslogs to {group}")
        return
    if options.get("awslogs-region", target.region) != target.region:
        yield reporter.info("aws.log_group", f"{group} is in {options['awslogs-region']}, and was not checked")
        return
    answer, reason, error_kind = call_aws(logs.describe_log_groups, logGroupNamePrefix=group)
    if error_kind is not None:
        text = f"the log group {group} cannot be checked: {reason}"
        yield reporter.info("aws.log_group", text, _POLICY_ADVICE)
    elif any(entry.get("logGroupName") == group for entry in answer["logGroups"]):
        yield reporter.ok("aws.log_group", f"awslogs to {group}, which exists")
    else:
        text = f"the log group {group} does not exist: every task would fail to start"
        yield reporter.error("aws.log_group", text, "create it, or set awslogs-create-group in the task definition")
