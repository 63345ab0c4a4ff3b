"""Random files and variables, and what the readers of the configuration make of them."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from unittest.mock import patch

from hypothesis import strategies as st

from ecs_queue.airflow.config import AirflowSources, load_executor_config
from ecs_queue.config import Config, load_config
from ecs_queue.config.sources import read_sources
from ecs_queue.errors import ConfigError

#: What the executor changes for itself.
_OF_EXECUTOR = ("socket_timeout_seconds", "durability")
#: Values that are set in the environment, for `$NAME` and `${NAME}`.
VARIABLES = {"STAGE": "test", "NESTED": "a-${STAGE}", "HOME": "/home/one"}

MAIN_VALUES: Mapping[str, list[str]] = {
    "namespace": ["ecs-queue", "staging", "$STAGE", "x-${NESTED}", "%(concurrency)s", "a b", ""],
    "concurrency": ["32", "5", "many", ""],
    "broker_url": ["redis://127.0.0.1:6379/0", "redis://:p%%40@${STAGE}:1/0", "redis://:p%40q@h", "$UNSET", ""],
    "broker_url_cmd": ["echo redis://of-command:1/0", "echo ' redis://:p%%@h '", "false"],
    "ledger_url": ["redis://l:1/1", ""],
    "lease_seconds": ["30", "10", "0"],
    "call_budget_seconds": ["5", "1"],
    "retry_base_seconds": ["2", "90"],
    "allowed_overrides": ["safe", "cpu", "none", ""],
    "concurrency_cmd": ["echo 5"],
    "broker_ulr": ["redis://h"],
}
PROFILE_VALUES: Mapping[str, list[str]] = {
    "assign_public_ip": ["False", "True", "maybe"],
    "conn_id": ["aws_default", "mine", ""],
    "platform_version": ["LATEST", "1.4.0", ""],
    "cluster": ["prod", "${STAGE}-%%", "~/x", "%(region_name)s", ""],
    "region_name": ["eu-west-1", ""],
    "subnets": ["subnet-1, subnet-2", '["a"]', ""],
    "launch_type": ["EC2", "fargate", ""],
    "capacity_provider_strategy": ['[{"capacityProvider": "x"}]', "[]", ""],
    "max_run_task_attempts": ["3", "1"],
    "run_task_kwargs": ['{"tags": [{"key": "k", "value": "$STAGE"}]}', "{"],
    "allowed_overrides": ["safe", "none", ""],
    "broker_url_cmd": ["echo x"],
}
QUEUES = ("gpu", "High-Mem.v2", "high_mem_v2", "private", "default")


def _options(values: Mapping[str, list[str]]) -> st.SearchStrategy[dict[str, str]]:
    keys = st.sampled_from(sorted(values))
    spelled = st.tuples(keys, st.sampled_from([str.lower, str.lower, str.lower, str.title]))
    pairs = spelled.flatmap(lambda pair: st.tuples(st.just(pair[1](pair[0])), st.sampled_from(values[pair[0]])))
    return st.lists(pairs, max_size=4, unique_by=lambda pair: pair[0]).map(dict)


def random_sections() -> st.SearchStrategy[dict[str, dict[str, str]]]:
    names: dict[str, st.SearchStrategy[dict[str, str]]] = {
        "ecs_queue": _options(MAIN_VALUES),
        "aws_ecs_executor": _options(PROFILE_VALUES),
        **{f"aws_ecs_executor.{queue}": _options(PROFILE_VALUES) for queue in QUEUES},
    }
    chosen = st.lists(st.sampled_from(sorted(names)), max_size=4, unique=True)
    return chosen.flatmap(lambda found: st.fixed_dictionaries({name: names[name] for name in found}))


def render(sections: Mapping[str, Mapping[str, str]]) -> str:
    return "".join(
        f"[{name}]\n" + "".join(f"{key} = {text}\n" for key, text in options.items())
        for name, options in sections.items()
    )


def render_variables(sections: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
    """The same as variables, in which a `%` means nothing."""
    found: dict[str, str] = {}
    for name, options in sections.items():
        section = "".join(letter if letter.isalnum() else "_" for letter in name)
        for key, text in options.items():
            found[f"AIRFLOW__{section.upper()}__{key.upper()}"] = text
    return found


def outcome_of(load: Any) -> Any:
    """What a reader makes of it: every value and its origin, or every problem."""
    try:
        config: Config = load()
    except ConfigError as error:
        return sorted(str(error).splitlines())
    main = {name: value for name, value in vars(config).items() if name not in ("effective_values", *_OF_EXECUTOR)}
    values = [value for value in config.effective_values if value.key not in _OF_EXECUTOR]
    return main, values


def read_by_all(file: str, environ: Mapping[str, str], conf: Any) -> list[Any]:
    """What a worker, `airflow ecs-queue worker` and the executor make of one file that is Airflow's own, too."""
    sources = AirflowSources(conf, file)
    return [
        outcome_of(lambda: load_config(file, environ)),
        outcome_of(lambda: sources.load(environ=environ)),
        outcome_of(lambda: load_executor_config(sources, environ)),
    ]


def check_texts(in_file: Mapping[str, Mapping[str, str]], make_conf: Callable[[str], Any]) -> None:
    """Compare with Airflow's own `conf.get`, for what Airflow itself finds: section and key in lower case."""
    with tempfile.TemporaryDirectory() as folder, patch.dict(os.environ, VARIABLES):
        file = Path(folder, "airflow.cfg")
        file.write_text(render(in_file))
        raw = read_sources(str(file), os.environ, {})
        conf = make_conf(str(file))
        for section, values in {"ecs_queue": raw.main, "aws_ecs_executor": raw.base}.items():
            for key, value in values.items():
                if "p%40q" in in_file[section].get(key, ""):
                    continue  # Airflow refuses a `%` that means nothing
                is_command = not value.origin.endswith("]")
                if is_command and in_file[section].get(key) == "":
                    continue  # Airflow takes an empty value before a command, ecs-queue ignores it
                if (f"{key}_cmd" if is_command else key) in in_file[section]:
                    assert value.text == conf.get(section, key).strip()
