"""`acl`: prints the users of the server with their rights."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations

import click

from ecs_queue.cli.ui.options import SharedOptions, pass_options, shared_options
from ecs_queue.cli.ui.output import write_stdout
from ecs_queue.errors import UsageError


@click.command(short_help="Print the users of the server.")
@click.option(
    "--submitter",
    "submitters",
    multiple=True,
    metavar="NAME",
    help="Print a submitter NAME, for processes with owner_prefix = NAME; repeatable. Default: one for clients, one "
    "for Airflow.",
)
@shared_options
@pass_options
def acl(options: SharedOptions, submitters: tuple[str, ...]) -> None:
    """Print the users of the server with the rights that each needs, for its aclfile (Redis 7.0 or later, Valkey).

    The users are worker, submitters, reader, operator and runner of the configured namespace. Their rights fit
    the configured durability. Put a password in the place of each NAME_PASSWORD.

    \b
    Examples:
      ecs-queue acl > redis-users.acl
      ecs-queue acl --namespace etl --submitter team-a --submitter team-b
    """
    from ecs_queue.config.main_keys import OWNER_PREFIX_PATTERN
    from ecs_queue.server_users import SUBMITTERS, ServerUser, render_users

    options.configure_logging()
    for name in submitters:
        if not OWNER_PREFIX_PATTERN.fullmatch(name) or name in set(ServerUser) - {ServerUser.SUBMITTER}:
            raise UsageError(
                f"--submitter: expected 1 to 32 of A-Z a-z 0-9 _ -, and no other user's name; found {name}"
            )
    _check_distinct(submitters)
    config = options.load_config()
    write_stdout(
        render_users(config.namespace, {name: name for name in submitters} or SUBMITTERS, config.durability).rstrip()
    )


def _check_distinct(submitters: Sequence[str]) -> None:
    """Raise UsageError where one submitter could receive another's results, or would get another's password."""
    for first, second in permutations(submitters, 2):
        if second.startswith(f"{first}-"):
            raise UsageError(
                f"--submitter: found {first} and {second}: {first} could receive the results of {second}, whose owners "
                f"begin with {first}-, too; rename one of them"
            )
    from ecs_queue.server_users import password_placeholder

    placeholders = [password_placeholder(name) for name in submitters]
    if len(set(placeholders)) < len(placeholders):
        raise UsageError(
            f"--submitter: expected names that differ in more than case, - and _, found {', '.join(submitters)}: two "
            "of them would have one placeholder, and so the same password"
        )
