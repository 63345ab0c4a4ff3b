"""The package's description for Airflow, through the entry point `apache_airflow_provider`."""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import Any

from ecs_queue.config.config_key import ConfigKey
from ecs_queue.config.main_keys import MAIN_KEYS, MAIN_SECTION, SECRET_KEYS
from ecs_queue.config.profile_keys import PROFILE_KEYS, PROFILE_SECTION
from ecs_queue.version import package_version

_ENTRY_POINT_GROUP = "apache_airflow_provider"


def get_provider_info() -> dict[str, Any]:
    """Return the executor, its configuration keys with descriptions, and its commands.

    A section that another provider declares is left out, as [aws_ecs_executor] beside the Amazon provider. Airflow 3.1
    refuses a section with two declarations, so that every command fails; later versions would forget the other one's
    defaults. Only descriptions are lost: ecs-queue's loader has defaults of its own.

    The defaults are part of the descriptions: Airflow writes a provider's defaults into the airflow.cfg that it
    generates, where they would count as set, over those that follow another key.
    """
    taken = _find_sections_of_other_providers()
    return {
        "package-name": "ecs-queue",
        "name": "ecs-queue",
        "description": "Runs Airflow's tasks on Amazon ECS through a queue.",
        "versions": [package_version()],
        "executors": ["ecs_queue.airflow.executor.EcsQueueExecutor"],
        "cli": ["ecs_queue.airflow.cli.get_cli_commands"],
        "config": {name: section for name, section in _describe_sections().items() if name not in taken},
    }


def _find_sections_of_other_providers() -> set[str]:
    """Return the names of the sections that the other installed providers declare."""
    sections: set[str] = set()
    for entry_point in entry_points(group=_ENTRY_POINT_GROUP):
        if entry_point.module == __name__:
            continue
        try:
            sections.update(entry_point.load()().get("config") or {})
        except Exception:  # noqa: BLE001, S112 - Airflow itself reports a provider that cannot be read
            continue
    return sections


def _describe_sections() -> dict[str, Any]:
    return {
        MAIN_SECTION: _describe_section("The queue between Airflow and Amazon ECS.", MAIN_KEYS),
        PROFILE_SECTION: _describe_section(
            "Where and how tasks are launched. A section [aws_ecs_executor.NAME] is for the queue NAME; the keys "
            "that it does not set have the values of this section.",
            PROFILE_KEYS,
        ),
    }


def _describe_section(description: str, keys: dict[str, ConfigKey]) -> dict[str, Any]:
    return {"description": description, "options": {name: _describe_option(key) for name, key in keys.items()}}


def _describe_option(key: ConfigKey) -> dict[str, Any]:
    return {
        "description": f"{key.doc} Default: {key.default}." if key.default else key.doc,
        "version_added": None,
        "type": "string",
        "example": None,
        "default": None,
        **({"sensitive": True} if key.name in SECRET_KEYS else {}),
    }
