"""Merges the layers of the configuration into one structure: section -> key -> text and origin."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from ecs_queue.config.aws_secrets import AwsSecrets, is_reference
from ecs_queue.config.commands import read_value_file, run_command
from ecs_queue.config.layers import (
    CONFIG_FILE_VARIABLE,
    LayerValue,
    ValueKind,
    open_file,
    read_environment,
    read_ini,
    resembles_ours,
    split_key,
)
from ecs_queue.config.main_keys import MAIN_KEYS, MAIN_SECTION, SECRET_KEYS
from ecs_queue.config.profile_keys import PROFILE_KEYS, PROFILE_SECTION
from ecs_queue.config.redact import holds_secret
from ecs_queue.errors import ConfigError
from ecs_queue.messages.queue_names import QUEUE_NAME_RULE, canonical_queue_name, is_queue_name
from ecs_queue.payload_repr import PayloadRepr

#: Returns the value of a key of [ecs_queue] from Airflow's secrets backend; None if there is none.
SecretReader = Callable[[str], str | None]


@dataclass(frozen=True, slots=True, repr=False)
class RawValue(PayloadRepr):
    """The stripped text of one key, and its origin."""

    text: str
    origin: str


RawValues = dict[str, RawValue]


@dataclass(slots=True)
class RawConfig:
    """The merged layers.

    Attributes:
        main: values of [ecs_queue].
        base: values of [aws_ecs_executor].
        profiles: canonical queue name -> values.
        queue_names: canonical queue name -> queue name.
        problems: what was wrong.
        secret_files: the files that hold a password or a key that is in effect.
    """

    main: RawValues = field(default_factory=dict)
    base: RawValues = field(default_factory=dict)
    profiles: dict[str, RawValues] = field(default_factory=dict)
    queue_names: dict[str, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    secret_files: list[str] = field(default_factory=list)


def read_sources(path: str | None, environ: Mapping[str, str], overrides: Mapping[str, str]) -> RawConfig:
    """Return the merged layers: file < environment < overrides.

    Raises:
        ConfigError: the file cannot be read.
    """
    return merge_layers(
        [read_config_file(path, environ), read_environment(environ), override_values(overrides)], read_secret=None
    )


def read_config_file(path: str | None, environ: Mapping[str, str]) -> list[LayerValue]:
    """Return the values of the ini file that `path` or ECS_QUEUE_CONFIG names; none if neither names one.

    Raises:
        ConfigError: the file cannot be read.
    """
    file = path or environ.get(CONFIG_FILE_VARIABLE)
    if not file:
        return []
    return read_ini(open_file(file, "" if path else f" (from {CONFIG_FILE_VARIABLE})"), environ, file)


def override_values(overrides: Mapping[str, str], origin: str = "command line") -> list[LayerValue]:
    """Return keys of [ecs_queue] as a layer; `broker_url_file` is the path of a file with the value, and so on."""
    split = [(split_key(MAIN_SECTION, key.lower()), text) for key, text in overrides.items()]
    return [LayerValue(MAIN_SECTION, key, text.strip(), origin, kind) for (key, kind), text in split]


def merge_layers(layers: Sequence[Iterable[LayerValue]], read_secret: SecretReader | None) -> RawConfig:
    """Return the values that are in effect: a later layer wins. Only the commands and secrets in effect are read.

    Args:
        layers: each with the values that are set in it, whatever they are.
        read_secret: None where there is no Airflow.
    """
    merged = RawConfig()
    resolver = _Resolver(read_secret, AwsSecrets())
    candidates: dict[tuple[str, str], list[LayerValue]] = {}
    for layer in layers:
        for value in sorted(layer, key=lambda value: value.kind):
            target = _find_section(merged, value)
            if not value.key and value.problem:
                _add_problem(merged, value, value.problem)
            elif target is not None and value.key:
                candidates.setdefault((target, value.key), []).append(value)
    for (target, key), values in candidates.items():
        _set_effective(merged, target, key, values, resolver)
    return merged


def _set_effective(merged: RawConfig, target: str, key: str, values: Sequence[LayerValue], resolver: _Resolver) -> None:
    """Set the last value that counts: an empty one is ignored unless it means None."""
    known = MAIN_KEYS.get(key) or PROFILE_KEYS.get(key)
    is_optional = known is not None and known.is_optional
    for value in reversed(values):
        try:
            text, origin = resolver.resolve(value)
        except ConfigError as error:
            merged.problems.append(f"[{value.section}] {key}: {error} (from {value.origin})")
            return
        if text or is_optional:
            _values_of(merged, target)[key] = RawValue(text, origin)
            # A command or a path of Airflow's secrets backend is no secret: neither is the file in which it stands.
            file = {ValueKind.FILE: value.text, ValueKind.TEXT: value.file}.get(value.kind, "")
            if file and target == MAIN_SECTION and origin == value.origin and holds_secret(key, text):
                merged.secret_files.append(os.path.expanduser(file))
            return


@dataclass(frozen=True, slots=True)
class _Resolver:
    """Gets the text of values that stand elsewhere, each once."""

    read_secret: SecretReader | None
    aws_secrets: AwsSecrets

    def resolve(self, value: LayerValue) -> tuple[str, str]:
        """Return the text of a value and its origin, which names the reference of a value in AWS."""
        if value.problem:
            raise ConfigError(value.problem)
        if value.kind is ValueKind.COMMAND:
            return run_command(value.text), value.origin
        if value.kind is ValueKind.FILE:
            return read_value_file(value.text), value.origin
        if value.kind is ValueKind.SECRET:
            return self._from_backend(value.key), value.origin
        if value.section.lower() == MAIN_SECTION and value.key in SECRET_KEYS and is_reference(value.text):
            return self.aws_secrets.read(value.text), f"{value.origin} ({value.text})"
        return value.text, value.origin

    def _from_backend(self, key: str) -> str:
        if self.read_secret is None:
            raise ConfigError(
                "expected a value that can be read without Airflow, found one in Airflow's secrets backend; start this "
                f"program as `airflow ecs-queue ...`, or set {key.upper()}_CMD to a command that prints the value"
            )
        text = self.read_secret(key)
        if not text:
            raise ConfigError("expected a value in Airflow's secrets backend, found none")
        return text.strip()


def _values_of(merged: RawConfig, target: str) -> RawValues:
    if target == MAIN_SECTION:
        return merged.main
    return merged.base if target == PROFILE_SECTION else merged.profiles[target[len(PROFILE_SECTION) + 1 :]]


def _find_section(merged: RawConfig, value: LayerValue) -> str | None:
    """The canonical name of a value's section; None for one that is not ours, with a problem if it resembles ours."""
    section, lower = value.section, value.section.lower()
    if lower in (MAIN_SECTION, PROFILE_SECTION):
        return lower
    if not lower.startswith(PROFILE_SECTION + "."):
        if resembles_ours(section):
            _add_problem(
                merged,
                value,
                f"expected [{MAIN_SECTION}], [{PROFILE_SECTION}] or [{PROFILE_SECTION}.NAME], found an unknown section",
            )
        return None
    name = section[len(PROFILE_SECTION) + 1 :]
    normal = canonical_queue_name(name)
    merged.queue_names.setdefault(normal, name)
    merged.profiles.setdefault(normal, {})
    if not is_queue_name(name):
        _add_problem(
            merged,
            value,
            f"expected a queue's name of {QUEUE_NAME_RULE} after the first dot, found {name!r}",
        )
    return f"{PROFILE_SECTION}.{normal}"


def _add_problem(merged: RawConfig, value: LayerValue, message: str) -> None:
    problem = f"[{value.section}]: {message} (from {value.origin})"
    if problem not in merged.problems:
        merged.problems.append(problem)
