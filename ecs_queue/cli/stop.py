"""`stop`: stops requests before, during and after their launch."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from ecs_queue.cli.ui.durations import format_duration
from ecs_queue.cli.ui.options import SharedOptions, command_options, open_client
from ecs_queue.cli.ui.output import print_json, print_stdout
from ecs_queue.cli.ui.records import find_record
from ecs_queue.errors import UsageError

if TYPE_CHECKING:
    from ecs_queue.ledger.base import RequestReader
    from ecs_queue.protocol.record import Record

_ID = re.compile(r"[A-Za-z0-9_-]{1,48}")


@click.command(short_help="Stop requests, launched or not.")
@click.argument("ids", nargs=-1, required=True, metavar="ID|TASK-ARN...")
@command_options
def stop(options: SharedOptions, ids: Sequence[str], as_json: bool) -> None:
    """Stop requests, launched or not.

    A request that is not launched yet ends at once, as REVOKED. A running task gets SIGTERM from ECS, and SIGKILL
    after the stopTimeout of its task definition; its real exit code is reported. A request that has ended stays
    as it is. An unknown id is remembered: the request is revoked when it arrives.

    \b
    Examples:
      ecs-queue stop nightly-etl
      ecs-queue tasks --state queued --json | jq -r .id | xargs ecs-queue stop
    """
    options.configure_logging()
    with open_client(options) as client:
        known = [_resolve_id(client.ledger, name) for name in ids]
        before = client.ledger.get(known)
        after = client.stop_many(known, by="command line")
        remembered = format_duration(client.config.accept_seconds)
    for name, old, new in zip(known, before, after, strict=True):
        result, sentence = _stop_effect(old, new, remembered)
        if as_json:
            print_json({"id": name, "state": new.state.value, "result": result})
        else:
            print_stdout(f"{name}: {sentence}")


def _resolve_id(ledger: RequestReader, name: str) -> str:
    if ":" in name:
        record = find_record(ledger, name)
        if record is None:
            raise UsageError(f"no request with the task {name} is known; nothing was stopped")
        return record.id
    if not _ID.fullmatch(name):
        raise UsageError(f"expected an id of 1 to 48 of A-Z a-z 0-9 _ -, found {name!r}; nothing was stopped")
    return name


def _stop_effect(before: Record | None, after: Record, remembered: str) -> tuple[str, str]:
    """Return the `result` of the JSON line, and a sentence for people."""
    if not after.is_terminal:
        return "stopping", f"will be stopped, it is {after.state.value}"
    if before is not None and before.is_terminal:
        return "ended", f"had ended already: {before.state.value}"
    if before is None and not after.queue:
        return "unknown", f"not known yet; it is revoked if it arrives within {remembered}"
    return "revoked", "revoked before its launch"
