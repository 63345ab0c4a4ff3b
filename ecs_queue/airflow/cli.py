"""`airflow ecs-queue ...`: the commands of `ecs-queue`, on the configuration as Airflow sees it."""

from __future__ import annotations

import os
from collections.abc import MutableMapping
from typing import Any

import click

from ecs_queue.airflow.config import build_config_environ, is_config_variable


def get_cli_commands() -> list[Any]:
    """The group `ecs-queue` for Airflow's command line, made of our own commands."""
    from airflow.cli.cli_config import ActionCommand, GroupCommand

    from ecs_queue.cli.main import cli

    commands = [
        ActionCommand(
            name=name,
            help=command.get_short_help_str(100),
            func=_CommandRunner(name, command),
            args=[
                *(_to_airflow_argument(parameter) for parameter in command.params if _is_exposed(parameter)),
                _team_argument(),
            ],
        )
        for name, command in cli.commands.items()
    ]
    return [GroupCommand(name="ecs-queue", help="Run tasks on Amazon ECS through a queue", subcommands=commands)]


def _is_exposed(parameter: click.Parameter) -> bool:
    return not getattr(parameter, "hidden", False) and not getattr(parameter, "is_eager", False)


def _to_airflow_argument(parameter: click.Parameter) -> Any:
    """One option or argument of ours as argparse wants it."""
    from airflow.cli.cli_config import Arg

    if isinstance(parameter, click.Argument):
        many = parameter.nargs == -1
        nargs = ("+" if parameter.required else "*") if many else (None if parameter.required else "?")
        return Arg((str(parameter.name),), help=None, nargs=nargs)
    assert isinstance(parameter, click.Option)
    text = (parameter.help or "").replace("%", "%%")
    flags = tuple(parameter.opts)
    if parameter.is_flag or parameter.count:
        return Arg(flags, help=text, action="store_true", dest=parameter.name)
    if parameter.multiple:
        return Arg(flags, help=text, action="append", dest=parameter.name)
    return Arg(flags, help=text, dest=parameter.name, required=parameter.required)


def _team_argument() -> Any:
    from airflow.cli.cli_config import Arg

    return Arg(("-t", "--team"), help="A team's own configuration, queues and results ([core] multi_team)")


def _export_config(environ: MutableMapping[str, str], team: str | None) -> None:
    """Let `environ` say what Airflow's configuration says; a team's says nothing of what is everybody's."""
    from airflow.configuration import conf
    from airflow.executors.base_executor import ExecutorConf

    if team and not conf.getboolean("core", "multi_team", fallback=False):
        raise SystemExit("--team needs [core] multi_team = True (Airflow 3.2 or later)")
    source = ExecutorConf(team_name=team) if team else ExecutorConf()
    seen = build_config_environ(source, conf.sections(), environ, team)
    if team:
        for variable in [name for name in environ if is_config_variable(name)]:
            del environ[variable]
    environ.update(seen)


class _CommandRunner:
    """Airflow calls it with what argparse found."""

    def __init__(self, name: str, command: click.Command) -> None:
        self._name = name
        self._command = command

    def __call__(self, arguments: Any) -> None:
        from ecs_queue.cli.main import cli

        _export_config(os.environ, getattr(arguments, "team", None))
        cli.main([self._name, *self._build_argv(arguments)])

    def _build_argv(self, arguments: Any) -> list[str]:
        options: list[str] = []
        operands: list[str] = []
        for parameter in filter(_is_exposed, self._command.params):
            value = getattr(arguments, str(parameter.name), None)
            if value is None or value is False:
                continue
            several = list(value) if isinstance(value, list | tuple) else [value]
            if isinstance(parameter, click.Argument):
                operands += [str(one) for one in several]
            elif value is True:
                options.append(parameter.opts[0])
            else:
                for one in several:
                    options += [parameter.opts[0], str(one)]
        return [*options, "--", *operands] if operands else options
