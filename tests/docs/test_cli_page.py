"""docs/cli.md is true to the tree of commands."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import click
import pytest

from ecs_queue.cli.local_ecs import FAULTS
from ecs_queue.cli.main import cli
from ecs_queue.client.task_line import TASK_FIELDS
from ecs_queue.messages.result import RESULT_LINE_FIELDS
from tests.docs import DOCS

PAGE = (DOCS / "cli.md").read_text()
SHARED = {option for parameter in cli.params for option in parameter.opts}


def section(name: str) -> str:
    found = re.search(rf"^## {re.escape(name)}\n(.*?)(?=^## |\Z)", PAGE, re.DOTALL | re.MULTILINE)
    assert found is not None, f"no section {name}"
    return found[1]


def options_of(command: click.Command) -> set[str]:
    """Its own, and those of its subcommands."""
    subcommands = command.commands.values() if isinstance(command, click.Group) else ()
    own = {option for parameter in command.params if isinstance(parameter, click.Option) for option in parameter.opts}
    return own.union(*(options_of(subcommand) for subcommand in subcommands))


def every_command(group: click.Group, path: str = "") -> Iterator[tuple[str, click.Command]]:
    for name, command in group.commands.items():
        yield f"{path}{name}", command
        if isinstance(command, click.Group):
            yield from every_command(command, f"{path}{name} ")


@pytest.mark.parametrize("name", sorted(cli.commands))
def test_every_command_has_a_section_that_names_its_options(name: str) -> None:
    own = options_of(cli.commands[name]) - SHARED
    assert {
        option for option in own if f"`{option}" not in section(name) and f" {option} " not in section(name)
    } == set()


@pytest.mark.parametrize(("path", "command"), list(every_command(cli)))
def test_the_help_of_every_command_has_an_example(path: str, command: click.Command) -> None:
    assert re.search(rf"\n\s+ecs-queue {path}\b", command.help or ""), f"{path} has no example"


def test_every_shared_option_is_named() -> None:
    shared = section("For every command")
    assert {option for option in SHARED | {"--json"} if f"`{option}" not in shared} == set()


def test_no_option_is_named_that_there_is_not() -> None:
    known = SHARED | {option for command in cli.commands.values() for option in options_of(command)}
    known |= {"--help", "-h", "--day", "--cluster"}  # the user's own, and aws's
    assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", PAGE)) - known == set()


def test_the_lines_shown_have_every_member_in_order() -> None:
    task, result = (json.loads(line) for line in re.findall(r"^\{.*\}$", PAGE, re.MULTILINE))
    assert set(task) == TASK_FIELDS - {"not_before"}  # `delay` excludes it
    assert tuple(result) == RESULT_LINE_FIELDS


def test_every_fault_is_named() -> None:
    assert [fault for fault in FAULTS if f"`{fault}`" not in section("local-ecs")] == []
