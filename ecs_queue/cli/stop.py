"""`stop`: stops requests before, during and after their launch."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import click

from ecs_queue.cli.ui.completion import complete_id
from ecs_queue.cli.ui.durations import format_duration
from ecs_queue.cli.ui.exit_status import EXIT_FAILURE
from ecs_queue.cli.ui.options import SharedOptions, as_option, command_options, open_client
from ecs_queue.cli.ui.output import describe_number, print_json, print_stderr, print_stdout
from ecs_queue.cli.ui.records import STATE_NAMES, resolve_id, warn_unserved_queues
from ecs_queue.cli.ui.selection import selection_options
from ecs_queue.errors import UsageError

if TYPE_CHECKING:
    from ecs_queue.client.client import EcsQueue
    from ecs_queue.protocol.record import Record

#: The states of requests that have not ended, the first of `STATE_NAMES`.
LIVE_STATE_NAMES = STATE_NAMES[:3]
_BATCH_SIZE = 500
#: How the owners of requests of Airflow's executor begin.
_AIRFLOW_OWNER_PREFIX = "airflow-"


@click.command(short_help="Stop requests, launched or not.")
@click.argument("ids", nargs=-1, shell_complete=complete_id, metavar="[ID|TASK-ARN...]")
@selection_options(
    LIVE_STATE_NAMES,
    state_help="All requests in this state",
    queue_help="All requests of this queue that have not ended; with --state both.",
)
@click.option("--yes", is_flag=True, help="With --state or --queue: do it; otherwise only count them.")
@click.option("--ahead", is_flag=True, help="Also revoke an ID that is not known yet, when it arrives.")
@as_option
@command_options
def stop(
    options: SharedOptions,
    /,
    ids: Sequence[str],
    states: Sequence[str],
    queue: str | None,
    yes: bool,
    ahead: bool,
    as_json: bool,
) -> int:
    """Stop requests, launched or not: those of the IDs, or all that --state and --queue select.

    A request that is not launched yet ends at once, as REVOKED. A running task gets SIGTERM from ECS, and SIGKILL
    after the stopTimeout of its task definition; its real exit code is reported. A request that has ended stays
    as it is. For an unknown id nothing is done; with --ahead it is remembered: the request is revoked when it arrives.

    \b
    Examples:
      ecs-queue stop nightly-etl
      ecs-queue stop --state queued --queue etl          says how many there are
      ecs-queue stop --state queued --queue etl --yes    stops them

    Exit status: 1 when an id is not known, and --ahead was not given, or its record is broken (`ecs-queue broken`);
    the other ids are stopped.
    """
    options.configure_logging()
    _check_usage(ids, states, queue, yes, ahead)
    with open_client(options) as client:
        if not ids:
            return _stop_selected(client, frozenset(state.upper() for state in states), queue, yes, as_json)
        names = list(dict.fromkeys(resolve_id(client.ledger, name, "nothing was stopped") for name in ids))
        before = dict(zip(names, client.ledger.get(names), strict=True))
        unknown = [] if ahead else [name for name in names if before[name] is None]
        known = [name for name in names if name not in unknown]
        after = dict(zip(known, client.stop_many(known) if known else [], strict=True))
        remembered = format_duration(client.config.accept_seconds)
    for name in names:
        _print_effect(name, before[name], after.get(name), remembered, as_json)
    _note_airflow_tasks(after.values())
    return EXIT_FAILURE if unknown or any(map(_is_broken, after.values())) else 0


def _check_usage(ids: Sequence[str], states: Sequence[str], queue: str | None, yes: bool, ahead: bool) -> None:
    selects = bool(states) or queue is not None
    if bool(ids) == selects:
        found = "both" if ids else "neither"
        raise UsageError(f"stop: expected ids, or --state, --queue or both, found {found}; nothing was stopped")
    if yes and not selects:
        raise UsageError("stop: --yes is for --state or --queue; leave it out")
    if ahead and selects:
        raise UsageError("stop: --ahead is for ids; leave it out")


def _stop_selected(client: EcsQueue, states: frozenset[str], queue: str | None, yes: bool, as_json: bool) -> int:
    """Stop all live requests of the states and the queue, or only count them."""
    wanted = states or frozenset(LIVE_STATE_NAMES)
    found = [record for record in client.tasks(states=wanted, queue=queue) if record.queue]
    if not found and queue is not None:
        warn_unserved_queues(client, [queue], expects_launch=False)
    if not yes:
        if as_json:
            print_json({"selected": len(found), "stopped": 0})
        number = describe_number(len(found), "request")
        print_stderr(f"{number} would be stopped; dry run: nothing was done, --yes does it")
        return 0
    stopped: list[Record | None] = []
    for start in range(0, len(found), _BATCH_SIZE):
        batch = found[start : start + _BATCH_SIZE]
        for old, new in zip(batch, client.stop_many([r.id for r in batch]), strict=True):
            stopped.append(new)
            if as_json:
                _print_effect(old.id, old, new, "", as_json)
    print_stderr(f"{len(stopped)} of {len(found)} were stopped, or will be")
    _note_airflow_tasks(stopped)
    return 0


def _print_effect(name: str, before: Record | None, after: Record | None, remembered: str, as_json: bool) -> None:
    result, sentence = _stop_effect(before, after, remembered)
    if as_json:
        print_json({"id": name, "state": after.state.value if after else None, "result": result})
    else:
        print_stdout(f"{name}: {sentence}")


def _note_airflow_tasks(records: Iterable[Record | None]) -> None:
    """Say once what a stop does not do to a running task of Airflow."""
    if any(r is not None and not r.is_terminal and r.owner.startswith(_AIRFLOW_OWNER_PREFIX) for r in records):
        print_stderr(
            "a running task of Airflow ignores SIGTERM unless its operator has an on_kill, and ECS kills it after the "
            "stopTimeout: to stop it at once, mark it as failed in Airflow (docs/airflow.md, Stopping a running task)"
        )


def _is_broken(record: Record) -> bool:
    from ecs_queue.protocol.record_defects import is_broken_record

    return is_broken_record(record)


def _stop_effect(before: Record | None, after: Record | None, remembered: str) -> tuple[str, str]:
    """Return the `result` of the JSON line, and a sentence for people."""
    if after is None:
        return "unknown", "no such request is known, nothing was done; --ahead revokes it when it arrives"
    if _is_broken(after):
        return "broken", f"nothing was done; {after.reason}"
    if not after.is_terminal:
        return "stopping", f"will be stopped, it is {after.state.value}"
    if before is not None and before.is_terminal:
        return "ended", f"had ended already: {before.state.value}"
    if before is None and not after.queue:
        return "ahead", f"not known yet; it is revoked if it arrives within {remembered}"
    return "revoked", "revoked before its launch"
