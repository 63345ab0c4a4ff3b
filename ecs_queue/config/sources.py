"""Reads the layers of the configuration into one structure: section -> key -> text and origin."""

from __future__ import annotations

import configparser
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ecs_queue.config.keys import MAIN_KEYS, MAIN_SECTION, PROFILE_KEYS, PROFILE_SECTION
from ecs_queue.config.model import normalize_queue_name
from ecs_queue.errors import ConfigError

#: The environment variable that names the ini file.
CONFIG_FILE_VARIABLE = "ECS_QUEUE_CONFIG"
_VARIABLE_PREFIX = "AIRFLOW__"
# Valid queue names, as in messages.
_QUEUE_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")


@dataclass(frozen=True, slots=True)
class RawValue:
    """The stripped text of one key, and its origin."""

    text: str
    origin: str


RawValues = dict[str, RawValue]


def _set_value(target: RawValues, key: str, value: RawValue) -> None:
    """Set a value over that of an earlier layer. An empty value is ignored unless it means None."""
    known = MAIN_KEYS.get(key) or PROFILE_KEYS.get(key)
    if value.text or (known is not None and known.is_optional):
        target[key] = value


@dataclass(slots=True)
class RawConfig:
    """The merged layers; a later layer wins.

    Attributes:
        main: values of [ecs_queue].
        base: values of [aws_ecs_executor].
        profiles: normalized queue name -> values.
        queue_names: normalized queue name -> queue name.
        problems: what was wrong.
    """

    main: RawValues = field(default_factory=dict)
    base: RawValues = field(default_factory=dict)
    profiles: dict[str, RawValues] = field(default_factory=dict)
    queue_names: dict[str, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


def read_sources(path: str | None, environ: Mapping[str, str], overrides: Mapping[str, str]) -> RawConfig:
    """Return the merged layers: file < environment < overrides.

    Raises:
        ConfigError: the file cannot be read.
    """
    sources = RawConfig()
    file = path or environ.get(CONFIG_FILE_VARIABLE)
    if file:
        _read_file(sources, file, "" if path else f" (from {CONFIG_FILE_VARIABLE})")
    _read_environment(sources, environ)
    for key, value in overrides.items():
        _set_value(sources.main, key.lower(), RawValue(value.strip(), "command line"))
    return sources


def _read_file(sources: RawConfig, file: str, origin_note: str) -> None:
    parser = _parse_file(file, origin_note)
    for section in parser.sections():
        origin = f"{file} [{section}]"
        target = _section_values(sources, section, origin)
        if target is not None:
            for key, text in parser.items(section):
                _set_value(target, key, RawValue(text.strip(), origin))


def _section_values(sources: RawConfig, section: str, origin: str) -> RawValues | None:
    """The values to fill from a section; None for a section of others, because the file may be Airflow's own."""
    lower = section.lower()
    if lower == MAIN_SECTION:
        return sources.main
    if lower == PROFILE_SECTION:
        return sources.base
    normal = normalize_queue_name(section)
    if lower.startswith(PROFILE_SECTION + "."):
        name = section[len(PROFILE_SECTION) + 1 :]
        known = sources.queue_names.setdefault(normalize_queue_name(name), name)
        if not _QUEUE_NAME.fullmatch(name):
            sources.problems.append(
                f"[{section}]: expected a queue's name of 1 to 64 of A-Z a-z 0-9 _ . - after the first dot, "
                f"found {name!r} (from {origin})"
            )
        elif known != name:
            sources.problems.append(
                f"[{section}]: expected one section a queue, found [{PROFILE_SECTION}.{known}] too, which "
                f"means the same queue (from {origin})"
            )
        return sources.profiles.setdefault(normalize_queue_name(name), {})
    if normal == MAIN_SECTION or normal.startswith(PROFILE_SECTION):
        sources.problems.append(
            f"[{section}]: expected [{MAIN_SECTION}], [{PROFILE_SECTION}] or [{PROFILE_SECTION}.NAME], "
            f"found an unknown section (from {origin})"
        )
    return None


def _parse_file(file: str, origin_note: str) -> configparser.ConfigParser:
    # No interpolation: a `%` in a password or a URL is literal. No default section: Airflow's files use none.
    parser = configparser.ConfigParser(interpolation=None, default_section="\0", strict=True)
    try:
        parser.read_string(Path(file).expanduser().read_text(encoding="utf-8-sig"), source=file)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise ConfigError(
            f"configuration file {file}{origin_note}: expected a readable ini file, found: {reason}; "
            f"check --config and {CONFIG_FILE_VARIABLE}"
        ) from None
    except UnicodeDecodeError:
        raise ConfigError(f"configuration file {file}{origin_note}: expected UTF-8 text, found other bytes") from None
    except configparser.Error as error:
        # Without the parser's message: it would show the line, which may hold a password.
        raise ConfigError(
            f"configuration file {file}{origin_note}: expected an ini file, found {_describe_parse_error(error)}"
        ) from None
    return parser


def _describe_parse_error(error: configparser.Error) -> str:
    if isinstance(error, configparser.DuplicateOptionError):
        return f"{error.option!r} twice in [{error.section}] (line {error.lineno})"
    if isinstance(error, configparser.DuplicateSectionError):
        return f"[{error.section}] twice (line {error.lineno})"
    if isinstance(error, configparser.MissingSectionHeaderError):
        return f"a line before the first [section] (line {error.lineno})"
    lines = [str(line) for line, _ in getattr(error, "errors", ())]
    return f"text that is neither a section nor key = value (line {', '.join(lines) or '?'})"


def _read_environment(sources: RawConfig, environ: Mapping[str, str]) -> None:
    """Read AIRFLOW__SECTION__KEY of our sections; ignore all other variables."""
    for variable in sorted(environ):
        if not variable.startswith(_VARIABLE_PREFIX):
            continue
        section, _, key = variable[len(_VARIABLE_PREFIX) :].lower().rpartition("__")
        value = RawValue(environ[variable].strip(), variable)
        if section == MAIN_SECTION:
            _set_value(sources.main, key, value)
        elif section == PROFILE_SECTION:
            _set_value(sources.base, key, value)
        elif section.startswith(PROFILE_SECTION + "_"):
            name = normalize_queue_name(section[len(PROFILE_SECTION) + 1 :])
            sources.queue_names.setdefault(name, name)
            _set_value(sources.profiles.setdefault(name, {}), key, value)
