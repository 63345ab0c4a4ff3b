"""Dead letters as the commands work with them: which ones are meant, what they have in common, as requests again."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ecs_queue.errors import EcsQueueError, IdConflict, UsageError

if TYPE_CHECKING:
    from ecs_queue.client.client import EcsQueue
    from ecs_queue.client.producer import PreparedRequest
    from ecs_queue.ledger.base import DeadLetter, Ledger

_PAGE_SIZE = 100
_BATCH_SIZE = 200


@dataclass(frozen=True)
class DeadLetterFilter:
    """Which letters are meant; what is None or empty leaves none out. Ages are seconds."""

    keys: tuple[str, ...] = ()
    reason: str | None = None
    queue: str | None = None
    older_than: float | None = None
    newer_than: float | None = None

    @property
    def is_unrestricted(self) -> bool:
        """Whether nothing was said that leaves any out."""
        return self == DeadLetterFilter()

    def matches(self, dead_letter: DeadLetter, now: float) -> bool:
        """Whether it is meant. `now`: the ledger's clock."""
        age = now - dead_letter.added_at
        return (
            (self.reason is None or self.reason.lower() in dead_letter.reason.lower())
            and self.queue in (None, dead_letter.queue)
            and (self.older_than is None or age >= self.older_than)
            and (self.newer_than is None or age <= self.newer_than)
        )


def find_dead_letters(ledger: Ledger, selection: DeadLetterFilter) -> list[DeadLetter]:
    """All that are meant, newest first. UsageError: a key is unknown."""
    now = ledger.now()
    if not selection.keys:
        return [letter for letter in iter_dead_letters(ledger) if selection.matches(letter, now)]
    found = ledger.get_dead_letters(selection.keys)
    for key, letter in zip(selection.keys, found, strict=True):
        if letter is None:
            raise UsageError(f"no dead letter {key} is known; `ecs-queue dead list` shows what there is")
    return [letter for letter in found if letter is not None and selection.matches(letter, now)]


def iter_dead_letters(ledger: Ledger) -> Iterator[DeadLetter]:
    """Every letter, newest first, page by page."""
    page = ledger.list_dead_letters(_PAGE_SIZE)
    while page:
        yield from page
        page = ledger.list_dead_letters(_PAGE_SIZE, page[-1])


@dataclass
class DeadLetterGroup:
    """Letters of one queue with reasons of one kind. `oldest`, `newest`: seconds since the epoch."""

    queue: str
    reason: str
    count: int = 0
    oldest: float = float("inf")
    newest: float = 0.0


def group_dead_letters(dead_letters: Sequence[DeadLetter]) -> list[DeadLetterGroup]:
    """The letters counted, the highest pile first. Reasons are of one kind when only ids and numbers differ."""
    piles: dict[tuple[str, str], DeadLetterGroup] = {}
    for letter in dead_letters:
        place = (letter.queue, normalized_reason(letter))
        pile = piles.setdefault(place, DeadLetterGroup(*place))
        pile.count += 1
        pile.oldest, pile.newest = min(pile.oldest, letter.added_at), max(pile.newest, letter.added_at)
    return sorted(piles.values(), key=lambda pile: (-pile.count, pile.queue, pile.reason))


def normalized_reason(dead_letter: DeadLetter) -> str:
    """Its reason without what is special to it."""
    record_id = request_id_in(dead_letter)
    reason = dead_letter.reason.replace(record_id, "ID") if record_id else dead_letter.reason
    return re.sub(r"\d+", "N", reason)


def request_id_in(dead_letter: DeadLetter) -> str | None:
    """The id that the message gives itself, though nothing else in it may be right; None without one."""
    import msgspec

    try:
        found = msgspec.json.decode(dead_letter.body, type=dict[str, Any]).get("id")
    except (msgspec.DecodeError, ValueError, RecursionError):
        return None
    return found[:48] if isinstance(found, str) and found else None


def dead_letter_to_dict(dead_letter: DeadLetter) -> Mapping[str, Any]:
    """JSON-ready, without the body: it may hold secrets."""
    import msgspec

    from ecs_queue.messages.envelope import to_datetime

    return {
        "key": dead_letter.key,
        "queue": dead_letter.queue,
        "reason": dead_letter.reason,
        "dead_since": msgspec.to_builtins(to_datetime(dead_letter.added_at)),
        "bytes": len(dead_letter.body),
        "id": request_id_in(dead_letter),
    }


@dataclass(frozen=True)
class Requeue:
    """A letter and the request it becomes, or why it cannot become one."""

    dead_letter: DeadLetter
    prepared_request: PreparedRequest | None = None
    problem: str = ""


def prepare_requeue(queue: EcsQueue, dead_letter: DeadLetter, to_queue: str | None) -> Requeue:
    """The letter as a new request. The same letter always gives the same id, so that doing it twice does it once."""
    from ecs_queue.messages.envelope import decode_request
    from ecs_queue.runtask.resubmit import ResubmitChanges, build_resubmit_id, build_resubmit_line

    try:
        request = decode_request(dead_letter.body, queue.keyring)
        if to_queue is None and request.queue != dead_letter.queue:
            # One who may write to a queue must not get at another one's profile by way of the operator.
            problem = f"it names the queue {request.queue} and came from {dead_letter.queue}: say where to with --to"
            return Requeue(dead_letter, problem=problem)
        new_id = build_resubmit_id(request.id, hashlib.sha256(dead_letter.key.encode()).hexdigest()[:8])
        changes = ResubmitChanges(queue=to_queue or request.queue)
        main = queue.config.profile(changes.queue).container_name
        return Requeue(
            dead_letter, queue.prepare(build_resubmit_line(request, new_id, changes, main), origin=request.id)
        )
    except EcsQueueError as error:
        return Requeue(dead_letter, problem=str(error))


def submit_requeues(queue: EcsQueue, requeues: Sequence[Requeue]) -> Iterator[Requeue]:
    """Submit what can be, then drop the letters of that; each revival as it came out, in order."""
    from ecs_queue.cli.ui.submitter import Submitter

    for start in range(0, len(requeues), _BATCH_SIZE):
        batch = requeues[start : start + _BATCH_SIZE]
        sending = Submitter(queue)
        try:
            sending.submit([one.prepared_request for one in batch if one.prepared_request is not None], lambda _: None)
        except IdConflict:  # the others of the batch are queued; one by one tells which it was
            batch = [_submit_one(queue, one) for one in batch]
        # Only now: a letter that is still there after a crash is requeued under the very same id.
        queue.ledger.delete_dead_letters([one.dead_letter.key for one in batch if one.prepared_request is not None])
        yield from batch


def _submit_one(queue: EcsQueue, requeue: Requeue) -> Requeue:
    from ecs_queue.cli.ui.submitter import Submitter

    if requeue.prepared_request is None:
        return requeue
    try:
        Submitter(queue).submit([requeue.prepared_request], lambda _: None)
    except IdConflict as error:
        return Requeue(requeue.dead_letter, problem=str(error))
    return requeue
