"""`airflow ecs-queue ...`."""

from __future__ import annotations

import argparse
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
