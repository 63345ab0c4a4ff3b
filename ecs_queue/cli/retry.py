"""`retry`: submits requests that ended without a success once more."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from ecs_queue.cli.ui.completion import complete_id
from ecs_queue.cli.ui.durations import TimeBound, parse_time_bound
from ecs_queue.cli.ui.exit_status import EXIT_FAILURE
from ecs_queue.cli.ui.options import (
    SharedOptions,
    as_option,
    command_options,
    open_client,
    open_journal_reader,
)
from ecs_queue.cli.ui.output import describe_number, print_json, print_stderr, print_stdout
from ecs_queue.cli.ui.records import STATE_NAMES, resolve_id, warn_unserved_queues
from ecs_queue.cli.ui.selection import selection_options
from ecs_queue.cli.ui.variables import parse_variables, variables_option
from ecs_queue.errors import UsageError

if TYPE_CHECKING:
    from ecs_queue.client.client import EcsQueue
    from ecs_queue.protocol.record import Record
    from ecs_queue.replay.retry import Retry

#: The states of requests that ended without a success, the last of `STATE_NAMES`; a test compares them.
FAILED_STATE_NAMES = STATE_NAMES[4:]
#: How many requests a sentence names that are not retried for one reason; --json names all.
_MAX_NAMED = 5


@click.command(short_help="Submit requests that failed once more.")
@click.argument("ids", nargs=-1, shell_complete=complete_id, metavar="[ID|TASK-ARN...]")
@selection_options(
    FAILED_STATE_NAMES,
    state_help="All requests in this state",
    queue_help="With --state: only requests of this queue.",
)
@click.option(
    "--since", type=parse_time_bound, metavar="AGE|TIME", help="With --state: only submitted since then: 30m, 2h ..."
)
@variables_option
@click.option("--yes", is_flag=True, help="With --state: do it; otherwise only list them.")
@as_option
@command_options
def retry(
    options: SharedOptions,
    /,
    ids: Sequence[str],
    states: Sequence[str],
    queue: str | None,
    since: TimeBound | None,
    variables: Sequence[str],
    yes: bool,
    as_json: bool,
) -> int:
    """Submit requests that ended without a success once more: those of the IDs, or all that --state selects.

    Each becomes a new request with the same command, overrides and policies, which names the old one as `origin`; its
    times count from now, and its result stays in the ledger. A delay is not repeated. The new id follows from the
    old request: a request is retried once, however often the command is repeated, and if the retry fails too, retry
    that one. The command comes from the journal, which needs the rights of an operator, and does not keep
    environment values unless they are encrypted: give them with --env. Tasks of Airflow are left out.

    \b
    Examples:
      ecs-queue retry nightly-etl
      ecs-queue retry --state failed --queue etl --since 2h          lists them
      ecs-queue retry --state failed --queue etl --since 2h --yes    submits them
      ecs-queue retry nightly-etl | xargs ecs-queue wait

    Exit status: 1 when a request of an ID is not known, or one of the requests cannot be retried; stderr says each
    reason once, --json names the reason of each, and the others are submitted.
    """
    options.configure_logging()
    _check_usage(ids, states, queue, since, yes)
    environment = parse_variables(variables)
    with open_client(options) as client:
        records, unknown = _find(client, ids, states, queue, since)
        with open_journal_reader(client.config) as journal:
            from ecs_queue.replay.retry import plan_retries

            retries = plan_retries(client, journal, records, environment)
        if yes or ids:
            _submit(client, retries)
        for item in retries:
            _print_retry(item, as_json, is_done=bool(yes or ids))
        _print_problems(retries)
        _print_summary(retries, is_done=bool(yes or ids), is_selection=not ids)
    return EXIT_FAILURE if unknown or any(item.problem for item in retries) else 0


def _check_usage(
    ids: Sequence[str], states: Sequence[str], queue: str | None, since: TimeBound | None, yes: bool
) -> None:
    if bool(ids) == bool(states):
        raise UsageError(f"retry: expected ids or --state, found {'both' if ids else 'neither'}; nothing was submitted")
    if ids and (queue is not None or since is not None or yes):
        raise UsageError("retry: --queue, --since and --yes are for --state; leave them out")


def _find(
    client: EcsQueue, ids: Sequence[str], states: Sequence[str], queue: str | None, since: TimeBound | None
) -> tuple[list[Record], list[str]]:
    """Return the records, and the ids of which there are none."""
    if not ids:
        start = None if since is None else since.moment()
        selected = [record for record in client.tasks(states=states, queue=queue, since=start) if record.queue]
        if not selected and queue is not None:
            warn_unserved_queues(client, [queue], expects_launch=False)
        return selected, []
    names = list(dict.fromkeys(resolve_id(client.ledger, name, "nothing was submitted") for name in ids))
    found = dict(zip(names, client.find_records(names), strict=True))
    unknown = [name for name, record in found.items() if record is None]
    for name in unknown:
        print_stderr(f"ecs-queue: no request {name} is known: it was never submitted, or its retention time is over")
    if unknown:
        print_stderr("ecs-queue: the journal may have what is not known: ecs-queue replay ID --submit")
    return [record for record in found.values() if record is not None], unknown


def _submit(client: EcsQueue, retries: Sequence[Retry]) -> None:
    from ecs_queue.cli.ui.submitter import Submitter

    prepared = [item.prepared for item in retries if item.prepared is not None]
    if prepared:
        client.check({item.request.queue for item in prepared})
        Submitter(client).submit(prepared)
        warn_unserved_queues(client, {item.request.queue for item in prepared})


def _print_retry(item: Retry, as_json: bool, is_done: bool) -> None:
    result = "refused" if item.problem else "earlier" if item.earlier else "submitted" if is_done else "selected"
    if as_json:
        print_json(
            {
                "id": item.id or None,
                "origin": item.origin.id,
                "queue": item.origin.queue,
                "result": result,
                "problem": item.problem,
            }
        )
    elif item.id and is_done:
        print_stdout(item.id)
    elif result == "selected":
        print_stdout(f"{item.origin.id}  {item.origin.state.value}  {item.origin.queue}  {item.origin.reason}".rstrip())
    if item.earlier is not None:
        state = item.earlier.state.value
        print_stderr(f"ecs-queue: {item.origin.id} was retried already, as {item.id}, which is {state}")


def _print_problems(retries: Sequence[Retry]) -> None:
    """Say each reason once, with the requests that are not retried for it: its advice is long."""
    refused: dict[str, list[str]] = {}
    for item in retries:
        if item.problem:
            refused.setdefault(item.problem, []).append(item.origin.id)
    for problem, names in refused.items():
        more = f" and {len(names) - _MAX_NAMED} more" if len(names) > _MAX_NAMED else ""
        named = f"{', '.join(names[:_MAX_NAMED])}{more}"
        which = f"{named} is" if len(names) == 1 else f"{len(names)} requests ({named}) are"
        print_stderr(f"ecs-queue: {which} not retried: {problem}")


def _print_summary(retries: Sequence[Retry], is_done: bool, is_selection: bool) -> None:
    if not is_selection:
        return
    number = sum(1 for item in retries if item.prepared is not None)
    if is_done:
        print_stderr(f"{number} of {len(retries)} were submitted once more")
    else:
        requests = describe_number(number, "request")
        print_stderr(f"{requests} would be submitted once more; dry run: nothing was done, --yes does it")
