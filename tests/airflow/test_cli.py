"""`airflow ecs-queue ...`."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from typing import Any

import click
import pytest

from ecs_queue.airflow.cli import get_cli_commands
from ecs_queue.airflow.provider import get_provider_info
from ecs_queue.cli import main

pytestmark = pytest.mark.airflow


def build_parser() -> argparse.ArgumentParser:
    """Return a parser to which the commands are added as Airflow adds them."""
    from airflow.cli.cli_parser import _add_command

    parser = argparse.ArgumentParser(prog="airflow")
    groups = parser.add_subparsers(dest="group")
    for command in get_cli_commands():
        _add_command(groups, command)
    return parser


def run_command(monkeypatch: pytest.MonkeyPatch, *words: str) -> list[str]:
    """Return the arguments with which ecs-queue's own command line is called."""
    received: list[str] = []
    monkeypatch.setattr(main.cli, "main", lambda args, obj: received.extend(args))
    arguments: Any = build_parser().parse_args(["ecs-queue", *words])
    arguments.func(arguments)
    return received


def list_commands(group: click.Group, path: Sequence[str] = ()) -> Iterator[tuple[list[str], click.Command]]:
    """Yield (path, command) of all that do something."""
    for name, command in group.commands.items():
        if not isinstance(command, click.Group) or command.invoke_without_command:
            yield [*path, name], command
        if isinstance(command, click.Group):
            yield from list_commands(command, [*path, name])


def parse_with_click(words: list[str], command: click.Command) -> dict[str, Any]:
    """Return what click's own parser makes of the words after the command's name."""
    values = command.make_parser(click.Context(command)).parse_args(list(words))[0]
    return {name: list(value) if isinstance(value, list | tuple) else value for name, value in values.items()}


def every_parameter(command: click.Command) -> list[str]:
    """Return words that give every option and operand of the command."""
    words: list[str] = []
    for parameter in command.params:
        if isinstance(parameter, click.Option) and not parameter.is_eager:
            words += [parameter.opts[-1], *([] if parameter.is_flag else [f"{parameter.name}-value"])]
    operands = [f"{one.name}-value" for one in command.params if isinstance(one, click.Argument)]
    return [*words, "--", *operands] if operands else words


COMMANDS = {" ".join(path): command for path, command in list_commands(main.cli)}


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_gets_every_option_and_operand(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    path, command = name.split(), COMMANDS[name]
    words = every_parameter(command)
    received = run_command(monkeypatch, *path, *words)
    assert received[: len(path)] == path
    assert parse_with_click(received[len(path) :], command) == parse_with_click(words, command)


def test_a_command_of_a_group_that_is_a_command_gets_options_of_both(monkeypatch: pytest.MonkeyPatch) -> None:
    words = run_command(monkeypatch, "queues", "--json", "--namespace", "one", "pause", "etl")
    assert words == ["queues", "--json", "pause", "--namespace", "one", "--", "etl"]


def test_words_behind_two_hyphens_are_the_containers_command(monkeypatch: pytest.MonkeyPatch) -> None:
    words = run_command(monkeypatch, "submit", "--queue", "etl", "--", "echo", "--json", "--", "x")
    assert words == ["submit", "--queue", "etl", "--", "echo", "--json", "--", "x"]


def test_airflow_finds_the_function_by_the_providers_metadata() -> None:
    module, _, name = get_provider_info()["cli"][0].rpartition(".")
    assert getattr(__import__(module, fromlist=[name]), name) is get_cli_commands
