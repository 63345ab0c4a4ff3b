"""`stop`: end requests, wherever they are."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from ecs_queue.cli.status import find_record
from ecs_queue.cli.ui.options import SharedOptions, json_option, open_client, pass_options, shared_options
from ecs_queue.cli.ui.output import format_duration, print_json, print_stdout
from ecs_queue.errors import UsageError

if TYPE_CHECKING:
    from ecs_queue.ledger.base import Ledger
    from ecs_queue.protocol.record import Record

_ID = re.compile(r"[A-Za-z0-9_-]{1,48}")


@click.command(short_help="Stop requests, wherever they are.")
@click.argument("ids", nargs=-1, required=True, metavar="ID|TASK-ARN...")
@json_option
@shared_options
@pass_options
def stop(options: SharedOptions, ids: Sequence[str], as_json: bool) -> None:
    """Stop requests: before their launch, while they are launched, or while they run.

    One that was not launched yet ends at once, as REVOKED. A running task gets SIGTERM and later SIGKILL from
    ECS, as its task definition's stopTimeout says; its real exit code is reported. One that has ended stays as
    it is. An id that is not known yet is remembered: it is revoked if it arrives.

    \b
    Examples:
      ecs-queue stop nightly-etl
      ecs-queue tasks --state queued --json | jq -r .id | xargs ecs-queue stop
    """
    options.configure_logging()
    with open_client(options) as queue:
        known = [_resolve_id(queue.ledger, name) for name in ids]
        before = queue.ledger.get(known)
        after = queue.stop_many(known, by="command line")
        patience = format_duration(queue.config.accept_seconds)
        for name, was, now in zip(known, before, after, strict=True):
            what, told = _stop_effect(was, now, patience)
            if as_json:
                print_json({"id": name, "state": now.state.value, "result": what})
            else:
                print_stdout(f"{name}: {told}")


def _resolve_id(ledger: Ledger, name: str) -> str:
    if ":" in name:
        record = find_record(ledger, name)
        if record is None:
            raise UsageError(f"no request with the task {name} is known; nothing was stopped")
        return record.id
    if not _ID.fullmatch(name):
        raise UsageError(f"{name!r} is no id: expected 1 to 48 of A-Z a-z 0-9 _ -; nothing was stopped")
    return name


def _stop_effect(before: Record | None, after: Record, memory_duration: str) -> tuple[str, str]:
    """In a word for machines, in a sentence for people."""
    if not after.is_terminal:
        return "stopping", f"will be stopped, it is {after.state.value}"
    if before is not None and before.is_terminal:
        return "ended", f"had ended already: {before.state.value}"
    if before is None and not after.queue:
        return "unknown", f"not known yet; it is revoked if it arrives within {memory_duration}"
    return "revoked", "revoked before its launch"
