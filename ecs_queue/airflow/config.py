"""The executor's configuration: Airflow's values, loaded by ecs-queue's own loader."""

from __future__ import annotations

import hashlib
import os
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

from ecs_queue.config import Config
from ecs_queue.config.layers import IniParser, LayerValue, read_environment, read_ini
from ecs_queue.config.loader import build_config
from ecs_queue.config.main_keys import MAIN_KEYS, MAIN_SECTION
from ecs_queue.config.model import DEFAULT_QUEUE
from ecs_queue.config.sources import RawConfig, RawValue, merge_layers, override_values, read_config_file
from ecs_queue.errors import ConfigError
from ecs_queue.messages.queue_names import canonical_queue_name
from ecs_queue.server_url import shorten_time_limits

#: The longest wait for one answer of a server. A heartbeat of the scheduler must take less than a second: a call is
#: tried twice at most, and after a failure none is made for a while.
MAX_SOCKET_TIMEOUT_SECONDS = 0.3
_MAX_NAMESPACE_LENGTH, _MAX_OWNER_LENGTH = 32, 64


@dataclass(frozen=True, slots=True)
class SchedulerTimeouts:
    """The scheduler's own time-outs, in seconds.

    Attributes:
        task_heartbeat: A running task without a heartbeat for this time is dead for Airflow.
        requeue: Within this time Airflow has queued again a task that is stuck in queued.
    """

    task_heartbeat: float
    requeue: float


class AirflowConf(IniParser, Protocol):
    """The part of `airflow.configuration.conf` that is used here: it is the parser of airflow.cfg too."""

    def get(self, section: str, key: str, *, fallback: str | None = None, **team: Any) -> str | None:
        """Return the value in effect as text; `fallback` when there is none. `team` is `team_name` or nothing."""
        ...


@dataclass(frozen=True, slots=True)
class AirflowSources:
    """What Airflow adds to the sources of the configuration.

    Attributes:
        conf: Airflow's global configuration.
        cfg_path: The path of airflow.cfg.
        team: A team has a configuration of its own: its sections of airflow.cfg and its variables. The global ones and
            the file of ECS_QUEUE_CONFIG are not used, and the default namespace is `team_namespace`.
    """

    conf: AirflowConf
    cfg_path: str
    team: str | None = None

    def read(
        self,
        path: str | None = None,
        environ: Mapping[str, str] | None = None,
        overrides: Mapping[str, str] | None = None,
    ) -> RawConfig:
        """Return the merged layers: airflow.cfg < file < environment < overrides.

        The same file and variables give the same values here and in a worker without Airflow. `path`: the file in place
        of the one that ECS_QUEUE_CONFIG names.

        Raises:
            ConfigError: The file cannot be read.
        """
        environ = os.environ if environ is None else environ
        layers = [
            self._default_values(),
            read_ini(self.conf, environ, self.cfg_path, self.team),
            read_config_file(path, {} if self.team else environ),
            read_environment(environ, self.team),
            override_values(overrides or {}),
        ]
        return merge_layers(layers, self._read_secret)

    def load(
        self,
        path: str | None = None,
        environ: Mapping[str, str] | None = None,
        overrides: Mapping[str, str] | None = None,
    ) -> Config:
        """Return the configuration; see `read` and `load_config`."""
        return build_config(self.read(path, environ, overrides))

    def _default_values(self) -> list[LayerValue]:
        if not self.team:
            return []
        return [LayerValue(MAIN_SECTION, "namespace", team_namespace(self.team), f"default of the team {self.team}")]

    def _read_secret(self, key: str) -> str | None:
        """Return what `KEY_SECRET` names; only Airflow knows its secrets backend."""
        team = {"team_name": self.team} if self.team else {}
        try:
            return self.conf.get(MAIN_SECTION, key, fallback=None, **team)
        except Exception as error:  # noqa: BLE001 - of any backend; its message may show the value
            raise ConfigError(
                f"expected a value in Airflow's secrets backend, which failed ({type(error).__name__})"
            ) from None


def load_executor_config(sources: AirflowSources, environ: Mapping[str, str] | None = None) -> Config:
    """Return the configuration of the executor, with short waits.

    Raises:
        ConfigError: As from `load_config`.
    """
    raw = sources.read(environ=environ)
    timeout = min(build_config(raw).socket_timeout_seconds, MAX_SOCKET_TIMEOUT_SECONDS)
    raw.main["socket_timeout_seconds"] = RawValue(str(timeout), "the executor")
    config = build_config(raw)
    # A URL's own time limits win over the configuration's.
    return replace(
        config,
        broker_url=shorten_time_limits(config.broker_url, MAX_SOCKET_TIMEOUT_SECONDS),
        ledger_url=shorten_time_limits(config.ledger_url, MAX_SOCKET_TIMEOUT_SECONDS),
    )


def team_namespace(team: str) -> str:
    """Return `ecs-queue-TEAM`: teams on one server have queues, records and results of their own.

    A name that is too long is cut and gets a hash.
    """
    name = f"{MAIN_KEYS['namespace'].default}-{re.sub(r'[^A-Za-z0-9_-]', '_', team)}"
    if len(name) <= _MAX_NAMESPACE_LENGTH:
        return name
    return f"{name[: _MAX_NAMESPACE_LENGTH - 9]}-{hashlib.sha256(team.encode()).hexdigest()[:8]}"


def build_owner_name(executor: Any, prefix: str | None = None) -> str:
    """Return a name that is unique to the scheduler job: no two schedulers, teams or executors share results.

    A name that is cut, or that another team and executor could have, ends with a hash.
    """
    job = secrets.token_hex(6) if executor.job_id is None else str(executor.job_id)
    team, alias = executor.team_name or "", getattr(executor.name, "alias", None) or ""
    given = "-".join(part for part in (prefix or "airflow", job, team, alias) if part)
    name = re.sub(r"[^A-Za-z0-9_.-]", "_", given)
    if len(name) <= _MAX_OWNER_LENGTH and name == given and not (team and alias and "-" in team + alias):
        return name
    digest = hashlib.sha256(f"{team}\n{alias}".encode()).hexdigest()[:8]
    return f"{name[: _MAX_OWNER_LENGTH - 9]}-{digest}"


def read_scheduler_timeouts(conf: AirflowConf) -> SchedulerTimeouts:
    """Return the time-outs in Airflow's global configuration: the scheduler belongs to no team."""

    def seconds(key: str, default: float) -> float:
        return float(conf.get("scheduler", key, fallback=None) or default)

    requeue = seconds("task_queued_timeout", 600) + 2 * seconds("task_queued_timeout_check_interval", 120)
    return SchedulerTimeouts(seconds("task_instance_heartbeat_timeout", 300), requeue)


def resolve_queue(config: Config, airflow_queue: str | None) -> str:
    """Return the queue of ecs-queue for a queue of Airflow: the one with its own profile, else `default`."""
    profile = config.named_profiles.get(canonical_queue_name(airflow_queue or DEFAULT_QUEUE))
    return DEFAULT_QUEUE if profile is None else profile.queue
