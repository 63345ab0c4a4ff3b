"""`dead`: the messages that could not be used; look at them, queue them again, drop them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
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
from ecs_queue.cli.ui.durations import parse_duration
from ecs_queue.cli.ui.options import OrderedGroup, SharedOptions, json_option, open_client, pass_options, shared_options
from ecs_queue.cli.ui.output import (
    format_duration,
    print_fields,
    print_json,
    print_stderr,
    print_stdout,
    print_table,
    truncate,
)
from ecs_queue.errors import UndecodableMessage, UsageError

if TYPE_CHECKING:
    from ecs_queue.client.client import EcsQueue
    from ecs_queue.ledger.base import DeadLetter

EXIT_NOT_FOUND = 1
EXIT_SOME_NOT_REQUEUED = 1
_DRY_RUN_NOTE = "dry run: nothing was done; --yes does it"
_DELETE_BATCH_SIZE = 500

Command = Callable[..., Any]


def filter_options(command: Command) -> Command:
    """Which letters are meant, as one argument `wanted`."""

    @functools.wraps(command)
    def start(*args: Any, **given: Any) -> Any:
        names = ("reason", "queue", "older_than", "newer_than")
        wanted = DeadLetterFilter(keys=tuple(given.pop("keys", ())), **{name: given.pop(name) for name in names})
        return command(*args, wanted=wanted, **given)

    with_wanted: Command = start
    for decorate in (
        click.option(
            "--newer-than", type=parse_duration, metavar="AGE", help="Only letters of the last 90s, 30m, 2h, 7d ..."
        ),
        click.option(
            "--older-than", type=parse_duration, metavar="AGE", help="Only letters buried at least so long ago."
        ),
        click.option("--queue", metavar="NAME", help="Only letters that came from this queue."),
        click.option("--reason", metavar="TEXT", help="Only letters whose reason has this in it, in any case."),
    ):
        with_wanted = decorate(with_wanted)
    return with_wanted


@click.group(cls=OrderedGroup, short_help="Messages that could not be used: look, queue again, drop.")
@shared_options
def dead() -> None:
    """Work with dead letters: messages from which no request could be made.

    They are undecodable, came too late, named another queue than they came from, or have the id of another
    request; each is kept with its bytes and the reason. The newest 10,000 (64 MiB) of the last 30 days are kept.

    \b
    Examples:
      ecs-queue dead list
      ecs-queue dead requeue --reason "another request has the id" --yes
      ecs-queue dead purge --older-than 7d --yes
    """


@dead.command("list", short_help="Count and list them.")
@filter_options
@click.option("--limit", type=click.IntRange(0), default=50, show_default=True, help="List at most so many.")
@click.option("--counts", is_flag=True, help="Only the counts.")
@json_option
@shared_options
@pass_options
def list_dead_letters(
    options: SharedOptions, wanted: DeadLetterFilter, limit: int, counts: bool, as_json: bool
) -> None:
    """Count the dead letters by queue and reason, then list the newest.

    \b
    Examples:
      ecs-queue dead list --queue etl --newer-than 2h
      ecs-queue dead list --json | jq -r 'select(.bytes > 100000) | .key'
      ecs-queue dead list --counts --json
    """
    options.configure_logging()
    with open_client(options) as queue:
        letters, now = find_dead_letters(queue.ledger, wanted), queue.ledger.now()
    if not counts and as_json:
        for letter in letters[:limit]:
            print_json(dead_letter_to_dict(letter))
        return
    print_counts(letters, now, as_json)
    if counts or not letters[:limit]:
        return
    print_stdout("")
    headers = ("key", "since", "queue", "id", "bytes", "reason")
    print_table(headers, [_row(letter, now) for letter in letters[:limit]])
    if len(letters) > limit:
        print_stderr(f"the newest {limit} of {len(letters)}; --limit shows more")


@dead.command("show", short_help="Show one of them.")
@click.argument("key")
@click.option("--body", is_flag=True, help="Write the message's bytes to stdout as they are: they may hold secrets.")
@json_option
@shared_options
@pass_options
def show_dead_letter(options: SharedOptions, key: str, body: bool, as_json: bool) -> int:
    """Show one dead letter: where it came from, why it is dead, and whether a request can be made of it.

    Its command and environment are not shown, they may hold secrets; --body writes the message as it came.

    \b
    Examples:
      ecs-queue dead show 5f0c3b1a9d2e4f60
      ecs-queue dead show 5f0c3b1a9d2e4f60 --body > letter.json

    Exit status: 1 when there is no such letter; otherwise as for every command.
    """
    options.configure_logging()
    with open_client(options) as queue:
        (letter,), now = queue.ledger.get_dead_letters([key]), queue.ledger.now()
        if letter is None:
            print_stderr(f"ecs-queue: no dead letter {key} is known; `ecs-queue dead list` shows what there is")
            return EXIT_NOT_FOUND
        if body:
            click.echo(letter.body, nl=False)
            return 0
        facts = {**dead_letter_to_dict(letter), **_request_to_dict(queue, letter)}
    if as_json:
        print_json(facts)
        return 0
    facts["dead_since"] = f"{facts['dead_since']}, {format_duration(now - letter.added_at)} ago"
    facts["usable"] = "yes, `ecs-queue dead requeue` queues it again" if facts["usable"] else "no"
    facts["body"] = f"{facts.pop('bytes')} bytes, --body writes them"
    print_fields([(name.replace("_", " "), "" if value is None else str(value)) for name, value in facts.items()])
    return 0


@dead.command("requeue", short_help="Queue them again, as new requests.")
@click.argument("keys", nargs=-1, metavar="[KEY...]")
@filter_options
@click.option("--all", "everything", is_flag=True, help="All there are, when nothing else says which.")
@click.option("--to", "to_queue", metavar="NAME", help="The queue to submit them to; without it, their own.")
@click.option("--yes", is_flag=True, help="Do it. Without it is only said what would be done.")
@json_option
@shared_options
@pass_options
def requeue_dead_letters(
    options: SharedOptions, wanted: DeadLetterFilter, everything: bool, to_queue: str | None, yes: bool, as_json: bool
) -> int:
    """Queue dead letters again: those of the KEYs, or all that the filters leave.

    Each becomes a new request that names its origin: its id is the old one with an ending, and the envelope
    says of which it is a repetition. It has the same command and executor_config, its times count from now, and
    nobody waits for its result. A letter that holds no valid request is left where it is.

    \b
    Examples:
      ecs-queue dead requeue 5f0c3b1a9d2e4f60 --yes
      ecs-queue dead requeue --reason accept_until --newer-than 2h
      ecs-queue dead requeue --all --to etl-large --yes

    Exit status: 1 when some could not be queued again; otherwise as for every command.
    """
    options.configure_logging()
    _require_selection("requeue", wanted, everything)
    with open_client(options) as queue:
        letters, now = find_dead_letters(queue.ledger, wanted), queue.ledger.now()
        if not as_json:
            print_counts(letters, now, as_json)
        revivals = [prepare_requeue(queue, letter, to_queue) for letter in letters]
        if yes:
            queue.check()
            revivals = _print_requeues(submit_requeues(queue, revivals), "requeued", as_json)
        else:
            revivals = _print_requeues(revivals, "would be requeued", as_json)
    _print_summary("requeued", len([one for one in revivals if one.prepared_request is not None]), len(letters), yes)
    return EXIT_SOME_NOT_REQUEUED if any(one.prepared_request is None for one in revivals) else 0


@dead.command("purge", short_help="Drop them for good.")
@click.argument("keys", nargs=-1, metavar="[KEY...]")
@filter_options
@click.option("--all", "everything", is_flag=True, help="All there are, when nothing else says which.")
@click.option("--yes", is_flag=True, help="Do it. Without it is only said what would be done.")
@json_option
@shared_options
@pass_options
def purge_dead_letters(
    options: SharedOptions, wanted: DeadLetterFilter, everything: bool, yes: bool, as_json: bool
) -> None:
    """Drop dead letters for good: those of the KEYs, or all that the filters leave.

    \b
    Examples:
      ecs-queue dead purge --older-than 7d
      ecs-queue dead purge --queue etl --reason "not JSON" --yes
      ecs-queue dead purge --all --yes
    """
    options.configure_logging()
    _require_selection("purge", wanted, everything)
    with open_client(options) as queue:
        letters, now = find_dead_letters(queue.ledger, wanted), queue.ledger.now()
        print_counts(letters, now, as_json)
        keys = [letter.key for letter in letters]
        for start in range(0, len(keys) if yes else 0, _DELETE_BATCH_SIZE):
            queue.ledger.delete_dead_letters(keys[start : start + _DELETE_BATCH_SIZE])
    _print_summary("dropped", len(letters), len(letters), yes)


def print_counts(found: Sequence[DeadLetter], now: float, as_json: bool) -> None:
    """By queue and reason."""
    piles = group_dead_letters(found)
    if as_json:
        from ecs_queue.cli.ui.record_view import format_timestamp

        for pile in piles:
            times = {"oldest": format_timestamp(pile.oldest), "newest": format_timestamp(pile.newest)}
            print_json({"queue": pile.queue, "reason": pile.reason, "count": pile.count, **times})
        return
    if not piles:
        print_stderr("no such dead letters")
        return
    rows = [
        [str(p.count), p.queue, truncate(p.reason, 90), _format_ago(p.oldest, now), _format_ago(p.newest, now)]
        for p in piles
    ]
    print_table(("count", "queue", "reason", "oldest", "newest"), rows)


def _print_requeues(requeues: Any, verb: str, as_json: bool) -> list[Requeue]:
    """A line for each as it comes."""
    told = []
    for one in requeues:
        told.append(one)
        result = "not_requeued" if one.prepared_request is None else verb
        new = None if one.prepared_request is None else one.prepared_request.request
        if as_json:
            facts = {"key": one.dead_letter.key, "result": result, "origin": request_id_in(one.dead_letter)}
            request = {"id": new.id if new else None, "queue": new.queue if new else None}
            print_json({**facts, **request, "problem": one.problem or None})
        elif new is None:
            print_stdout(f"{one.dead_letter.key} is left: {one.problem}")
        else:
            print_stdout(f"{one.dead_letter.key} {verb} as {new.id} in {new.queue}")
    return told


def _print_summary(verb: str, done: int, total: int, yes: bool) -> None:
    if not total:
        return
    print_stderr(f"{done} of {total} {'were' if yes else 'would be'} {verb}" + ("" if yes else f"; {_DRY_RUN_NOTE}"))


def _require_selection(command: str, selection: DeadLetterFilter, everything: bool) -> None:
    if selection.is_unrestricted and not everything:
        raise UsageError(f"dead {command}: expected keys, filters or --all, found none; nothing was done")
    if everything and not selection.is_unrestricted:
        raise UsageError(f"dead {command}: expected --all or keys and filters, found both; nothing was done")


def _request_to_dict(queue: EcsQueue, dead_letter: DeadLetter) -> dict[str, Any]:
    from ecs_queue.messages.envelope import decode_request

    try:
        request = decode_request(dead_letter.body, queue.keyring)
    except UndecodableMessage as error:
        return {"usable": False, "problem": str(error)}
    return {"usable": True, "names_queue": request.queue, "owner": request.owner or None}


def _row(dead_letter: DeadLetter, now: float) -> list[str]:
    reason = truncate(dead_letter.reason, 70)
    return [
        dead_letter.key,
        _format_ago(dead_letter.added_at, now),
        dead_letter.queue,
        request_id_in(dead_letter) or "",
        str(len(dead_letter.body)),
        reason,
    ]


def _format_ago(timestamp: float, now: float) -> str:
    return f"{format_duration(now - timestamp)} ago"
