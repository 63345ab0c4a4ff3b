"""Shows an answer again and again, for `--watch`."""

from __future__ import annotations

import time
from collections.abc import Callable

import click

from ecs_queue.cli.ui.durations import POSITIVE_DURATION
from ecs_queue.cli.ui.output import can_draw
from ecs_queue.errors import UsageError

watch_option = click.option(
    "--watch",
    type=POSITIVE_DURATION,
    is_flag=False,
    flag_value="2",
    metavar="[SECONDS]",
    help="Show it again every SECONDS, 2 by default, until Ctrl-C. Without a terminal it is shown once.",
)


def show_repeatedly(seconds: float | None, as_json: bool, show: Callable[[], int | None]) -> int:
    """Call `show` every `seconds` on a cleared terminal, until Ctrl-C; return its exit status, after Ctrl-C 0.

    Without `seconds`, and without a terminal that can be cleared, it is called once.

    Raises:
        UsageError: `seconds` with `as_json`.
    """
    if seconds is not None and as_json:
        raise UsageError("--watch is for people and --json for programs; leave one of them out")
    if seconds is None or not can_draw():
        return show() or 0
    try:
        while True:
            click.clear()
            show()
            time.sleep(seconds)
    except KeyboardInterrupt:
        return 0
