"""The options that every command has, before its name or after it, and what is opened by them."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import click

from ecs_queue.errors import UsageError

if TYPE_CHECKING:
    from ecs_queue.client.client import EcsQueue
    from ecs_queue.config import Config

LOG_LEVELS = ("debug", "info", "warning", "error")


@dataclass
class SharedOptions:
    """What was given on the command line. `overrides`: keys of [ecs_queue] as text, the uppermost layer."""

    config_path: str | None = None
    overrides: dict[str, str] = field(default_factory=dict)
    log_level: str | None = None

    def load_config(self) -> Config:
        """The configuration in effect; ConfigError says all that is wrong with it."""
        from ecs_queue.config import load_config

        return load_config(self.config_path, overrides=self.overrides)

    def configure_logging(self, default: str = "warning", log_format: str = "text") -> None:
        """Logs go to stderr. What others log (botocore, kombu) only from WARNING."""
        from ecs_queue.cli.ui.logging_setup import configure_logging

        configure_logging(logging.getLevelNamesMapping()[(self.log_level or default).upper()], log_format)

    def reject_config_options(self, command: str, reason: str) -> None:
        """UsageError when a configuration was given to a command that takes none."""
        given = ["--config"] if self.config_path else []
        given += [f"--{key.replace('_', '-')}" for key in self.overrides]
        if given:
            raise UsageError(f"{command} takes no {' or '.join(given)}: {reason}")


Command = Callable[..., Any]


class OrderedGroup(click.Group):
    """Lists its commands in the order in which a newcomer needs them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """See click."""
        del ctx
        return list(self.commands)


def shared_options(command: Command) -> Command:
    """The options of every command. Given twice, the one after the command's name counts."""

    def remember(ctx: click.Context, parameter: click.Parameter, value: str | None) -> None:
        options = ctx.ensure_object(SharedOptions)
        if value is None:
            return
        if parameter.name == "config":
            options.config_path = value
        elif parameter.name == "log_level":
            options.log_level = value
        else:
            options.overrides[str(parameter.name)] = value

    add = functools.partial(click.option, expose_value=False, callback=remember)
    for decorate in reversed(
        (
            add("--config", metavar="PATH", help="The ini file with the configuration.  [env: ECS_QUEUE_CONFIG]"),
            add("--broker-url", metavar="URL", help="Where messages go: redis:// or rediss://."),
            add("--ledger-url", metavar="URL", help="Where the records are; without it, at --broker-url."),
            add("--namespace", metavar="NAME", help="The installation, where several share one server."),
            add(
                "--log-level",
                type=click.Choice(LOG_LEVELS, case_sensitive=False),
                help="How much is logged to stderr: by default info for a worker, else warning.",
            ),
        )
    ):
        command = decorate(command)
    return command


pass_options = click.make_pass_decorator(SharedOptions, ensure=True)

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, one object a line.")


def load_shared_config(options: SharedOptions) -> Config:
    """The configuration of a command that works with other processes; UsageError for a broker within one process."""
    config = options.load_config()
    for key in ("broker_url", "ledger_url"):
        if getattr(config, key).startswith("memory:"):
            raise UsageError(
                f"{key} is memory://, which nobody outside one process can reach: set it to redis://HOST:PORT/0, "
                "or start a server of your own with `ecs-queue local`"
            )
    return config


@contextmanager
def open_client(options: SharedOptions, owner: str | None = "") -> Iterator[EcsQueue]:
    """A client by the configuration, closed at the end. `owner`: as for `EcsQueue`; "" never waits."""
    from ecs_queue.client.client import EcsQueue

    with EcsQueue.open(load_shared_config(options), owner) as queue:
        yield queue
