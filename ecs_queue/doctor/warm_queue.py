"""Checks what a warm queue needs of its task definition: no restart policy, the runner's secrets, a platform for it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ecs_queue.config import Config, Profile
from ecs_queue.findings import Finding, Reporter
from ecs_queue.runs.runner_options import KEY_VARIABLE, RUNNER_COMMAND, URL_VARIABLE
from ecs_queue.runtask.capacity import choose_capacity, is_fargate

#: The first one whose containers have ECS_CONTAINER_METADATA_URI_V4.
_FARGATE_PLATFORM = (1, 4)


def check_warm_queue(
    reporter: Reporter, config: Config, profile: Profile, definition: Mapping[str, Any], *, has_secrets: bool
) -> Iterator[Finding]:
    """Check the task definition of a queue with `warm_seconds`, which has the profile's container.

    Args:
        reporter: Makes the findings.
        config: Whether it has keys decides whether runners need one.
        profile: The queue's.
        definition: As DescribeTaskDefinition returns it. No finding shows a value of its environments.
        has_secrets: False: an endpoint that is not AWS, whose containers get the runner's variables from elsewhere.
    """
    main = next(found for found in definition["containerDefinitions"] if found["name"] == profile.container_name)
    if (main.get("restartPolicy") or {}).get("enabled"):
        text = f"the container {main['name']} has a restart policy: a command would hang until its time limit"
        advice = "remove restartPolicy from it, because warm_seconds is set, and register a new revision"
        yield reporter.error("aws.restart_policy", text, advice)
    else:
        yield reporter.ok("aws.restart_policy", f"the container {main['name']} has no restart policy")
    for text, advice in _platform_defects(profile, definition):
        yield reporter.error("aws.runner_platform", text, advice)
    if has_secrets:
        yield from _secrets(reporter, config, profile, definition, main)
    else:
        text = "the secrets of runners were not checked: the endpoint is not AWS"
        yield reporter.info("aws.runner_secrets", text)
    text = f"the image {main.get('image')} cannot be looked into: it needs `{' '.join(RUNNER_COMMAND)}`"
    yield reporter.info("aws.runner_image", text, "install ecs-queue[runner] in it, and add --canary to try it")


def _platform_defects(profile: Profile, definition: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield (what is wrong, what to do) for platforms on which no runner can start. Other containers do not matter."""
    system = str((definition.get("runtimePlatform") or {}).get("operatingSystemFamily") or "LINUX")
    if system != "LINUX":
        yield f"a runner needs Linux, the task definition has {system}", "set warm_seconds = 0 for this queue"
    if definition.get("networkMode") == "none":
        yield "its networkMode is none: a runner cannot reach the server", "use networkMode awsvpc or bridge"
    version = str(profile.run_task_kwargs.get("platformVersion") or profile.platform_version or "")
    parts = version.split(".")
    is_old = all(part.isdecimal() for part in parts) and tuple(map(int, parts)) < _FARGATE_PLATFORM
    if is_old and is_fargate(choose_capacity(profile, profile.run_task_kwargs, {})):
        yield f"a runner needs Fargate 1.4.0 or later, platform_version is {version}", "set platform_version = LATEST"


def _secrets(
    reporter: Reporter, config: Config, profile: Profile, definition: Mapping[str, Any], main: Mapping[str, Any]
) -> Iterator[Finding]:
    has_keys = bool(config.signing_keys or config.encryption_keys)
    secrets = {entry["name"] for entry in main.get("secrets") or ()}
    plain = list(_plain_variables(profile, definition))
    for variable, place in plain:
        text = f"{variable} stands in plain text in {place}, where every reader of task definitions or tasks sees it"
        advice = "put a new password or key into a secret, and name that in `secrets` of the container"
        yield reporter.error("aws.runner_secrets", text, advice)
    needed = {URL_VARIABLE: "the server's URL, with the user for runners"}
    if has_keys:
        needed[KEY_VARIABLE] = f"what `ecs-queue runner-key {profile.queue}` prints"
    for variable, content in needed.items():
        if variable not in secrets:
            text = f"the container {main['name']} does not get {variable} as a secret: a runner cannot work without it"
            yield reporter.error("aws.runner_secrets", text, f"name it in `secrets`; the value is {content}")
    if not has_keys and KEY_VARIABLE in secrets:
        text = f"{KEY_VARIABLE} is a secret of it, and without signing_keys and encryption_keys commands are unsigned: "
        yield reporter.warning("aws.runner_secrets", f"{text}runners refuse them", "set keys, or remove the secret")
    elif not plain and secrets >= needed.keys():
        yield reporter.ok("aws.runner_secrets", f"the container gets {' and '.join(needed)} as secrets")


def _plain_variables(profile: Profile, definition: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield (name, where) of the runner's secrets in environments of any container, also of the profile's overrides."""
    overrides = (profile.run_task_kwargs.get("overrides") or {}).get("containerOverrides") or ()
    places = [("run_task_kwargs", overrides), ("the task definition", definition["containerDefinitions"])]
    for place, containers in places:
        for container in containers:
            name = container.get("name") or profile.container_name
            for entry in container.get("environment") or ():
                if entry.get("name") in (URL_VARIABLE, KEY_VARIABLE):
                    yield entry["name"], f"`environment` of the container {name} in {place}"
