"""`airflow ecs-queue ...`: the commands of `ecs-queue` with Airflow's configuration."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import partial
from typing import Any

import click

from ecs_queue.airflow.config import AirflowSources

#: The commands from a group of `ecs-queue` down to the one to run.
CommandPath = Sequence[click.Command]


def get_cli_commands() -> list[Any]:
    """Return the group `ecs-queue` for Airflow's command line, made of ecs-queue's own commands."""
    from airflow.cli.cli_config import GroupCommand

    from ecs_queue.cli.main import cli

    commands = [_build_command([command]) for command in cli.commands.values()]
    return [GroupCommand(name="ecs-queue", help="Run tasks on Amazon ECS through a queue", subcommands=commands)]


def _build_command(path: CommandPath) -> Any:
    from airflow.cli.cli_config import ActionCommand, GroupCommand

    command = path[-1]
    name, help_text = str(command.name), command.get_short_help_str(100)
    arguments = _build_arguments(command)
    if isinstance(command, click.Group):
        commands = [_build_command([*path, inner]) for inner in command.commands.values()]
        if not command.invoke_without_command:
            return GroupCommand(name=name, help=help_text, subcommands=commands)
        arguments.append(_build_optional_commands(commands))
    return ActionCommand(name=name, help=help_text, func=partial(_run_command, path), args=arguments)


def _build_arguments(command: click.Command) -> list[Any]:
    from airflow.cli.cli_config import Arg

    team_help = "A team's own configuration, queues and results ([core] multi_team)"
    team = Arg(("-t", "--team"), help=team_help, default=argparse.SUPPRESS)
    return [*map(_to_airflow_argument, _exposed_parameters(command)), team]


def _build_optional_commands(commands: Sequence[Any]) -> Any:
    """Return, as an argument, the commands in a group that is a command, too; in Airflow's groups one is required."""
    from airflow.cli.cli_config import Arg

    class OptionalCommands(Arg):  # type: ignore[misc]  # Airflow is not installed where types are checked
        def add_to_parser(self, parser: argparse.ArgumentParser) -> None:
            subparsers = parser.add_subparsers(dest="inner_command", metavar="[COMMAND]")
            for command in commands:
                inner = subparsers.add_parser(command.name, help=command.help, description=command.help)
                for argument in command.args:
                    argument.add_to_parser(inner)
                inner.set_defaults(func=command.func)

    return OptionalCommands(("inner_command",))


def _exposed_parameters(command: click.Command) -> list[click.Parameter]:
    return [one for one in command.params if not getattr(one, "hidden", False) and not one.is_eager]


def _to_airflow_argument(parameter: click.Parameter) -> Any:
    """An option or argument of click as argparse takes it. What is not given is not in argparse's result."""
    from airflow.cli.cli_config import Arg

    if isinstance(parameter, click.Argument):
        is_variadic = parameter.nargs == -1
        nargs = ("+" if parameter.required else "*") if is_variadic else (None if parameter.required else "?")
        return Arg((str(parameter.name),), help=None, nargs=nargs)
    assert isinstance(parameter, click.Option)
    flags, text = tuple(parameter.opts), (parameter.help or "").replace("%", "%%")
    kwargs: dict[str, Any] = {"help": text, "dest": parameter.name, "default": argparse.SUPPRESS}
    if parameter.is_flag or parameter.count:
        return Arg(flags, action="store_true", **kwargs)
    if parameter.multiple:
        return Arg(flags, action="append", **kwargs)
    return Arg(flags, required=parameter.required, **kwargs)


def _open_sources(team: str | None) -> AirflowSources:
    from airflow.configuration import AIRFLOW_CONFIG, conf

    if team and not conf.getboolean("core", "multi_team", fallback=False):
        raise SystemExit("--team needs [core] multi_team = True (Airflow 3.2 or later)")
    return AirflowSources(conf, AIRFLOW_CONFIG, team)


def _run_command(path: CommandPath, arguments: Any) -> None:
    """Run the last command of `path` with the arguments that Airflow's argparse has parsed."""
    from ecs_queue.cli.main import cli
    from ecs_queue.cli.ui.options import SharedOptions

    options = SharedOptions(load=_open_sources(getattr(arguments, "team", None)).load)
    cli.main(_build_argv(path, vars(arguments)), obj=options)


def _build_argv(path: CommandPath, given: dict[str, Any]) -> list[str]:
    """Return the words for click: each command's name and options, then the operands of the last one."""
    words: list[str] = []
    operands: list[str] = []
    own_names = {parameter.name for parameter in path[-1].params}
    for command in path:
        words.append(str(command.name))
        for parameter in _exposed_parameters(command):
            if command is not path[-1] and parameter.name in own_names:
                continue  # an option of every command: it stands behind the last one
            value = given.get(str(parameter.name))
            values = value if isinstance(value, list | tuple) else [] if value is None else [value]
            if isinstance(parameter, click.Argument):
                operands += map(str, values)
            elif value is True:
                words.append(parameter.opts[0])
            else:
                words += [word for one in values for word in (parameter.opts[0], str(one))]
    return [*words, "--", *operands] if operands else words
