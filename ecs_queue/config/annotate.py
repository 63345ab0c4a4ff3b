"""Generates the annotated configuration file conf/ecs_queue.cfg from the list of keys."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping

from ecs_queue.config.config_key import ConfigKey
from ecs_queue.config.main_keys import MAIN_KEYS, MAIN_SECTION
from ecs_queue.config.profile_keys import PROFILE_KEYS, PROFILE_SECTION

_FILE_HEADER = """\
# The configuration of ecs-queue: every key with its default, commented out. To change one, remove the `# `.
#
# --config or ECS_QUEUE_CONFIG names this file. An environment variable AIRFLOW__SECTION__KEY, for example
# AIRFLOW__ECS_QUEUE__BROKER_URL, wins over this file, and a command-line option wins over both. The
# sections may also be in an airflow.cfg; Airflow need not be installed. Durations are seconds. Lists and
# objects are JSON. %% is a %, ${NAME} an environment variable, and a comment has a line of its own.
# `ecs-queue config` shows every value in effect and its origin.
#
# broker_url, ledger_url, signing_keys and encryption_keys may stand elsewhere: KEY_cmd is a command that
# prints the value, KEY_file is a file with it, and ssm:/path or secretsmanager:name#member is where it
# stands in AWS.
"""
_PROFILE_NOTE = """\
# Where and how tasks are launched. A section [aws_ecs_executor.NAME] is for the tasks of the queue NAME and
# inherits the keys that it does not set; in the environment: AIRFLOW__AWS_ECS_EXECUTOR_NAME__KEY.
"""
_PROFILE_EXAMPLE = """\
# [aws_ecs_executor.gpu]
# task_definition = training
# launch_type = EC2
"""


def annotated_config() -> str:
    """Return the text of an ini file with every key, its default and its meaning, all commented out."""
    sections = (
        _FILE_HEADER,
        f"[{MAIN_SECTION}]\n{_render_keys(MAIN_KEYS)}",
        f"[{PROFILE_SECTION}]\n{_PROFILE_NOTE}\n{_render_keys(PROFILE_KEYS)}",
        _PROFILE_EXAMPLE,
    )
    return "\n".join(sections)


def _render_keys(keys: Mapping[str, ConfigKey]) -> str:
    return "\n".join(
        "\n".join([*textwrap.wrap(key.doc, 108, initial_indent="#: ", subsequent_indent="#: "), _render_key(key), ""])
        for key in keys.values()
    )


def _render_key(key: ConfigKey) -> str:
    return f"# {key.name} = {key.default or ''}".rstrip()
