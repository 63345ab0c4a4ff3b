"""The options of every command, and the connections that commands open with them."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import click

from ecs_queue.cli.ui.output import print_stderr
from ecs_queue.errors import UsageError
from ecs_queue.messages.queue_names import QUEUE_NAME_RULE, canonical_queue_name, is_queue_name
from ecs_queue.payload_repr import PayloadRepr

if TYPE_CHECKING:
    from ecs_queue.client.client import EcsQueue
    from ecs_queue.config import Config
    from ecs_queue.journal import RedisJournal

LOG_LEVELS = ("debug", "info", "warning", "error")


@dataclass(repr=False)
class SharedOptions(PayloadRepr):
    """What the command line says for every command.

    Attributes:
        config_path: The ini file.
        overrides: Keys of [ecs_queue] with their values as text. They override every other source.
        log_level: One of `LOG_LEVELS`; None for the command's default.
        load: Takes the place of `load_config`, for a command of `airflow ecs-queue`.
    """

    config_path: str | None = None
    overrides: dict[str, str] = field(default_factory=dict)
    log_level: str | None = None
    load: Callable[..., Config] | None = None

    def load_config(self) -> Config:
        """Return the configuration in effect; `ConfigError` names every mistake in it."""
        from ecs_queue.config import load_config

        self._check_urls()
        return (self.load or load_config)(self.config_path, overrides=self.overrides)

    def _check_urls(self) -> None:
        """Warn of a password in the command line, which every user of the machine can read in the list of processes.

        Raises:
            UsageError: A URL is given twice, itself and as a file.
        """
        from ecs_queue.cli.ui.output import print_stderr
        from ecs_queue.config.redact import holds_secret

        for key in ("broker_url", "ledger_url"):
            option, url = f"--{key.replace('_', '-')}", self.overrides.get(key, "")
            if url and f"{key}_file" in self.overrides:
                raise UsageError(f"{option} and {option}-file exclude each other; leave one of them out")
            if holds_secret(key, url):
                print_stderr(
                    f"ecs-queue: {option} shows its password in the list of processes; use {option}-file, or "
                    f"AIRFLOW__ECS_QUEUE__{key.upper()}"
                )

    def configure_logging(self, default: str = "warning", log_format: str = "text") -> None:
        """Log to stderr, by default from the level `default`; other libraries only from WARNING."""
        from ecs_queue.cli.ui.logging_setup import configure_logging

        configure_logging(logging.getLevelNamesMapping()[(self.log_level or default).upper()], log_format)

    def reject_config_options(self, command: str, reason: str) -> None:
        """Raise `UsageError` when configuration options were given to a command that takes none."""
        given = ["--config"] if self.config_path else []
        given += [f"--{key.replace('_', '-')}" for key in self.overrides]
        if given:
            raise UsageError(f"{command} takes no {' or '.join(given)}: {reason}")


Command = Callable[..., Any]


class OrderedGroup(click.Group):
    """Lists its commands in the order in which they were added, which is the order in which a newcomer needs them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """See click."""
        del ctx
        return list(self.commands)


def shared_options(command: Command) -> Command:
    """Add the options of every command. When one stands before and after the command's name, the latter counts."""

    def store(ctx: click.Context, parameter: click.Parameter, value: str | None) -> None:
        options = ctx.ensure_object(SharedOptions)
        if value is None:
            return
        if parameter.name == "config":
            options.config_path = value
        elif parameter.name == "log_level":
            options.log_level = value
        else:
            options.overrides[str(parameter.name)] = value

    option = functools.partial(click.option, expose_value=False, callback=store)
    for decorate in (
        option(
            "--log-level",
            type=click.Choice(LOG_LEVELS, case_sensitive=False),
            help="What to log to stderr. The default is info for a worker, warning for other commands.",
        ),
        option("--namespace", metavar="NAME", help="Name of the installation, when several share one server."),
        option("--ledger-url-file", metavar="PATH", help="File with the --ledger-url, which may hold a password."),
        option("--broker-url-file", metavar="PATH", help="File with the --broker-url, which may hold a password."),
        option("--ledger-url", metavar="URL", help="Server of the records. The default is --broker-url."),
        option("--broker-url", metavar="URL", help="Server of the messages: redis://, rediss://, sentinel:// ..."),
        option("--config", metavar="PATH", help="Ini file with the configuration.  [env: ECS_QUEUE_CONFIG]"),
    ):
        command = decorate(command)
    return command


def queue_name(value: str) -> str:
    """Return the canonical name of a queue in any spelling. For the `type` of a click option or argument."""
    if not is_queue_name(value):
        raise click.BadParameter(f"expected {QUEUE_NAME_RULE}, found {value!r}")
    return canonical_queue_name(value)


pass_options = click.make_pass_decorator(SharedOptions, ensure=True)

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, one object a line.")


def as_option(command: Command) -> Command:
    """Add --as, the name of who submits or stops."""

    def store(ctx: click.Context, parameter: click.Parameter, value: str | None) -> None:
        del parameter
        if value is not None:
            ctx.ensure_object(SharedOptions).overrides["acting_user"] = value

    decorate = click.option(
        "--as",
        "acting_user",
        metavar="NAME",
        expose_value=False,
        callback=store,
        help="Who does it, as records and the journal say.  [acting_user, else the system's user]",
    )
    decorated: Command = decorate(command)
    return decorated


def command_options(command: Command) -> Command:
    """Add --json and the options of every command; pass `as_json`, and `SharedOptions` as the first argument."""
    decorated: Command = json_option(shared_options(pass_options(command)))
    return decorated


def load_shared_config(options: SharedOptions) -> Config:
    """Return the configuration of a command that works with other processes.

    Raises:
        UsageError: Broker or ledger are in memory, where other processes cannot reach them.
    """
    config = options.load_config()
    for key in ("broker_url", "ledger_url"):
        if getattr(config, key).startswith("memory:"):
            raise UsageError(
                f"{key} is memory://, which no other process can reach: set it to redis://HOST:PORT/0, "
                "or start a server of your own with `ecs-queue local`"
            )
    return config


@contextmanager
def open_client(options: SharedOptions, owner: str | None = "") -> Iterator[EcsQueue]:
    """Open a client for the configuration, and close it at the end. `owner` is that of `EcsQueue`."""
    from ecs_queue.client.client import EcsQueue

    with EcsQueue.open(load_shared_config(options), owner) as client:
        yield client


@contextmanager
def open_journal_reader(config: Config) -> Iterator[RedisJournal]:
    """Open the namespace's journal, and close it at the end. It is empty when no worker or client writes one.

    stderr says at the end what was skipped because it is broken.
    """
    from ecs_queue.journal import open_journal

    with closing(open_journal(config)) as journal:
        try:
            yield journal
        finally:
            if len(journal.skipped):
                print_stderr(f"ecs-queue: {journal.skipped.message()}")
