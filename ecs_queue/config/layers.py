"""Reads one layer of the configuration into a list of values: an ini file, or the environment variables."""

from __future__ import annotations

import configparser
import io
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from enum import IntEnum
from pathlib import Path
from typing import Protocol

from ecs_queue.config.expansion import expand_variables, interpolate
from ecs_queue.config.main_keys import MAIN_KEYS, MAIN_SECTION, SECRET_KEYS
from ecs_queue.config.profile_keys import PROFILE_KEYS, PROFILE_SECTION
from ecs_queue.errors import ConfigError
from ecs_queue.messages.queue_names import canonical_queue_name
from ecs_queue.named_file import read_named_file
from ecs_queue.payload_repr import PayloadRepr

#: The environment variable that names the ini file.
CONFIG_FILE_VARIABLE = "ECS_QUEUE_CONFIG"
_VARIABLE_PREFIX = "AIRFLOW__"


class ValueKind(IntEnum):
    """How a layer gives a value. Within one layer the higher kind wins, as in Airflow."""

    SECRET = 1
    FILE = 2
    COMMAND = 3
    TEXT = 4


SUFFIXES = {"_cmd": ValueKind.COMMAND, "_secret": ValueKind.SECRET, "_file": ValueKind.FILE}
#: Kinds whose text may contain `${NAME}`.
_EXPANDED = (ValueKind.TEXT, ValueKind.FILE)


@dataclass(frozen=True, slots=True, repr=False)
class LayerValue(PayloadRepr):
    """One value of one layer.

    Attributes:
        section: as spelled in the layer, without a team's prefix.
        key: in lower case, without `_cmd`, `_file` and `_secret`; "" for the section itself.
        text: the value, the command that prints it, the path of the file with it, or its path in Airflow's secrets
            backend.
        origin: where it comes from, for the user.
        kind: what `text` is.
        problem: why there is no text; "" if there is.
        file: the path of the file that it stands in; "" for none.
    """

    section: str
    key: str
    text: str
    origin: str
    kind: ValueKind = ValueKind.TEXT
    problem: str = ""
    file: str = ""


class IniParser(Protocol):
    """The part of configparser.ConfigParser that is used here; Airflow's `conf` is one too."""

    def sections(self) -> list[str]:
        """Return the names of the sections, without `DEFAULT`."""
        ...

    def items(self, section: str, raw: bool) -> Collection[tuple[str, str]]:
        """Return the options of a section, those of `DEFAULT` included."""
        ...

    def defaults(self) -> Mapping[str, str]:
        """Return the options of `DEFAULT`."""
        ...


#: A longer file is not what was meant.
_MAX_FILE_BYTES = 1 << 20


def open_file(file: str, origin_note: str = "") -> IniParser:
    """Return the parser of an ini file.

    Raises:
        ConfigError: the file cannot be read, is too long, or is no ini file. Its text is not shown.
    """
    parser = _FileParser(interpolation=None, strict=True)
    try:
        content = read_named_file(Path(file).expanduser(), _MAX_FILE_BYTES)
        # As a text file is read, with any line ends.
        text = io.StringIO(content.decode("utf-8-sig"), newline=None).read()
        parser.read_string(text, source=file)
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


class _FileParser(configparser.ConfigParser):
    def optionxform(self, optionstr: str) -> str:
        """Keep the case, as Airflow's parser does: `%(key)s` depends on it."""
        return optionstr


def read_ini(parser: IniParser, environ: Mapping[str, str], file: str, team: str | None = None) -> list[LayerValue]:
    """Return the values of our sections, expanded. A team's sections are named `TEAM=section`."""
    prefix = f"{team}=" if team else ""
    values: list[LayerValue] = []
    spellings: dict[str, str] = {}
    for section in parser.sections():
        name = section.removeprefix(prefix)
        if not section.startswith(prefix) or not resembles_ours(name):
            continue
        origin = f"{file} [{section}]"
        other = spellings.setdefault(canonical_queue_name(name), name)
        problem = f"expected one section a queue, found [{other}] too, which means the same" if other != name else ""
        values.append(LayerValue(name, "", "", origin, problem=problem))  # a section without a key is a profile too
        options = dict(parser.items(section, raw=True))
        inherited = {key for key, text in parser.defaults().items() if options.get(key) == text}
        known = MAIN_KEYS if name.lower() == MAIN_SECTION else PROFILE_KEYS
        own = {key: text for key, text in options.items() if key not in inherited or key.lower() in known}
        values += (replace(value, file=file) for value in _section_values(name, own, options, origin, environ))
    return values


def _section_values(
    section: str, own: Mapping[str, str], options: Mapping[str, str], origin: str, environ: Mapping[str, str]
) -> Iterator[LayerValue]:
    spellings: dict[str, str] = {}
    for spelling, raw in own.items():
        key, kind = split_key(section, spelling.lower())
        text, problem = "", ""
        if spellings.setdefault(spelling.lower(), spelling) != spelling:
            problem = f"expected the key once, found {spellings[spelling.lower()]!r} and {spelling!r}"
        try:
            text = interpolate(raw or "", options)
            if kind in _EXPANDED:
                text = expand_variables(text, environ)
        except ConfigError as error:
            problem = str(error)
        where = origin if kind is ValueKind.TEXT else f"{origin} {spelling}"
        yield LayerValue(section, key, text.strip(), where, kind, problem)


def read_environment(environ: Mapping[str, str], team: str | None = None) -> list[LayerValue]:
    """Return the values in AIRFLOW__SECTION__KEY, or a team's in AIRFLOW__TEAM___SECTION__KEY, expanded."""
    prefix = f"{_VARIABLE_PREFIX}{team.upper()}___" if team else _VARIABLE_PREFIX
    values: list[LayerValue] = []
    for variable in sorted(environ):
        if not variable.startswith(prefix):
            continue
        section, _, name = variable[len(prefix) :].lower().rpartition("__")
        is_profile = section.startswith(PROFILE_SECTION + "_")
        if section not in (MAIN_SECTION, PROFILE_SECTION) and not is_profile:
            continue
        key, kind = split_key(section, name)
        text, problem = environ[variable], ""
        try:
            text = expand_variables(text, environ) if kind in _EXPANDED else text
        except ConfigError as error:
            text, problem = "", str(error)
        if is_profile:
            section = f"{PROFILE_SECTION}.{section[len(PROFILE_SECTION) + 1 :]}"
        values.append(LayerValue(section, key, text.strip(), variable, kind, problem))
    return values


def resembles_ours(section: str) -> bool:
    """Return whether a section is ours, or named so alike that it must be a mistake."""
    normal = canonical_queue_name(section)
    return normal == MAIN_SECTION or normal.startswith(PROFILE_SECTION)


def split_key(section: str, name: str) -> tuple[str, ValueKind]:
    """`broker_url_cmd` -> `broker_url` and COMMAND; only a secret's value may come from elsewhere."""
    for suffix, kind in SUFFIXES.items():
        key = name.removesuffix(suffix)
        if name.endswith(suffix) and key in SECRET_KEYS and section.lower() == MAIN_SECTION:
            return key, kind
    return name, ValueKind.TEXT


def _describe_parse_error(error: configparser.Error) -> str:
    if isinstance(error, configparser.DuplicateOptionError):
        return f"{error.option!r} twice in [{error.section}] (line {error.lineno})"
    if isinstance(error, configparser.DuplicateSectionError):
        return f"[{error.section}] twice (line {error.lineno})"
    if isinstance(error, configparser.MissingSectionHeaderError):
        return f"a line before the first [section] (line {error.lineno})"
    lines = [str(line) for line, _ in getattr(error, "errors", ())]
    return f"text that is neither a section nor key = value (line {', '.join(lines) or '?'})"
