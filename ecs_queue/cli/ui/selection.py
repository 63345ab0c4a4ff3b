"""The options that select requests: --state and --queue of `tasks`, `stop` and `retry`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import click

from ecs_queue.cli.ui.completion import complete_queue
from ecs_queue.cli.ui.options import queue_name

_Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


def selection_options(states: Sequence[str], *, state_help: str, queue_help: str) -> _Decorator:
    """Add --state, repeatable, as `states`, and --queue as `queue`.

    Args:
        states: The states that may be selected; each may be written in upper or lower case.
        state_help: What --state selects, without a stop at its end.
        queue_help: What --queue selects.
    """
    state = click.option(
        "--state",
        "states",
        multiple=True,
        type=click.Choice(states, case_sensitive=False),
        metavar="STATE",
        help=f"{state_help}, in upper or lower case; repeatable. {', '.join(states)}.",
    )
    queue = click.option("--queue", type=queue_name, shell_complete=complete_queue, metavar="NAME", help=queue_help)

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        decorated: Callable[..., Any] = state(queue(command))
        return decorated

    return decorate
