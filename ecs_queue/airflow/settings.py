"""The executor's configuration: Airflow's own values, read by ecs-queue's one loader."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Protocol

from ecs_queue.config import Config, load_config
from ecs_queue.config.keys import PROFILE_KEYS, PROFILE_SECTION, QUEUE_KEYS, QUEUE_SECTION, Key
from ecs_queue.config.settings import DEFAULT_QUEUE, normal_queue

#: The longest wait for one answer inside the scheduler's heartbeat, which must not stand still for a second: a call
#: is tried twice at most, and after a failure the server is left alone for a while. Seconds.
ANSWER_SECONDS = 0.3


class AirflowConf(Protocol):
    """What is needed of `airflow.executors.base_executor.ExecutorConf`."""

    def get(self, section: str, key: str, *, fallback: str | None = None) -> str | None:
        """The value as text; `fallback` when there is none."""
        ...


def read_config(conf: AirflowConf, sections: Iterable[str], environ: Mapping[str, str] | None = None) -> Config:
    """[ecs_queue] and the profiles as Airflow sees them (airflow.cfg, environment, commands, secrets).

    `sections`: the names of airflow.cfg's sections. The file that ECS_QUEUE_CONFIG names is the layer below, as it is
    for workers. ConfigError as from `load_config`.
    """
    seen = airflow_environment(conf, sections, environ)
    answer = load_config(environ=seen).socket_timeout_seconds
    bounded = {"socket_timeout_seconds": str(min(answer, ANSWER_SECONDS)), "durability": "server"}
    # Without a barrier: waiting for a disk has no place in a heartbeat. What a fail-over of the ledger loses here
    # (a submission, an adoption) the executor notices, and does again.
    return load_config(environ=seen, overrides=bounded)


def airflow_environment(
    conf: AirflowConf, sections: Iterable[str], environ: Mapping[str, str] | None = None
) -> dict[str, str]:
    """The same configuration as variables: what `load_config` is to be given for `environ`."""
    environ = os.environ if environ is None else environ
    seen = {name: environ[name] for name in ("ECS_QUEUE_CONFIG",) if name in environ}
    _copy(conf, QUEUE_SECTION, QUEUE_KEYS, seen)
    _copy(conf, PROFILE_SECTION, PROFILE_KEYS, seen)
    for section in _profile_sections(sections, environ):
        _copy(conf, section, PROFILE_KEYS, seen)
    return seen


def queue_of(config: Config, airflow_queue: str | None) -> str:
    """The queue of ecs-queue for one of Airflow: that with a profile of its own, else `default`."""
    named = config.named_profiles.get(normal_queue(airflow_queue or DEFAULT_QUEUE))
    return DEFAULT_QUEUE if named is None else named.queue


def _copy(conf: AirflowConf, section: str, keys: Mapping[str, Key], target: dict[str, str]) -> None:
    for name, key in keys.items():
        value = conf.get(section, name, fallback=None)
        # A default comes from the provider's metadata; it must not hide what ECS_QUEUE_CONFIG's file says.
        if value is not None and str(value) != (key.default or ""):
            target[f"AIRFLOW__{section.upper().replace('.', '_')}__{name.upper()}"] = str(value)


def _profile_sections(sections: Iterable[str], environ: Mapping[str, str]) -> list[str]:
    found = {section for section in sections if section.lower().startswith(PROFILE_SECTION + ".")}
    prefix = f"AIRFLOW__{PROFILE_SECTION.upper()}_"
    known = {normal_queue(section) for section in found}
    for variable in environ:
        # A team's variables are AIRFLOW__TEAM___SECTION__KEY.
        start = variable.upper().find(prefix[len("AIRFLOW__") :])
        if not variable.startswith("AIRFLOW__") or start < 0:
            continue
        section = variable[start:].lower().rpartition("__")[0]
        if len(section) > len(PROFILE_SECTION) + 1 and normal_queue(section) not in known:
            known.add(normal_queue(section))
            found.add(f"{PROFILE_SECTION}.{section[len(PROFILE_SECTION) + 1 :]}")
    return sorted(found)
