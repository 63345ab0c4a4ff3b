"""The executor's configuration: Airflow's values, loaded by ecs-queue's own loader."""

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

#: The longest wait for one answer of a server. A heartbeat of the scheduler must take less than a second: a call is
#: tried twice at most, and after a failure none is made for a while.
MAX_SOCKET_TIMEOUT_SECONDS = 0.3
_MAX_NAMESPACE_LENGTH = 32
_PROFILE_VARIABLE_PREFIX = f"{PROFILE_SECTION.upper()}_"


@dataclass(frozen=True, slots=True)
class SchedulerTimeouts:
    """The scheduler's own time-outs, in seconds.

    Attributes:
        task_heartbeat: A running task without a heartbeat for this time is dead for Airflow.
        requeue: Within this time Airflow has queued again a task that is stuck in queued.
    """

    task_heartbeat: float
    requeue: float


class AirflowConf(Protocol):
    """The part of `airflow.executors.base_executor.ExecutorConf` that is used here."""

    def get(self, section: str, key: str, *, fallback: str | None = None) -> str | None:
        """Return the value as text; `fallback` when there is none."""
        ...


def load_airflow_config(
    conf: AirflowConf, sections: Iterable[str], environ: Mapping[str, str] | None = None, team: str | None = None
) -> Config:
    """Return the configuration in [ecs_queue] and the profiles as Airflow has them (airflow.cfg, environment, secrets).

    As for workers, the file that ECS_QUEUE_CONFIG names supplies what Airflow does not set; not for a team, see
    `build_config_environ`.

    Args:
        sections: The names of airflow.cfg's sections.

    Raises:
        ConfigError: As from `load_config`.
    """
    variables = build_config_environ(conf, sections, environ, team)
    timeout = min(load_config(environ=variables).socket_timeout_seconds, MAX_SOCKET_TIMEOUT_SECONDS)
    # Durability "server": a heartbeat cannot wait for a disk. The executor notices what a fail-over of the ledger loses
    # (a submission, an adoption), and repeats it.
    return load_config(environ=variables, overrides={"socket_timeout_seconds": str(timeout), "durability": "server"})


def build_config_environ(
    conf: AirflowConf, sections: Iterable[str], environ: Mapping[str, str] | None = None, team: str | None = None
) -> dict[str, str]:
    """Return the same configuration as environment variables, for `load_config`.

    A team has a configuration of its own: `conf` is the team's, the file of ECS_QUEUE_CONFIG is not used, and the
    default namespace is `team_namespace`.
    """
    environ = os.environ if environ is None else environ
    if team:
        variables = {_variable_name(MAIN_SECTION, "namespace"): team_namespace(team)}
    else:
        variables = {name: environ[name] for name in (CONFIG_FILE_VARIABLE,) if name in environ}
    _copy_section(conf, MAIN_SECTION, MAIN_KEYS, variables)
    for section in (PROFILE_SECTION, *_find_profile_sections(sections, environ, team)):
        _copy_section(conf, section, PROFILE_KEYS, variables)
    return variables


def team_namespace(team: str) -> str:
    """Return `ecs-queue-TEAM`: teams on one server have queues, records and results of their own.

    A name that is too long is cut and gets a hash.
    """
    name = f"{MAIN_KEYS['namespace'].default}-{re.sub(r'[^A-Za-z0-9_-]', '_', team)}"
    if len(name) <= _MAX_NAMESPACE_LENGTH:
        return name
    return f"{name[: _MAX_NAMESPACE_LENGTH - 9]}-{hashlib.sha256(team.encode()).hexdigest()[:8]}"


def is_config_variable(variable: str) -> bool:
    """Return whether `load_config` reads the environment variable."""
    prefixes = (f"AIRFLOW__{MAIN_SECTION.upper()}__", f"AIRFLOW__{_PROFILE_VARIABLE_PREFIX}")
    return variable == CONFIG_FILE_VARIABLE or variable.startswith(prefixes)


def read_scheduler_timeouts(conf: AirflowConf) -> SchedulerTimeouts:
    """Return the time-outs in Airflow's global configuration: the scheduler belongs to no team."""

    def seconds(key: str, default: float) -> float:
        return float(conf.get("scheduler", key, fallback=None) or default)

    requeue = seconds("task_queued_timeout", 600) + 2 * seconds("task_queued_timeout_check_interval", 120)
    return SchedulerTimeouts(seconds("task_instance_heartbeat_timeout", 300), requeue)


def resolve_queue(config: Config, airflow_queue: str | None) -> str:
    """Return the queue of ecs-queue for a queue of Airflow: the one with its own profile, else `default`."""
    profile = config.named_profiles.get(normalize_queue_name(airflow_queue or DEFAULT_QUEUE))
    return DEFAULT_QUEUE if profile is None else profile.queue


def _copy_section(conf: AirflowConf, section: str, keys: Mapping[str, ConfigKey], target: dict[str, str]) -> None:
    for name, key in keys.items():
        value = conf.get(section, name, fallback=None)
        # A default comes from the provider's metadata; it must not hide a value in the file of ECS_QUEUE_CONFIG.
        if value is not None and str(value) != (key.default or ""):
            target[_variable_name(section, name)] = str(value)


def _variable_name(section: str, key: str) -> str:
    return f"AIRFLOW__{section.upper().replace('.', '_')}__{key.upper()}"


def _find_profile_sections(sections: Iterable[str], environ: Mapping[str, str], team: str | None) -> list[str]:
    """The sections of named profiles, in airflow.cfg or in environment variables, each under one of its spellings."""
    team_prefix = f"{team}=" if team else ""  # a team's sections of airflow.cfg are named team=section
    own_sections = {section.removeprefix(team_prefix) for section in sections if section.startswith(team_prefix)}
    found = {section for section in own_sections if section.lower().startswith(PROFILE_SECTION + ".")}
    known = {normalize_queue_name(section) for section in found}
    for variable in environ:
        # A team's variables are named AIRFLOW__TEAM___SECTION__KEY.
        start = variable.upper().find(_PROFILE_VARIABLE_PREFIX)
        if not variable.startswith("AIRFLOW__") or start < 0:
            continue
        section = variable[start:].lower().rpartition("__")[0]
        if len(section) > len(_PROFILE_VARIABLE_PREFIX) and normalize_queue_name(section) not in known:
            known.add(normalize_queue_name(section))
            found.add(f"{PROFILE_SECTION}.{section[len(_PROFILE_VARIABLE_PREFIX) :]}")
    return sorted(found)
