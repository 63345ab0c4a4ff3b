"""Queues prepared requests and waits for their results through outages of broker and ledger."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from ecs_queue.cli.ui.output import print_stderr
from ecs_queue.errors import LedgerUnavailable, PermanentError, ResultTimeout, RetryableError
from ecs_queue.outage_log import OutageLine, OutageLog

if TYPE_CHECKING:
    from ecs_queue.client.client import EcsQueue
    from ecs_queue.client.handle import Handle
    from ecs_queue.client.producer import PreparedRequest
    from ecs_queue.messages.result import TaskResult

_BATCH_SIZE = 200
#: How long an outage in the middle of a submission may last, and the pause between attempts. Seconds.
_OUTAGE_TIMEOUT_SECONDS = 60.0
_RETRY_SECONDS = 1.0


class SubmissionUnfinished(LedgerUnavailable):
    """Some requests were submitted, or may have been, and the rest could not be."""


class Submitter:
    """Submits once, and knows how far it came when it is interrupted.

    Attributes:
        handles: The requests that are queued for certain.
        ambiguous_ids: The requests of which it is unknown whether they are queued.
    """

    def __init__(self, queue: EcsQueue) -> None:
        self._queue = queue
        self._outage_log = OutageLog(time.monotonic, settle_seconds=0.0)
        self.handles: list[Handle] = []
        self.ambiguous_ids: list[str] = []

    @property
    def may_have_submitted(self) -> bool:
        """Whether a request is queued, or may be."""
        return bool(self.handles or self.ambiguous_ids)

    def submit(
        self, prepared_requests: Sequence[PreparedRequest], on_batch: Callable[[int], None] = lambda _: None
    ) -> list[Handle]:
        """Queue the requests, and return their handles in order.

        A batch whose answer is lost is sent again; the same envelopes are the same requests.

        Args:
            prepared_requests: What `EcsQueue.prepare` returned.
            on_batch: Called after each batch with its size.

        Raises:
            SubmissionUnfinished: The outage lasted for a minute. The message says what is known.
            IdConflict, RequestTooLate: A request was rejected; the others of its batch are queued.
        """
        for start in range(0, len(prepared_requests), _BATCH_SIZE):
            batch = prepared_requests[start : start + _BATCH_SIZE]
            self.ambiguous_ids = [item.request.id for item in batch]
            try:
                self.handles += self._send_batch(batch, len(prepared_requests))
            except PermanentError:
                self._send_one_by_one(batch, len(prepared_requests))
            self.ambiguous_ids = []
            on_batch(len(batch))
        return self.handles

    def _send_one_by_one(self, batch: Sequence[PreparedRequest], total: int) -> None:
        """Find out which requests of a batch were rejected, and raise the first rejection."""
        rejection: PermanentError | None = None
        for position, item in enumerate(batch):
            self.ambiguous_ids = [other.request.id for other in batch[position:]]
            try:
                self.handles += self._send_batch([item], total)
            except PermanentError as error:
                rejection = rejection or error
        self.ambiguous_ids = []
        if rejection is not None:
            raise rejection

    def _send_batch(self, batch: Sequence[PreparedRequest], total: int) -> list[Handle]:
        deadline = time.monotonic() + _OUTAGE_TIMEOUT_SECONDS
        while True:
            try:
                sent = self._queue.send(batch)
            except LedgerUnavailable as error:
                if time.monotonic() >= deadline:
                    raise SubmissionUnfinished(
                        f"{len(self.handles)} of {total} requests were submitted, and it is unknown whether the next "
                        f"{len(batch)} were: {error}"
                    ) from error
                _print_outage(self._outage_log.record_failure(str(error)))
                time.sleep(_RETRY_SECONDS)
            else:
                _print_outage(self._outage_log.record_success())
                return sent


def _print_outage(line: OutageLine | None) -> None:
    if line is not None:
        print_stderr(f"ecs-queue: {line.describe('the ledger')}")


def wait_for_results(queue: EcsQueue, handles: Sequence[Handle], timeout: float | None) -> Iterator[TaskResult]:
    """Yield each result once, as the requests end; outages only delay them.

    Raises:
        ResultTimeout: `timeout` seconds are over.
    """
    deadline = None if timeout is None else time.monotonic() + timeout
    open_handles = {handle.id: handle for handle in handles}
    outage_log = OutageLog(time.monotonic, settle_seconds=0.0)
    while open_handles:
        left = None if deadline is None else max(0.0, deadline - time.monotonic())
        try:
            for result in queue.as_completed(list(open_handles.values()), left):
                _print_outage(outage_log.record_success())
                del open_handles[result.id]
                yield result
        except ResultTimeout:
            missing = (
                f"{handles[0].id} has" if len(handles) == 1 else f"{len(open_handles)} of {len(handles)} requests have"
            )
            raise ResultTimeout(f"{missing} not ended within {timeout:g} s") from None
        except RetryableError as error:
            if open_handles:
                _print_outage(outage_log.record_failure(str(error)))
            time.sleep(_RETRY_SECONDS if left is None else min(_RETRY_SECONDS, left))
