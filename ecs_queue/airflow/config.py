"""The executor's configuration: Airflow's own values, read by ecs-queue's one loader."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

from ecs_queue.config import Config, load_config
from ecs_queue.config.keys import MAIN_KEYS, MAIN_SECTION, PROFILE_KEYS, PROFILE_SECTION, ConfigKey
from ecs_queue.config.model import DEFAULT_QUEUE, normalize_queue_name
from ecs_queue.config.sources import CONFIG_FILE_VARIABLE

#: The longest wait for one answer inside the scheduler's heartbeat, which must not stand still for a second: a call
#: is tried twice at most, and after a failure the server is left alone for a while. Seconds.
MAX_SOCKET_TIMEOUT_SECONDS = 0.3
_MAX_NAMESPACE_LENGTH = 32


@dataclass(frozen=True, slots=True)
class SchedulerTimeouts:
    """The scheduler's own, in seconds.

    heartbeat: after which a running task that gives no sign counts as dead. requeue: by when a task that is stuck in
    queued has surely been queued again.
    """

    task_heartbeat: float
    requeue: float


class AirflowConf(Protocol):
    """What is needed of `airflow.executors.base_executor.ExecutorConf`."""

    def get(self, section: str, key: str, *, fallback: str | None = None) -> str | None:
        """The value as text; `fallback` when there is none."""
        ...


def load_airflow_config(
    conf: AirflowConf, sections: Iterable[str], environ: Mapping[str, str] | None = None, team: str | None = None
) -> Config:
    """[ecs_queue] and the profiles as Airflow sees them (airflow.cfg, environment, commands, secrets).

    `sections`: the names of airflow.cfg's sections. The file that ECS_QUEUE_CONFIG names is the layer below, as it is
    for workers, but not for a team's, see `airflow_environment`. ConfigError as from `load_config`.
    """
    seen = build_config_environ(conf, sections, environ, team)
    answer = load_config(environ=seen).socket_timeout_seconds
    bounded = {"socket_timeout_seconds": str(min(answer, MAX_SOCKET_TIMEOUT_SECONDS)), "durability": "server"}
    # Without a barrier: waiting for a disk has no place in a heartbeat. What a fail-over of the ledger loses here
    # (a submission, an adoption) the executor notices, and does again.
    return load_config(environ=seen, overrides=bounded)


def build_config_environ(
    conf: AirflowConf, sections: Iterable[str], environ: Mapping[str, str] | None = None, team: str | None = None
) -> dict[str, str]:
    """The same configuration as variables: what `load_config` is to be given for `environ`.

    A `team` has a configuration of its own: `conf` is the team's, nothing comes from the file of ECS_QUEUE_CONFIG,
    and without a namespace of its own it has the one that `team_namespace` makes.
    """
    environ = os.environ if environ is None else environ
    seen = {name: environ[name] for name in (CONFIG_FILE_VARIABLE,) if name in environ and not team}
    if team:
        seen[_variable_name(MAIN_SECTION, "namespace")] = team_namespace(team)
    _copy_section(conf, MAIN_SECTION, MAIN_KEYS, seen)
    _copy_section(conf, PROFILE_SECTION, PROFILE_KEYS, seen)
    for section in _find_profile_sections(sections, environ, team):
        _copy_section(conf, section, PROFILE_KEYS, seen)
    return seen


def team_namespace(team: str) -> str:
    """`ecs-queue-TEAM`, so that teams on one server have queues, records and results of their own."""
    name = f"{MAIN_KEYS['namespace'].default}-{re.sub(r'[^A-Za-z0-9_-]', '_', team)}"
    if len(name) <= _MAX_NAMESPACE_LENGTH:
        return name
    return f"{name[: _MAX_NAMESPACE_LENGTH - 9]}-{hashlib.sha256(team.encode()).hexdigest()[:8]}"


def is_config_variable(variable: str) -> bool:
    """Whether an environment variable is one that `load_config` reads."""
    sections = (f"AIRFLOW__{MAIN_SECTION.upper()}__", f"AIRFLOW__{PROFILE_SECTION.upper()}_")
    return variable == CONFIG_FILE_VARIABLE or variable.startswith(sections)


def read_scheduler_timeouts(conf: AirflowConf) -> SchedulerTimeouts:
    """`conf`: Airflow's own, for the scheduler is of no team."""

    def seconds(key: str, default: float) -> float:
        return float(conf.get("scheduler", key, fallback=None) or default)

    queued, between = seconds("task_queued_timeout", 600), seconds("task_queued_timeout_check_interval", 120)
    return SchedulerTimeouts(
        task_heartbeat=seconds("task_instance_heartbeat_timeout", 300), requeue=queued + 2 * between
    )


def resolve_queue(config: Config, airflow_queue: str | None) -> str:
    """The queue of ecs-queue for one of Airflow: that with a profile of its own, else `default`."""
    named = config.named_profiles.get(normalize_queue_name(airflow_queue or DEFAULT_QUEUE))
    return DEFAULT_QUEUE if named is None else named.queue


def _copy_section(conf: AirflowConf, section: str, keys: Mapping[str, ConfigKey], target: dict[str, str]) -> None:
    for name, key in keys.items():
        value = conf.get(section, name, fallback=None)
        # A default comes from the provider's metadata; it must not hide what ECS_QUEUE_CONFIG's file says.
        if value is not None and str(value) != (key.default or ""):
            target[_variable_name(section, name)] = str(value)


def _variable_name(section: str, key: str) -> str:
    return f"AIRFLOW__{section.upper().replace('.', '_')}__{key.upper()}"


def _find_profile_sections(sections: Iterable[str], environ: Mapping[str, str], team: str | None) -> list[str]:
    owner = f"{team}=" if team else ""  # so are a team's sections of airflow.cfg called: team=section
    named = {section[len(owner) :] for section in sections if section.startswith(owner)}
    found = {section for section in named if section.lower().startswith(PROFILE_SECTION + ".")}
    prefix = f"AIRFLOW__{PROFILE_SECTION.upper()}_"
    known = {normalize_queue_name(section) for section in found}
    for variable in environ:
        # A team's variables are AIRFLOW__TEAM___SECTION__KEY.
        start = variable.upper().find(prefix[len("AIRFLOW__") :])
        if not variable.startswith("AIRFLOW__") or start < 0:
            continue
        section = variable[start:].lower().rpartition("__")[0]
        if len(section) > len(PROFILE_SECTION) + 1 and normalize_queue_name(section) not in known:
            known.add(normalize_queue_name(section))
            found.add(f"{PROFILE_SECTION}.{section[len(PROFILE_SECTION) + 1 :]}")
    return sorted(found)
