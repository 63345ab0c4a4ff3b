"""Expands the text of a value as Airflow does: `%%` and `%(key)s` in a file, `$NAME`, `${NAME}` and `~` everywhere.

Unlike Airflow, a `%` that means neither is literal, as in a percent-encoded password.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

from ecs_queue.errors import ConfigError

_PERCENT = re.compile(r"%(%|\(([^)]+)\)s)")
_VARIABLE = re.compile(r"\$(\w+|\{[^}]*\})", re.ASCII)
#: configparser's own limit of references within references.
_MAX_DEPTH = 10
#: A variable that refers to itself grows with every round.
_MAX_ROUNDS, _MAX_CHARACTERS = 100, 1_000_000


def interpolate(text: str, options: Mapping[str, str], depth: int = 1) -> str:
    """Replace `%%` with `%`, and `%(key)s` with another value of the same section.

    Raises:
        ConfigError: the other value does not exist, or the references do not end. The text is not shown.
    """

    def replace(match: re.Match[str]) -> str:
        if match[1] == "%":
            return "%"
        name = match[2]
        if name not in options:
            raise ConfigError(f"expected %(KEY)s to name a key of the same section, found {name!r}; write %% for a %")
        if depth >= _MAX_DEPTH:
            raise ConfigError(f"expected references that end, found more than {_MAX_DEPTH} after %({name})s")
        return interpolate(options[name], options, depth + 1)

    return _PERCENT.sub(replace, text)


def expand_variables(text: str, environ: Mapping[str, str]) -> str:
    """Replace `$NAME` and `${NAME}` with environment variables, and a leading `~`, until nothing changes.

    A variable that is not set stays as it is.

    Raises:
        ConfigError: a variable refers to itself. The text is not shown.
    """

    def replace(match: re.Match[str]) -> str:
        return environ.get(match[1].strip("{}"), match[0])

    for _ in range(_MAX_ROUNDS):
        expanded = _expand_home(_VARIABLE.sub(replace, text), environ)
        if expanded == text:
            return text
        text = expanded
        if len(text) > _MAX_CHARACTERS:
            break
    raise ConfigError("expected environment variables that do not refer to themselves, found one that does")


def _expand_home(text: str, environ: Mapping[str, str]) -> str:
    if not text.startswith("~"):
        return text
    user, slash, rest = text.partition("/")
    home = environ.get("HOME", "").rstrip("/") if user == "~" else ""
    return home + slash + rest if home else os.path.expanduser(text)
