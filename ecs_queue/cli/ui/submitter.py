"""Queues prepared requests and waits for their results through outages of broker and ledger."""

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
#: How long an outage in the middle of a submission may last, and the pause between attempts. Seconds.
_OUTAGE_TIMEOUT_SECONDS = 60.0
_RETRY_SECONDS = 1.0


class Submitter:
    """Submits once, and knows how far it came when it is interrupted.

    Attributes:
        handles: The requests that are queued for certain.
        ambiguous_ids: The requests of which it is unknown whether they are queued.
    """

    def __init__(self, queue: EcsQueue) -> None:
        self._queue = queue
        self.handles: list[Handle] = []
        self.ambiguous_ids: list[str] = []

    def submit(
        self, prepared_requests: Sequence[PreparedRequest], on_batch: Callable[[int], None] = lambda _: None
    ) -> list[Handle]:
        """Queue the requests, and return their handles in order.

        A batch whose answer is lost is sent again; the same envelopes are the same requests.

        Args:
            prepared_requests: What `EcsQueue.prepare` returned.
            on_batch: Called after each batch with its size.

        Raises:
            LedgerUnavailable: The outage lasted for a minute. The message says what is known.
        """
        for start in range(0, len(prepared_requests), _BATCH_SIZE):
            batch = prepared_requests[start : start + _BATCH_SIZE]
            self.ambiguous_ids = [item.request.id for item in batch]
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
                    raise LedgerUnavailable(
                        f"{len(self.handles)} of {total} requests were submitted, and it is unknown whether the next "
                        f"{len(batch)} were: {error}"
                    ) from error
                print_stderr(f"ecs-queue: {error}; trying again")
                time.sleep(_RETRY_SECONDS)


def wait_for_results(queue: EcsQueue, handles: Sequence[Handle], timeout: float | None) -> Iterator[TaskResult]:
    """Yield each result once, as the requests end; outages only delay them.

    Raises:
        ResultTimeout: `timeout` seconds are over.
    """
    deadline = None if timeout is None else time.monotonic() + timeout
    open_handles = {handle.id: handle for handle in handles}
    is_unavailable = False
    while open_handles:
        left = None if deadline is None else max(0.0, deadline - time.monotonic())
        try:
            for result in queue.as_completed(list(open_handles.values()), left):
                is_unavailable = False
                del open_handles[result.id]
                yield result
        except ResultTimeout:
            missing = (
                f"{handles[0].id} has" if len(handles) == 1 else f"{len(open_handles)} of {len(handles)} requests have"
            )
            raise ResultTimeout(f"{missing} not ended within {timeout:g} s") from None
        except RetryableError as error:
            if open_handles and not is_unavailable:
                print_stderr(f"ecs-queue: {error}; still waiting")
            is_unavailable = True
            time.sleep(_RETRY_SECONDS if left is None else min(_RETRY_SECONDS, left))
