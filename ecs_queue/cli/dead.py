"""`dead`: lists, shows, requeues and purges dead letters, the messages from which no request could be made."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import click

from ecs_queue.cli.dead_letter_requeue import (
    DeadLetterFilter,
    Requeue,
    dead_letter_to_dict,
    find_dead_letters,
    group_dead_letters,
    prepare_requeue,
    request_id_in,
    submit_requeues,
)
from ecs_queue.cli.ui.durations import format_ago, format_timestamp, parse_age
from ecs_queue.cli.ui.exit_status import EXIT_FAILURE
from ecs_queue.cli.ui.numbers import count
from ecs_queue.cli.ui.options import (
    OrderedGroup,
    SharedOptions,
    command_options,
    open_client,
    queue_name,
    shared_options,
)
from ecs_queue.cli.ui.output import (
    OutputError,
    print_facts,
    print_json,
    print_stderr,
    print_stdout,
    print_table,
    truncate,
    write_stdout,
)
from ecs_queue.cli.ui.records import warn_unserved_queues
from ecs_queue.errors import UndecodableMessage, UsageError

if TYPE_CHECKING:
    from ecs_queue.client.client import EcsQueue
    from ecs_queue.ledger.base import DeadLetter

_DELETE_BATCH_SIZE = 500
#: How many people see unless --limit says more. A list for a program is never cut without --limit.
_DEFAULT_LIMIT = 50

Command = Callable[..., Any]


def filter_options(command: Command) -> Command:
    """Add the options that select dead letters, and pass them on as one argument `selection`."""

    @functools.wraps(command)
    def run(*args: Any, **given: Any) -> Any:
        names = ("reason", "queue", "older_than", "newer_than")
        selection = DeadLetterFilter(keys=tuple(given.pop("keys", ())), **{name: given.pop(name) for name in names})
        return command(*args, selection=selection, **given)

    decorated: Command = run
    for decorate in (
        click.option("--newer-than", type=parse_age, metavar="AGE", help="Only those of the last 90s, 30m, 2h, 7d ..."),
        click.option("--older-than", type=parse_age, metavar="AGE", help="Only those at least this old."),
        click.option("--queue", type=queue_name, metavar="NAME", help="Only those that came from this queue."),
        click.option("--reason", metavar="TEXT", help="Only those whose reason contains TEXT, in upper or lower case."),
    ):
        decorated = decorate(decorated)
    return decorated


_all_option = click.option("--all", "everything", is_flag=True, help="Select all, instead of KEYs and filters.")
_yes_option = click.option("--yes", is_flag=True, help="Do it; otherwise only show what would be done.")


@click.group(cls=OrderedGroup, short_help="List, requeue and purge dead letters.")
@shared_options
def dead() -> None:
    """Work with dead letters: messages from which no request could be made.

    Such a message is undecodable, came too late, names another queue than it came from, has the id of another
    request, or repeatedly broke the workers that launched it. The ledger keeps its bytes and the reason: the newest
    10,000 dead letters (64 MiB together) of the last 30 days.

    \b
    Examples:
      ecs-queue dead list
      ecs-queue dead requeue --reason "another request has the id" --yes
      ecs-queue dead purge --older-than 7d --yes
    """


@dead.command("list", short_help="Count and list dead letters.")
@filter_options
@click.option("--limit", type=count(0), help="Maximum number to list.  [50; with --json no limit]")
@click.option("--counts", is_flag=True, help="Only print the counts.")
@command_options
def list_dead_letters(
    options: SharedOptions, selection: DeadLetterFilter, limit: int | None, counts: bool, as_json: bool
) -> None:
    """Count dead letters by queue and reason, then list the newest.

    Reasons that differ only in ids and numbers are counted together.

    \b
    Examples:
      ecs-queue dead list --queue etl --newer-than 2h
      ecs-queue dead list --json | jq -r 'select(.bytes > 100000) | .key'
      ecs-queue dead list --counts --json
    """
    options.configure_logging()
    with open_client(options) as client:
        found, now = find_dead_letters(client.ledger, selection), client.ledger.now()
    if not counts and as_json:
        for item in found[:limit]:
            print_json(dead_letter_to_dict(item))
        if limit is not None and len(found) > limit:
            print_stderr(f"the newest {limit} of {len(found)}; --limit shows more")
        return
    limit = _DEFAULT_LIMIT if limit is None else limit
    print_counts(found, now, as_json, is_filtered=not selection.is_unrestricted)
    if counts or not found[:limit]:
        return
    print_stdout("")
    headers = ("key", "since", "queue", "id", "bytes", "reason")
    print_table(headers, [_row(item, now) for item in found[:limit]])
    if len(found) > limit:
        print_stderr(f"the newest {limit} of {len(found)}; --limit shows more")


@dead.command("show", short_help="Show one dead letter.")
@click.argument("key")
@click.option("--body", is_flag=True, help="Write the message's bytes to stdout unchanged. They may hold secrets.")
@command_options
def show_dead_letter(options: SharedOptions, key: str, body: bool, as_json: bool) -> int:
    """Show where one dead letter came from, why it is dead, and whether it can be requeued.

    Its command and environment are not shown, because they may hold secrets; --body writes the whole message.

    \b
    Examples:
      ecs-queue dead show 5f0c3b1a9d2e4f60
      ecs-queue dead show 5f0c3b1a9d2e4f60 --body > message.json

    Exit status: 1 when there is no such dead letter; otherwise as for every command.
    """
    options.configure_logging()
    with open_client(options) as client:
        (found,), now = client.ledger.get_dead_letters([key]), client.ledger.now()
        if found is None:
            print_stderr(f"ecs-queue: no dead letter {key} is known; `ecs-queue dead list` lists all")
            return EXIT_FAILURE
        if body:
            write_stdout(found.body, end="")
            return 0
        facts = {**dead_letter_to_dict(found), **_request_to_dict(client, found)}
    if as_json:
        print_json(facts)
        return 0
    facts["dead_since"] = f"{facts['dead_since']}, {format_ago(found.added_at, now)}"
    option = " --to NAME" if facts.get("names_queue", found.queue) != found.queue else ""
    facts["usable"] = f"yes, `ecs-queue dead requeue{option}` makes a request of it" if facts["usable"] else "no"
    facts["body"] = f"{facts.pop('bytes')} bytes, --body writes them"
    print_facts(facts)
    return 0


@dead.command("requeue", short_help="Submit dead letters again, as new requests.")
@click.argument("keys", nargs=-1, metavar="[KEY...]")
@filter_options
@_all_option
@click.option("--to", type=queue_name, metavar="NAME", help="Queue to submit them to.  [the queue that each came from]")
@_yes_option
@command_options
def requeue_dead_letters(
    options: SharedOptions, selection: DeadLetterFilter, everything: bool, to: str | None, yes: bool, as_json: bool
) -> int:
    """Submit dead letters again, as new requests: those of the KEYs, or all that match the filters.

    A new request has the same command and executor_config. Its id is the old one with a suffix, its envelope names
    the old one as `origin`, its times count from now, and its result stays in the ledger. A message that holds no
    valid request stays a dead letter. Requeuing the same dead letter twice gives the same id, and so one request.

    \b
    Examples:
      ecs-queue dead requeue 5f0c3b1a9d2e4f60 --yes
      ecs-queue dead requeue --reason accept_until --newer-than 2h
      ecs-queue dead requeue --all --to etl-large --yes

    Exit status: 1 when some could not be requeued; otherwise as for every command.
    """
    options.configure_logging()
    _require_selection("requeue", selection, everything)
    with open_client(options) as client:
        found, now = find_dead_letters(client.ledger, selection), client.ledger.now()
        if not as_json:
            print_counts(found, now, as_json)
        requeues: Iterable[Requeue] = [prepare_requeue(client, item, to) for item in found]
        if yes:
            client.check()
            requeues = submit_requeues(client, list(requeues))
        failures, done = 0, 0
        try:
            for requeue in requeues:
                failures += requeue.prepared_request is None
                done += requeue.prepared_request is not None
                _print_requeue(requeue, "requeued" if yes else "would be requeued", as_json)
        except (OutputError, BrokenPipeError):
            if yes:  # whole batches are requeued before their first line
                print_stderr(f"ecs-queue: {done} or more were requeued; `ecs-queue dead list` shows the rest")
            raise
        if to is not None and done:
            warn_unserved_queues(client, {to})
    _print_summary("requeued", len(found) - failures, len(found), yes)
    return EXIT_FAILURE if failures else 0


@dead.command("purge", short_help="Delete dead letters.")
@click.argument("keys", nargs=-1, metavar="[KEY...]")
@filter_options
@_all_option
@_yes_option
@command_options
def purge_dead_letters(
    options: SharedOptions, selection: DeadLetterFilter, everything: bool, yes: bool, as_json: bool
) -> None:
    """Delete dead letters for good: those of the KEYs, or all that match the filters.

    \b
    Examples:
      ecs-queue dead purge --older-than 7d
      ecs-queue dead purge --queue etl --reason "not JSON" --yes
      ecs-queue dead purge --all --yes
    """
    options.configure_logging()
    _require_selection("purge", selection, everything)
    with open_client(options) as client:
        found, now = find_dead_letters(client.ledger, selection), client.ledger.now()
        print_counts(found, now, as_json)
        keys = [item.key for item in found]
        for start in range(0, len(keys) if yes else 0, _DELETE_BATCH_SIZE):
            client.ledger.delete_dead_letters(keys[start : start + _DELETE_BATCH_SIZE])
    _print_summary("purged", len(found), len(found), yes)


def print_counts(dead_letters: Sequence[DeadLetter], now: float, as_json: bool, *, is_filtered: bool = True) -> None:
    """Print how many there are of each queue and reason. `now` is the ledger's clock, seconds since the epoch."""
    groups = group_dead_letters(dead_letters)
    if as_json:
        for g in groups:
            times = {"oldest": format_timestamp(g.oldest), "newest": format_timestamp(g.newest)}
            print_json({"queue": g.queue, "reason": g.reason, "count": g.count, **times})
    elif groups:
        rows = [
            (str(g.count), g.queue, truncate(g.reason, 90), format_ago(g.oldest, now), format_ago(g.newest, now))
            for g in groups
        ]
        print_table(("count", "queue", "reason", "oldest", "newest"), rows)
    else:
        print_stderr("no such dead letters" if is_filtered else "no dead letters")


def _print_requeue(requeue: Requeue, verb: str, as_json: bool) -> None:
    key = requeue.dead_letter.key
    new = None if requeue.prepared_request is None else requeue.prepared_request.request
    if as_json:
        result = {"key": key, "result": verb if new else "not_requeued", "origin": request_id_in(requeue.dead_letter)}
        request = {"id": new.id if new else None, "queue": new.queue if new else None}
        print_json({**result, **request, "problem": requeue.problem or None})
    elif new is None:
        print_stdout(f"{key} stays: {requeue.problem}")
    else:
        print_stdout(f"{key} {verb} as {new.id} in {new.queue}")


def _print_summary(verb: str, done: int, total: int, yes: bool) -> None:
    if not total:
        return
    note = "" if yes else "; dry run: nothing was done, --yes does it"
    print_stderr(f"{done} of {total} {'were' if yes else 'would be'} {verb}{note}")


def _require_selection(command: str, selection: DeadLetterFilter, everything: bool) -> None:
    if selection.is_unrestricted and not everything:
        raise UsageError(f"dead {command}: expected keys, filters or --all, found none; nothing was done")
    if everything and not selection.is_unrestricted:
        raise UsageError(f"dead {command}: expected --all or keys and filters, found both; nothing was done")


def _request_to_dict(client: EcsQueue, dead_letter: DeadLetter) -> dict[str, Any]:
    from ecs_queue.messages.envelope import decode_request

    try:
        request = decode_request(dead_letter.body, client.keyring)
    except UndecodableMessage as error:
        return {"usable": False, "problem": str(error)}
    return {"usable": True, "names_queue": request.queue, "owner": request.owner or None}


def _row(dead_letter: DeadLetter, now: float) -> list[str]:
    record_id, size = request_id_in(dead_letter) or "", str(len(dead_letter.body))
    since, reason = format_ago(dead_letter.added_at, now), truncate(dead_letter.reason, 70)
    return [dead_letter.key, since, dead_letter.queue, record_id, size, reason]
