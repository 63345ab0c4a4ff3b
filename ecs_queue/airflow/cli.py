"""`airflow ecs-queue ...`: the commands of `ecs-queue` with Airflow's configuration."""

from __future__ import annotations

from functools import partial
from typing import Any

import click

from ecs_queue.airflow.config import AirflowSources


def get_cli_commands() -> list[Any]:
    """Return the group `ecs-queue` for Airflow's command line, made of ecs-queue's own commands."""
    from airflow.cli.cli_config import ActionCommand, Arg, GroupCommand

    from ecs_queue.cli.main import cli

    team = Arg(("-t", "--team"), help="A team's own configuration, queues and results ([core] multi_team)")
    commands = [
        ActionCommand(
            name=name,
            help=command.get_short_help_str(100),
            func=partial(_run_command, name, command),
            args=[*map(_to_airflow_argument, filter(_is_exposed, command.params)), team],
        )
        for name, command in cli.commands.items()
    ]
    return [GroupCommand(name="ecs-queue", help="Run tasks on Amazon ECS through a queue", subcommands=commands)]


def _is_exposed(parameter: click.Parameter) -> bool:
    return not getattr(parameter, "hidden", False) and not getattr(parameter, "is_eager", False)


def _to_airflow_argument(parameter: click.Parameter) -> Any:
    """An option or argument of click as argparse takes it."""
    from airflow.cli.cli_config import Arg

    if isinstance(parameter, click.Argument):
        is_variadic = parameter.nargs == -1
        nargs = ("+" if parameter.required else "*") if is_variadic else (None if parameter.required else "?")
        return Arg((str(parameter.name),), help=None, nargs=nargs)
    assert isinstance(parameter, click.Option)
    flags, text = tuple(parameter.opts), (parameter.help or "").replace("%", "%%")
    if parameter.is_flag or parameter.count:
        return Arg(flags, help=text, action="store_true", dest=parameter.name)
    if parameter.multiple:
        return Arg(flags, help=text, action="append", dest=parameter.name)
    return Arg(flags, help=text, dest=parameter.name, required=parameter.required)


def _open_sources(team: str | None) -> AirflowSources:
    from airflow.configuration import AIRFLOW_CONFIG, conf

    if team and not conf.getboolean("core", "multi_team", fallback=False):
        raise SystemExit("--team needs [core] multi_team = True (Airflow 3.2 or later)")
    return AirflowSources(conf, AIRFLOW_CONFIG, team)


def _run_command(name: str, command: click.Command, arguments: Any) -> None:
    """Run a command with the arguments that Airflow's argparse has parsed."""
    from ecs_queue.cli.main import cli
    from ecs_queue.cli.ui.options import SharedOptions

    options = SharedOptions(load=_open_sources(getattr(arguments, "team", None)).load)
    cli.main([name, *_build_argv(command, arguments)], obj=options)


def _build_argv(command: click.Command, arguments: Any) -> list[str]:
    options: list[str] = []
    operands: list[str] = []
    for parameter in filter(_is_exposed, command.params):
        value = getattr(arguments, str(parameter.name), None)
        if value is None or value is False:
            continue
        values = value if isinstance(value, list | tuple) else [value]
        if isinstance(parameter, click.Argument):
            operands += map(str, values)
        elif value is True:
            options.append(parameter.opts[0])
        else:
            options += [word for one in values for word in (parameter.opts[0], str(one))]
    return [*options, "--", *operands] if operands else options
