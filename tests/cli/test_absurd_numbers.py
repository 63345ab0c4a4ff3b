"""Numbers with hundreds of digits, infinity and no number are bad input in every option and configuration key."""

from __future__ import annotations

from collections.abc import Iterator

import click
import pytest

from ecs_queue.cli.main import cli
from ecs_queue.cli.ui.durations import Duration
from ecs_queue.config.main_keys import MAIN_KEYS, MAX_CONCURRENCY
from ecs_queue.config.profile_keys import PROFILE_KEYS
from ecs_queue.errors import ConfigError

ABSURD = ["9" * 400, "-" + "9" * 400, "1e400", "1e300", "nan", "inf", "-inf", "9" * 5000]


def options(command: click.Command, path: str = "") -> Iterator[tuple[str, click.Parameter]]:
    """Every parameter of every command, with the words that lead to it."""
    for parameter in command.params:
        yield f"{path} {parameter.name}", parameter
    for name, child in getattr(command, "commands", {}).items():
        yield from options(child, f"{path} {name}")


NUMERIC = {
    name: parameter
    for name, parameter in options(cli)
    if isinstance(parameter.type, click.types.IntParamType | click.types.FloatParamType | Duration)
}
NUMERIC_KEYS = {
    f"{key.name}": key
    for key in (*MAIN_KEYS.values(), *PROFILE_KEYS.values())
    if key.default and key.default.replace(".", "", 1).isdigit()  # no address
}


@pytest.mark.parametrize("name", NUMERIC)
def test_an_option_refuses_it(name: str) -> None:
    for text in ABSURD:
        with pytest.raises(click.BadParameter):
            NUMERIC[name].type.convert(text, NUMERIC[name], None)


@pytest.mark.parametrize("name", NUMERIC_KEYS)
def test_a_configuration_key_refuses_it(name: str) -> None:
    for text in ABSURD:
        with pytest.raises(ConfigError, match="expected"):
            NUMERIC_KEYS[name].parse(text)


def test_the_numbers_are_found() -> None:
    assert {" worker concurrency", " submit timeout", " replay speed", " journal tail lines"} <= NUMERIC.keys()
    assert {"concurrency", "lease_seconds", "run_task_rate", "max_in_flight"} <= NUMERIC_KEYS.keys()
    with pytest.raises(ConfigError):
        MAIN_KEYS["concurrency"].parse(str(MAX_CONCURRENCY + 1))
