"""`dead`: the messages that could not be used; look at them, queue them again, drop them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import click

from ecs_queue.cli.ages import age
from ecs_queue.cli.letters import (
    Revival,
    Wanted,
    facts_of_letter,
    find_letters,
    id_in,
    piles_of,
    requeue,
    revive,
)
from ecs_queue.cli.options import InOrder, Options, json_option, opened_queue, pass_options, shared_options
from ecs_queue.cli.output import duration, say, shortened, show, show_json, show_pairs, show_table
from ecs_queue.errors import UndecodableMessage, UsageError

if TYPE_CHECKING:
    from ecs_queue.client import EcsQueue
    from ecs_queue.ledger.base import DeadLetter

NOT_FOUND = 1
SOME_LEFT = 1
_DRY = "dry run: nothing was done; --yes does it"
_DISCARDED_AT_ONCE = 500

Command = Callable[..., Any]


def filters(command: Command) -> Command:
    """Which letters are meant, as one argument `wanted`."""

    @functools.wraps(command)
    def start(*args: Any, **given: Any) -> Any:
        names = ("reason", "queue", "older_than", "newer_than")
        wanted = Wanted(keys=tuple(given.pop("keys", ())), **{name: given.pop(name) for name in names})
        return command(*args, wanted=wanted, **given)

    with_wanted: Command = start
    for decorate in (
        click.option("--newer-than", type=age, metavar="AGE", help="Only letters of the last 90s, 30m, 2h, 7d ..."),
        click.option("--older-than", type=age, metavar="AGE", help="Only letters buried at least so long ago."),
        click.option("--queue", metavar="NAME", help="Only letters that came from this queue."),
        click.option("--reason", metavar="TEXT", help="Only letters whose reason has this in it, in any case."),
    ):
        with_wanted = decorate(with_wanted)
    return with_wanted


@click.group(cls=InOrder, short_help="Messages that could not be used: look, queue again, drop.")
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
@filters
@click.option("--limit", type=click.IntRange(0), default=50, show_default=True, help="List at most so many.")
@click.option("--counts", is_flag=True, help="Only the counts.")
@json_option
@shared_options
@pass_options
def list_letters(options: Options, wanted: Wanted, limit: int, counts: bool, as_json: bool) -> None:
    """Count the dead letters by queue and kind of reason, then list the newest.

    \b
    Examples:
      ecs-queue dead list --queue etl --newer-than 2h
      ecs-queue dead list --json | jq -r 'select(.bytes > 100000) | .key'
      ecs-queue dead list --counts --json
    """
    options.start_logging()
    with opened_queue(options) as queue:
        letters, now = find_letters(queue.ledger, wanted), queue.ledger.now()
    if not counts and as_json:
        for letter in letters[:limit]:
            show_json(facts_of_letter(letter))
        return
    show_counts(letters, now, as_json)
    if counts or not letters[:limit]:
        return
    show("")
    headers = ("key", "buried", "queue", "id", "bytes", "reason")
    show_table(headers, [_row(letter, now) for letter in letters[:limit]])
    if len(letters) > limit:
        say(f"the newest {limit} of {len(letters)}; --limit shows more")


@dead.command("show", short_help="Show one of them.")
@click.argument("key")
@click.option("--body", is_flag=True, help="Write the message's bytes to stdout as they are: they may hold secrets.")
@json_option
@shared_options
@pass_options
def show_letter(options: Options, key: str, body: bool, as_json: bool) -> int:
    """Show one dead letter: where it came from, why it is dead, and whether a request can be made of it.

    Its command and environment are not shown, they may hold secrets; --body writes the message as it came.

    \b
    Examples:
      ecs-queue dead show 5f0c3b1a9d2e4f60
      ecs-queue dead show 5f0c3b1a9d2e4f60 --body > letter.json

    Exit status: 1 when there is no such letter; otherwise as for every command.
    """
    options.start_logging()
    with opened_queue(options) as queue:
        (letter,), now = queue.ledger.letters([key]), queue.ledger.now()
        if letter is None:
            say(f"ecs-queue: no dead letter {key} is known; `ecs-queue dead list` shows what there is")
            return NOT_FOUND
        if body:
            click.echo(letter.body, nl=False)
            return 0
        facts = {**facts_of_letter(letter), **_as_request(queue, letter)}
    if as_json:
        show_json(facts)
        return 0
    facts["buried_at"] = f"{facts['buried_at']}, {duration(now - letter.at)} ago"
    facts["usable"] = "yes, `ecs-queue dead requeue` queues it again" if facts["usable"] else "no"
    facts["body"] = f"{facts.pop('bytes')} bytes, --body writes them"
    show_pairs([(name.replace("_", " "), "" if value is None else str(value)) for name, value in facts.items()])
    return 0


@dead.command("requeue", short_help="Queue them again, as new requests.")
@click.argument("keys", nargs=-1, metavar="[KEY...]")
@filters
@click.option("--all", "everything", is_flag=True, help="All there are, when nothing else says which.")
@click.option("--to", "to_queue", metavar="NAME", help="The queue to submit them to; without it, their own.")
@click.option("--yes", is_flag=True, help="Do it. Without it is only said what would be done.")
@json_option
@shared_options
@pass_options
def requeue_letters(
    options: Options, wanted: Wanted, everything: bool, to_queue: str | None, yes: bool, as_json: bool
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
    options.start_logging()
    _check_bounds("requeue", wanted, everything)
    with opened_queue(options) as queue:
        letters, now = find_letters(queue.ledger, wanted), queue.ledger.now()
        if not as_json:
            show_counts(letters, now, as_json)
        revivals = [revive(queue, letter, to_queue) for letter in letters]
        if yes:
            queue.check()
            revivals = _tell(requeue(queue, revivals), "requeued", as_json)
        else:
            revivals = _tell(revivals, "would be requeued", as_json)
    _sum_up("requeued", len([one for one in revivals if one.draft is not None]), len(letters), yes)
    return SOME_LEFT if any(one.draft is None for one in revivals) else 0


@dead.command("purge", short_help="Drop them for good.")
@click.argument("keys", nargs=-1, metavar="[KEY...]")
@filters
@click.option("--all", "everything", is_flag=True, help="All there are, when nothing else says which.")
@click.option("--yes", is_flag=True, help="Do it. Without it is only said what would be done.")
@json_option
@shared_options
@pass_options
def purge_letters(options: Options, wanted: Wanted, everything: bool, yes: bool, as_json: bool) -> None:
    """Drop dead letters for good: those of the KEYs, or all that the filters leave.

    \b
    Examples:
      ecs-queue dead purge --older-than 7d
      ecs-queue dead purge --queue etl --reason "not JSON" --yes
      ecs-queue dead purge --all --yes
    """
    options.start_logging()
    _check_bounds("purge", wanted, everything)
    with opened_queue(options) as queue:
        letters, now = find_letters(queue.ledger, wanted), queue.ledger.now()
        show_counts(letters, now, as_json)
        keys = [letter.key for letter in letters]
        for start in range(0, len(keys) if yes else 0, _DISCARDED_AT_ONCE):
            queue.ledger.discard(keys[start : start + _DISCARDED_AT_ONCE])
    _sum_up("dropped", len(letters), len(letters), yes)


def show_counts(letters: Sequence[DeadLetter], now: float, as_json: bool) -> None:
    """By queue and kind of reason."""
    piles = piles_of(letters)
    if as_json:
        from ecs_queue.cli.facts import moment_text

        for pile in piles:
            times = {"oldest": moment_text(pile.oldest), "newest": moment_text(pile.newest)}
            show_json({"queue": pile.queue, "reason": pile.reason, "letters": pile.letters, **times})
        return
    if not piles:
        say("no such dead letters")
        return
    rows = [[str(p.letters), p.queue, shortened(p.reason, 90), _ago(p.oldest, now), _ago(p.newest, now)] for p in piles]
    show_table(("letters", "queue", "kind of reason", "oldest", "newest"), rows)


def _tell(revivals: Any, word: str, as_json: bool) -> list[Revival]:
    """A line for each as it comes."""
    told = []
    for one in revivals:
        told.append(one)
        result = "left" if one.draft is None else word
        new = None if one.draft is None else one.draft.request
        if as_json:
            facts = {"key": one.letter.key, "result": result, "origin": id_in(one.letter)}
            request = {"id": new.id if new else None, "queue": new.queue if new else None}
            show_json({**facts, **request, "problem": one.problem or None})
        elif new is None:
            show(f"{one.letter.key} is left: {one.problem}")
        else:
            show(f"{one.letter.key} {word} as {new.id} in {new.queue}")
    return told


def _sum_up(what: str, done: int, of: int, yes: bool) -> None:
    if not of:
        return
    say(f"{done} of {of} {'were' if yes else 'would be'} {what}" + ("" if yes else f"; {_DRY}"))


def _check_bounds(command: str, wanted: Wanted, everything: bool) -> None:
    if wanted.is_everything and not everything:
        raise UsageError(f"dead {command}: expected keys, filters or --all, found none; nothing was done")
    if everything and not wanted.is_everything:
        raise UsageError(f"dead {command}: expected --all or keys and filters, found both; nothing was done")


def _as_request(queue: EcsQueue, letter: DeadLetter) -> dict[str, Any]:
    try:
        request = queue.read(letter.body)
    except UndecodableMessage as error:
        return {"usable": False, "problem": str(error)}
    return {"usable": True, "names_queue": request.queue, "owner": request.owner or None}


def _row(letter: DeadLetter, now: float) -> list[str]:
    reason = shortened(letter.reason, 70)
    return [letter.key, _ago(letter.at, now), letter.queue, id_in(letter) or "", str(len(letter.body)), reason]


def _ago(moment: float, now: float) -> str:
    return f"{duration(now - moment)} ago"
