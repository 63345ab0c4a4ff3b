"""`stop`: end requests, wherever they are."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from ecs_queue.cli.look import find_record
from ecs_queue.cli.options import Options, json_option, opened_queue, pass_options, shared_options
from ecs_queue.cli.output import duration, show, show_json
from ecs_queue.errors import UsageError

if TYPE_CHECKING:
    from ecs_queue.core.record import Record
    from ecs_queue.ledger.base import Ledger

_ID = re.compile(r"[A-Za-z0-9_-]{1,48}")


@click.command(short_help="Stop requests, wherever they are.")
@click.argument("ids", nargs=-1, required=True, metavar="ID|TASK-ARN...")
@json_option
@shared_options
@pass_options
def stop(options: Options, ids: Sequence[str], as_json: bool) -> None:
    """Stop requests: before their launch, while they are launched, or while they run.

    One that was not launched yet ends at once, as REVOKED. A running task gets SIGTERM and later SIGKILL from
    ECS, as its task definition's stopTimeout says; its real exit code is reported. One that has ended stays as
    it is. An id that is not known yet is remembered: it is revoked if it arrives.

    \b
    Examples:
      ecs-queue stop nightly-etl
      ecs-queue tasks --state queued --json | jq -r .id | xargs ecs-queue stop
    """
    options.start_logging()
    with opened_queue(options) as queue:
        known = [_id_of(queue.ledger, name) for name in ids]
        before = queue.ledger.get(known)
        after = queue.stop_many(known, by="command line")
        patience = duration(queue.config.accept_seconds)
        for name, was, now in zip(known, before, after, strict=True):
            what, told = _what_happened(was, now, patience)
            if as_json:
                show_json({"id": name, "state": now.state.value, "result": what})
            else:
                show(f"{name}: {told}")


def _id_of(ledger: Ledger, name: str) -> str:
    if ":" in name:
        record = find_record(ledger, name)
        if record is None:
            raise UsageError(f"no request with the task {name} is known; nothing was stopped")
        return record.id
    if not _ID.fullmatch(name):
        raise UsageError(f"{name!r} is no id: expected 1 to 48 of A-Z a-z 0-9 _ -; nothing was stopped")
    return name


def _what_happened(was: Record | None, now: Record, patience: str) -> tuple[str, str]:
    """In a word for machines, in a sentence for people."""
    if not now.ended:
        return "stopping", f"will be stopped, it is {now.state.value}"
    if was is not None and was.ended:
        return "ended", f"had ended already: {was.state.value}"
    if was is None and not now.queue:
        return "unknown", f"not known yet; it is revoked if it arrives within {patience}"
    return "revoked", "revoked before its launch"
