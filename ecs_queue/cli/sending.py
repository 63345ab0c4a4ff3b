"""Queue prepared requests and wait for their results, through outages of the servers."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from ecs_queue.cli.output import say
from ecs_queue.errors import LedgerUnavailable, ResultTimeout, RetryableError

if TYPE_CHECKING:
    from ecs_queue.client import EcsQueue, Handle, Submitted
    from ecs_queue.core.envelope import TaskResult

_SENT_AT_ONCE = 200
#: How long a server may be away in the midst of a submission, and how often it is tried. Seconds.
_PATIENCE = 60.0
_TRY_AGAIN = 1.0


class Sending:
    """One submission, which may be interrupted: `handles` are queued for certain, of `in_doubt` it is not known."""

    def __init__(self, queue: EcsQueue) -> None:
        self._queue = queue
        self.handles: list[Handle] = []
        self.in_doubt: list[str] = []

    def send(self, drafts: Sequence[Submitted], sent: Callable[[int], None]) -> list[Handle]:
        """Queue them; `sent(number)` after each batch.

        A batch whose answer is lost is sent again: the very same envelopes are the very same requests.
        LedgerUnavailable, with what is known, when the ledger stays away for a minute.
        """
        for start in range(0, len(drafts), _SENT_AT_ONCE):
            batch = drafts[start : start + _SENT_AT_ONCE]
            self.in_doubt = [draft.request.id for draft in batch]
            self.handles += self._send_batch(batch, len(drafts))
            self.in_doubt = []
            sent(len(batch))
        return self.handles

    def _send_batch(self, batch: Sequence[Submitted], total: int) -> list[Handle]:
        deadline = time.monotonic() + _PATIENCE
        while True:
            try:
                return self._queue.send(batch)
            except LedgerUnavailable as error:
                if time.monotonic() >= deadline:
                    known = len(self.handles)
                    raise LedgerUnavailable(
                        f"{known} of {total} requests were submitted, of the next {len(batch)} it is not known: {error}"
                    ) from error
                say(f"ecs-queue: {error}; trying again")
                time.sleep(_TRY_AGAIN)


def follow(queue: EcsQueue, handles: Sequence[Handle], timeout: float | None) -> Iterator[TaskResult]:
    """Each result once, as they end; the servers may be away meanwhile. ResultTimeout after `timeout` seconds."""
    deadline = None if timeout is None else time.monotonic() + timeout
    open_handles = {handle.id: handle for handle in handles}
    away = False
    while open_handles:
        left = None if deadline is None else max(0.0, deadline - time.monotonic())
        try:
            for result in queue.as_completed(list(open_handles.values()), left):
                away = False
                del open_handles[result.id]
                yield result
        except ResultTimeout:
            missing = f"{len(open_handles)} of {len(handles)} requests have"
            if len(handles) == 1:
                missing = f"{handles[0].id} has"
            raise ResultTimeout(f"{missing} not ended within {timeout:g} s") from None
        except RetryableError as error:
            if open_handles and not away:
                say(f"ecs-queue: {error}; still waiting")
            away = True
            time.sleep(_TRY_AGAIN if left is None else min(_TRY_AGAIN, left))
