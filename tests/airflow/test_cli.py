"""`airflow ecs-queue ...`."""

from __future__ import annotations

import argparse
from typing import Any

import click
import pytest

from ecs_queue.airflow.cli import get_cli_commands
from ecs_queue.airflow.provider import get_provider_info
from ecs_queue.cli import main


def build_parser() -> argparse.ArgumentParser:
    """As Airflow's own parser takes the commands up."""
    from airflow.cli.cli_parser import _add_command

    made = argparse.ArgumentParser(prog="airflow")
    groups = made.add_subparsers(dest="group")
    for command in get_cli_commands():
        _add_command(groups, command)
    return made


def run_command(monkeypatch: pytest.MonkeyPatch, *words: str) -> list[str]:
    """The words that our own command line is given."""
    given: list[str] = []
    monkeypatch.setattr(main.cli, "main", lambda args: given.extend(args))
    arguments: Any = build_parser().parse_args(["ecs-queue", *words])
    arguments.func(arguments)
    return given


def test_airflow_has_every_ecs_queue_command() -> None:
    [group] = get_cli_commands()
    assert [command.name for command in group.subcommands] == list(main.cli.commands)


def test_options_and_operands_reach_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    assert run_command(monkeypatch, "worker", "--queues", "a,b", "--concurrency", "4") == [
        "worker",
        "--queues",
        "a,b",
        "--concurrency",
        "4",
    ]
    assert run_command(monkeypatch, "stop", "one", "two") == ["stop", "--", "one", "two"]
    assert run_command(monkeypatch, "status", "--json") == ["status", "--json"]


def test_the_arguments_are_those_that_click_expects(monkeypatch: pytest.MonkeyPatch) -> None:
    words = run_command(monkeypatch, "worker", "--queues", "a,b")
    command = main.cli.commands[words[0]]
    context = click.Context(command)
    assert command.make_parser(context).parse_args(words[1:])[0]["queues"]


def test_airflow_finds_the_function_by_the_providers_metadata() -> None:
    module, _, name = get_provider_info()["cli"][0].rpartition(".")
    assert getattr(__import__(module, fromlist=[name]), name) is get_cli_commands
