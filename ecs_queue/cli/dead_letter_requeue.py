"""Selects and groups dead letters, and makes new requests of them."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ecs_queue.cli.ui.durations import format_timestamp
from ecs_queue.errors import EcsQueueError, IdConflict, UsageError

if TYPE_CHECKING:
    from ecs_queue.client.client import EcsQueue
    from ecs_queue.client.producer import PreparedRequest
    from ecs_queue.ledger.base import DeadLetter, DeadLetters, Ledger

_PAGE_SIZE = 100
_BATCH_SIZE = 200


@dataclass(frozen=True)
class DeadLetterFilter:
    """Selects dead letters. A member that is None or empty selects all. Ages are in seconds."""

    keys: tuple[str, ...] = ()
    reason: str | None = None
    queue: str | None = None
    older_than: float | None = None
    newer_than: float | None = None

    @property
    def is_unrestricted(self) -> bool:
        """Whether it selects all."""
        return self == DeadLetterFilter()

    def matches(self, dead_letter: DeadLetter, now: float) -> bool:
        """Return whether the filters, apart from the keys, select it. `now` is the ledger's clock."""
        age = now - dead_letter.added_at
        return (
            (self.reason is None or self.reason.lower() in dead_letter.reason.lower())
            and self.queue in (None, dead_letter.queue)
            and (self.older_than is None or age >= self.older_than)
            and (self.newer_than is None or age <= self.newer_than)
        )


def find_dead_letters(ledger: Ledger, selection: DeadLetterFilter) -> list[DeadLetter]:
    """Return the selected dead letters, newest first or in the order of the keys.

    Raises:
        UsageError: There is no dead letter with one of the keys.
    """
    now = ledger.now()
    if not selection.keys:
        return [item for item in iter_dead_letters(ledger) if selection.matches(item, now)]
    found = ledger.get_dead_letters(selection.keys)
    for key, item in zip(selection.keys, found, strict=True):
        if item is None:
            raise UsageError(f"no dead letter {key} is known; `ecs-queue dead list` lists all. Nothing was done")
    return [item for item in found if item is not None and selection.matches(item, now)]


def iter_dead_letters(ledger: DeadLetters) -> Iterator[DeadLetter]:
    """Yield every dead letter, newest first, reading page by page."""
    page = ledger.list_dead_letters(_PAGE_SIZE)
    while page:
        yield from page
        page = ledger.list_dead_letters(_PAGE_SIZE, page[-1])


@dataclass
class DeadLetterGroup:
    """Dead letters of one queue whose reasons differ only in ids and numbers. Times are seconds since the epoch."""

    queue: str
    reason: str
    count: int = 0
    oldest: float = float("inf")
    newest: float = 0.0


def group_dead_letters(dead_letters: Sequence[DeadLetter]) -> list[DeadLetterGroup]:
    """Return the groups, the largest first."""
    groups: dict[tuple[str, str], DeadLetterGroup] = {}
    for item in dead_letters:
        key = (item.queue, normalized_reason(item))
        group = groups.setdefault(key, DeadLetterGroup(*key))
        group.count += 1
        group.oldest, group.newest = min(group.oldest, item.added_at), max(group.newest, item.added_at)
    return sorted(groups.values(), key=lambda group: (-group.count, group.queue, group.reason))


def normalized_reason(dead_letter: DeadLetter) -> str:
    """Return the reason with ID and N in the place of ids and numbers."""
    record_id = request_id_in(dead_letter)
    reason = dead_letter.reason
    if record_id:  # as a whole word: an id may be as short as `a`
        reason = re.sub(rf"(?<![\w-]){re.escape(record_id)}(?![\w-])", "ID", reason)
    return re.sub(r"\d+", "N", reason)


def request_id_in(dead_letter: DeadLetter) -> str | None:
    """Return the id in the message, although nothing else in it may be valid; None without one."""
    import msgspec

    try:
        found = msgspec.json.decode(dead_letter.body, type=dict[str, Any]).get("id")
    except (msgspec.DecodeError, ValueError, RecursionError):
        return None
    return found[:48] if isinstance(found, str) and found else None


def dead_letter_to_dict(dead_letter: DeadLetter) -> Mapping[str, Any]:
    """Return the JSON-ready facts, without the body: it may hold secrets."""
    return {
        "key": dead_letter.key,
        "queue": dead_letter.queue,
        "reason": dead_letter.reason,
        "dead_since": format_timestamp(dead_letter.added_at),
        "bytes": len(dead_letter.body),
        "id": request_id_in(dead_letter),
    }


@dataclass(frozen=True)
class Requeue:
    """A dead letter and the request that it becomes, or why it cannot become one."""

    dead_letter: DeadLetter
    prepared_request: PreparedRequest | None = None
    problem: str = ""


def build_requeue_id(key: str, request_id: str) -> str:
    """Return the id of the request that a dead letter becomes: the same for the same dead letter."""
    from ecs_queue.runtask.resubmit import build_resubmit_id

    return build_resubmit_id(request_id, hashlib.sha256(key.encode()).hexdigest()[:8])


def prepare_requeue(queue: EcsQueue, dead_letter: DeadLetter, to_queue: str | None) -> Requeue:
    """Prepare the dead letter as a new request. The same dead letter always gives the same id."""
    from ecs_queue.messages.envelope import decode_request
    from ecs_queue.runtask.resubmit import ResubmitChanges, build_resubmit_line

    try:
        request = decode_request(dead_letter.body, queue.keyring)
        if to_queue is None and request.queue != dead_letter.queue:
            # The right to write to one queue must not give access to another queue's profile.
            problem = f"it names the queue {request.queue} and came from {dead_letter.queue}: choose one with --to"
            return Requeue(dead_letter, problem=problem)
        new_id = build_requeue_id(dead_letter.key, request.id)
        changes = ResubmitChanges(queue=to_queue or request.queue)
        main_container = queue.config.profile(changes.queue).container_name
        line = build_resubmit_line(request, new_id, changes, main_container)
        return Requeue(dead_letter, queue.prepare(line, origin=request.id))
    except EcsQueueError as error:
        return Requeue(dead_letter, problem=str(error))


def submit_requeues(queue: EcsQueue, requeues: Sequence[Requeue]) -> Iterator[Requeue]:
    """Submit the prepared requests, then delete their dead letters. Yield each requeue with its outcome, in order."""
    for start in range(0, len(requeues), _BATCH_SIZE):
        batch = requeues[start : start + _BATCH_SIZE]
        try:
            _submit(queue, batch)
        except IdConflict:  # the others of the batch are queued; one by one shows which of them conflict
            batch = [_submit_one(queue, item) for item in batch]
        # Only now: a dead letter that survives a crash is requeued under the same id.
        queue.ledger.delete_dead_letters([item.dead_letter.key for item in batch if item.prepared_request is not None])
        yield from batch


def _submit_one(queue: EcsQueue, requeue: Requeue) -> Requeue:
    try:
        _submit(queue, [requeue])
    except IdConflict as error:
        return Requeue(requeue.dead_letter, problem=str(error))
    return requeue


def _submit(queue: EcsQueue, requeues: Sequence[Requeue]) -> None:
    from ecs_queue.cli.ui.submitter import Submitter

    Submitter(queue).submit([item.prepared_request for item in requeues if item.prepared_request is not None])
