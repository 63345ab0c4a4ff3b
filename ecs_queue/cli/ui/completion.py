"""Completes ids of requests and names of queues in a shell, from the ledger of the configuration in effect."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable
from contextlib import redirect_stderr
from typing import TYPE_CHECKING

import click

from ecs_queue.cli.ui.options import SharedOptions, open_client
from ecs_queue.cli.ui.records import list_queues
from ecs_queue.errors import EcsQueueError

if TYPE_CHECKING:
    from ecs_queue.client.client import EcsQueue

#: How many of the newest requests are looked at: a shell waits for the answer.
_MAX_IDS = 1000


def complete_id(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    """Return the ids of the newest requests that begin so; none where the ledger cannot be reached."""
    del parameter
    return _complete(ctx, incomplete, lambda client: (record.id for record in client.tasks(limit=_MAX_IDS)))


def complete_queue(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    """Return the queues whose names begin so; none where the ledger cannot be reached."""
    del parameter
    return _complete(
        ctx,
        incomplete,
        lambda client: list_queues(client, client.ledger.list_workers(), client.ledger.count_by_state()),
    )


def _complete(ctx: click.Context, incomplete: str, read: Callable[[EcsQueue], Iterable[str]]) -> list[str]:
    options = ctx.find_object(SharedOptions) or SharedOptions()
    try:
        # A message would stand in the middle of the line that is typed.
        with redirect_stderr(io.StringIO()), open_client(options) as client:
            return [name for name in read(client) if name.startswith(incomplete)]
    except (EcsQueueError, OSError):
        return []
