"""The option `--env` and its values."""

from __future__ import annotations

import os
from collections.abc import Sequence

import click

from ecs_queue.errors import UsageError

variables_option = click.option(
    "--env",
    "variables",
    multiple=True,
    metavar="NAME[=VALUE]",
    help="Set a variable; NAME alone takes its value from this shell. Repeatable.",
)


def parse_variables(texts: Sequence[str]) -> dict[str, str]:
    """Return the variables of NAME=VALUE and NAME texts; NAME alone takes its value from this process's environment."""
    return dict(_parse_variable(text) for text in texts)


def _parse_variable(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not name:
        raise UsageError("--env: expected NAME=VALUE or NAME, found no name")
    if equals:
        return name, value
    if name.startswith("-"):
        raise UsageError(f"--env: expected NAME=VALUE or NAME before the command, found {name}")
    if name not in os.environ:
        raise UsageError(f"--env {name}: this shell's environment has no {name}; give --env {name}=VALUE")
    return name, os.environ[name]
