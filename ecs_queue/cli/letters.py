"""Dead letters as the commands work with them: which ones are meant, what they have in common, as requests again."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ecs_queue.errors import EcsQueueError, IdConflict, UsageError

if TYPE_CHECKING:
    from ecs_queue.client import EcsQueue, Submitted
    from ecs_queue.ledger.base import DeadLetter, Ledger

_PAGE = 100
_SENT_AT_ONCE = 200


@dataclass(frozen=True)
class Wanted:
    """Which letters are meant; what is None or empty leaves none out. Ages are seconds."""

    keys: tuple[str, ...] = ()
    reason: str | None = None
    queue: str | None = None
    older_than: float | None = None
    newer_than: float | None = None

    @property
    def is_everything(self) -> bool:
        """Whether nothing was said that leaves any out."""
        return self == Wanted()

    def fits(self, letter: DeadLetter, now: float) -> bool:
        """Whether it is meant. `now`: the ledger's clock."""
        age = now - letter.at
        return (
            (self.reason is None or self.reason.lower() in letter.reason.lower())
            and self.queue in (None, letter.queue)
            and (self.older_than is None or age >= self.older_than)
            and (self.newer_than is None or age <= self.newer_than)
        )


def find_letters(ledger: Ledger, wanted: Wanted) -> list[DeadLetter]:
    """All that are meant, newest first. UsageError: a key is unknown."""
    now = ledger.now()
    if not wanted.keys:
        return [letter for letter in all_letters(ledger) if wanted.fits(letter, now)]
    found = ledger.letters(wanted.keys)
    for key, letter in zip(wanted.keys, found, strict=True):
        if letter is None:
            raise UsageError(f"no dead letter {key} is known; `ecs-queue dead list` shows what there is")
    return [letter for letter in found if letter is not None and wanted.fits(letter, now)]


def all_letters(ledger: Ledger) -> Iterator[DeadLetter]:
    """Every letter, newest first, page by page."""
    page = ledger.dead(_PAGE)
    while page:
        yield from page
        page = ledger.dead(_PAGE, page[-1])


@dataclass
class Pile:
    """Letters of one queue with reasons of one kind. `oldest`, `newest`: seconds since the epoch."""

    queue: str
    reason: str
    letters: int = 0
    oldest: float = float("inf")
    newest: float = 0.0


def piles_of(letters: Sequence[DeadLetter]) -> list[Pile]:
    """The letters counted, the highest pile first. Reasons are of one kind when only ids and numbers differ."""
    piles: dict[tuple[str, str], Pile] = {}
    for letter in letters:
        place = (letter.queue, kind_of(letter))
        pile = piles.setdefault(place, Pile(*place))
        pile.letters += 1
        pile.oldest, pile.newest = min(pile.oldest, letter.at), max(pile.newest, letter.at)
    return sorted(piles.values(), key=lambda pile: (-pile.letters, pile.queue, pile.reason))


def kind_of(letter: DeadLetter) -> str:
    """Its reason without what is special to it."""
    record_id = id_in(letter)
    reason = letter.reason.replace(record_id, "ID") if record_id else letter.reason
    return re.sub(r"\d+", "N", reason)


def id_in(letter: DeadLetter) -> str | None:
    """The id that the message gives itself, though nothing else in it may be right; None without one."""
    import msgspec

    try:
        found = msgspec.json.decode(letter.body, type=dict[str, Any]).get("id")
    except (msgspec.DecodeError, ValueError, RecursionError):
        return None
    return found[:48] if isinstance(found, str) and found else None


def facts_of_letter(letter: DeadLetter) -> Mapping[str, Any]:
    """JSON-ready, without the body: it may hold secrets."""
    import msgspec

    from ecs_queue.core.envelope import moment

    return {
        "key": letter.key,
        "queue": letter.queue,
        "reason": letter.reason,
        "buried_at": msgspec.to_builtins(moment(letter.at)),
        "bytes": len(letter.body),
        "id": id_in(letter),
    }


@dataclass(frozen=True)
class Revival:
    """A letter and the request it becomes, or why it cannot become one."""

    letter: DeadLetter
    draft: Submitted | None = None
    problem: str = ""


def revive(queue: EcsQueue, letter: DeadLetter, to_queue: str | None) -> Revival:
    """The letter as a new request. The same letter always gives the same id, so that doing it twice does it once."""
    from ecs_queue.core.again import Changes, again_id, line_of

    try:
        request = queue.read(letter.body)
        if to_queue is None and request.queue != letter.queue:
            # One who may write to a queue must not get at another one's profile by way of the operator.
            problem = f"it names the queue {request.queue} and came from {letter.queue}: say where to with --to"
            return Revival(letter, problem=problem)
        new_id = again_id(request.id, hashlib.sha256(letter.key.encode()).hexdigest()[:8])
        changes = Changes(queue=to_queue or request.queue)
        main = queue.config.profile(changes.queue).container_name
        return Revival(letter, queue.prepare(line_of(request, new_id, changes, main), origin=request.id))
    except EcsQueueError as error:
        return Revival(letter, problem=str(error))


def requeue(queue: EcsQueue, revivals: Sequence[Revival]) -> Iterator[Revival]:
    """Submit what can be, then drop the letters of that; each revival as it came out, in order."""
    from ecs_queue.cli.sending import Sending

    for start in range(0, len(revivals), _SENT_AT_ONCE):
        batch = revivals[start : start + _SENT_AT_ONCE]
        sending = Sending(queue)
        try:
            sending.send([one.draft for one in batch if one.draft is not None], lambda _: None)
        except IdConflict:  # the others of the batch are queued; one by one tells which it was
            batch = [_send_one(queue, one) for one in batch]
        # Only now: a letter that is still there after a crash is requeued under the very same id.
        queue.ledger.discard([one.letter.key for one in batch if one.draft is not None])
        yield from batch


def _send_one(queue: EcsQueue, one: Revival) -> Revival:
    from ecs_queue.cli.sending import Sending

    if one.draft is None:
        return one
    try:
        Sending(queue).send([one.draft], lambda _: None)
    except IdConflict as error:
        return Revival(one.letter, problem=str(error))
    return one
