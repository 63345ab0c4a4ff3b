"""The package's description for Airflow, through the entry point `apache_airflow_provider`."""

from __future__ import annotations

from typing import Any

from ecs_queue.config.keys import MAIN_KEYS, MAIN_SECTION, PROFILE_KEYS, PROFILE_SECTION, ConfigKey
from ecs_queue.version import package_version

_SENSITIVE_KEYS = frozenset({"broker_url", "ledger_url", "signing_keys", "encryption_keys"})


def get_provider_info() -> dict[str, Any]:
    """Return the executor, its configuration keys with descriptions and defaults, and its commands."""
    return {
        "package-name": "ecs-queue",
        "name": "ecs-queue",
        "description": "Runs Airflow's tasks on Amazon ECS through a queue.",
        "versions": [package_version()],
        "executors": ["ecs_queue.airflow.executor.EcsQueueExecutor"],
        "cli": ["ecs_queue.airflow.cli.get_cli_commands"],
        "config": {
            MAIN_SECTION: _describe_section("The queue between Airflow and Amazon ECS.", MAIN_KEYS),
            PROFILE_SECTION: _describe_section(
                "Where and how tasks are launched. A section [aws_ecs_executor.NAME] is for the queue NAME; the keys "
                "that it does not set have the values of this section.",
                PROFILE_KEYS,
            ),
        },
    }


def _describe_section(description: str, keys: dict[str, ConfigKey]) -> dict[str, Any]:
    return {"description": description, "options": {name: _describe_option(key) for name, key in keys.items()}}


def _describe_option(key: ConfigKey) -> dict[str, Any]:
    return {
        "description": key.doc,
        "version_added": None,
        "type": "string",
        "example": None,
        "default": key.default,
        **({"sensitive": True} if key.name in _SENSITIVE_KEYS else {}),
    }
