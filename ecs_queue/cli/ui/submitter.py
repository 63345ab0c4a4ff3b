"""Queue prepared requests and wait for their results, through outages of the servers."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from ecs_queue.cli.ui.output import print_stderr
from ecs_queue.errors import LedgerUnavailable, ResultTimeout, RetryableError

if TYPE_CHECKING:
    from ecs_queue.client.client import EcsQueue, Handle
    from ecs_queue.client.producer import PreparedRequest
    from ecs_queue.messages.envelope import TaskResult

_BATCH_SIZE = 200
#: How long a server may be away in the midst of a submission, and how often it is tried. Seconds.
_OUTAGE_TIMEOUT_SECONDS = 60.0
_RETRY_SECONDS = 1.0


class Submitter:
    """One submission, which may be interrupted: `handles` are queued for certain, of `in_doubt` it is not known."""

    def __init__(self, queue: EcsQueue) -> None:
        self._queue = queue
        self.handles: list[Handle] = []
        self.ambiguous_ids: list[str] = []

    def submit(self, prepared_requests: Sequence[PreparedRequest], on_batch: Callable[[int], None]) -> list[Handle]:
        """Queue them; `sent(number)` after each batch.

        A batch whose answer is lost is sent again: the very same envelopes are the very same requests.
        LedgerUnavailable, with what is known, when the ledger stays away for a minute.
        """
        for start in range(0, len(prepared_requests), _BATCH_SIZE):
            batch = prepared_requests[start : start + _BATCH_SIZE]
            self.ambiguous_ids = [draft.request.id for draft in batch]
            self.handles += self._send_batch(batch, len(prepared_requests))
            self.ambiguous_ids = []
            on_batch(len(batch))
        return self.handles

    def _send_batch(self, batch: Sequence[PreparedRequest], total: int) -> list[Handle]:
        deadline = time.monotonic() + _OUTAGE_TIMEOUT_SECONDS
        while True:
            try:
                return self._queue.send(batch)
            except LedgerUnavailable as error:
                if time.monotonic() >= deadline:
                    known = len(self.handles)
                    raise LedgerUnavailable(
                        f"{known} of {total} requests were submitted, of the next {len(batch)} it is not known: {error}"
                    ) from error
                print_stderr(f"ecs-queue: {error}; trying again")
                time.sleep(_RETRY_SECONDS)


def wait_for_results(queue: EcsQueue, handles: Sequence[Handle], timeout: float | None) -> Iterator[TaskResult]:
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
                print_stderr(f"ecs-queue: {error}; still waiting")
            away = True
            time.sleep(_RETRY_SECONDS if left is None else min(_RETRY_SECONDS, left))
