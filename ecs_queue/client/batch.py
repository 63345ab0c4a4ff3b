"""The handles of one `submit_many`."""

from __future__ import annotations

import concurrent.futures
import secrets
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol, overload

from ecs_queue.client.handle import Handle, HandleResults
from ecs_queue.client.producer import PreparedRequest
from ecs_queue.errors import ResultTimeout, UnknownTask, UsageError
from ecs_queue.messages.result import TaskResult
from ecs_queue.protocol.record import Record
from ecs_queue.protocol.states import State
from ecs_queue.runtask.resubmit import ResubmitChanges, build_resubmit_id, build_resubmit_line

#: The ends that `retry_failed` takes for failures: the caller of a stop wanted it, and what is UNKNOWN may have run.
FAILED_STATES = frozenset({State.FAILED, State.REMOVED, State.EXPIRED})


class BatchClient(Protocol):
    """What a batch needs of its client; see `EcsQueue`."""

    @property
    def results(self) -> HandleResults: ...

    def find_records(self, ids: Sequence[str]) -> list[Record | None]: ...

    def prepare(self, task: Mapping[str, Any], *, origin: str = ...) -> PreparedRequest: ...

    def submitting(self, prepared_requests: Sequence[PreparedRequest]) -> AbstractContextManager[None]: ...

    def submit_prepared(self, prepared_requests: Sequence[PreparedRequest]) -> Batch: ...

    def as_completed(self, handles: Sequence[Handle], timeout: float | None = ...) -> Iterator[TaskResult]: ...

    def cancel_many(self, handles: Sequence[Handle]) -> int: ...


class Batch(Sequence[Handle]):
    """Handles in the order of their requests; a sequence that does not change."""

    def __init__(self, client: BatchClient, handles: Sequence[Handle]) -> None:
        """Create a batch of handles of this client."""
        self._client = client
        self._handles = tuple(handles)

    @overload
    def __getitem__(self, index: int) -> Handle: ...

    @overload
    def __getitem__(self, index: slice) -> Batch: ...

    def __getitem__(self, index: int | slice) -> Handle | Batch:
        """Return one handle, or a batch of some."""
        if isinstance(index, slice):
            return Batch(self._client, self._handles[index])
        return self._handles[index]

    def __len__(self) -> int:
        """Return the number of requests."""
        return len(self._handles)

    def __iter__(self) -> Iterator[Handle]:
        """Yield the handles in order."""
        return iter(self._handles)

    def __repr__(self) -> str:
        """Say how many have ended."""
        return f"Batch({len(self)} requests, {sum(handle.done() for handle in self)} done)"

    def counts(self) -> Counter[State]:
        """Return how many requests are in each state now; those that have not ended are looked up in the ledger.

        Raises:
            UnknownTask: The ledger does not know one of them any more.
        """
        counted: Counter[State] = Counter()
        pending = []
        for handle in self._handles:
            if handle.done():
                counted[State(handle.outcome(0).state)] += 1
            else:
                pending.append(handle)
        for handle, record in zip(pending, self._client.find_records([one.id for one in pending]), strict=True):
            if record is None or record.nonce != handle.nonce:
                raise UnknownTask(f"the ledger has no record of {handle.id} any more")
            counted[record.state] += 1
        return counted

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until all have ended, however they ended; return False when `timeout` seconds are over before.

        Raises:
            UsageError: A callback waits, or another process opened the client: see `Handle.result`.
        """
        if not self._is_done():
            try:
                timeout = self._client.results.prepare_wait(timeout, self._is_done)
            except ResultTimeout:  # by the clock of an `ecs_queue.testing.MemoryQueue`
                return False
        return not concurrent.futures.wait(self._handles, timeout).not_done

    def results(self, timeout: float | None = None) -> list[TaskResult]:
        """Wait until all have ended, and return how, in the order of the requests.

        Raises:
            ResultTimeout: Some have not ended within `timeout` seconds. They go on.
            UnknownTask: The ledger does not know one of them any more.
        """
        if not self.wait(timeout):
            left = sum(not handle.done() for handle in self._handles)
            raise ResultTimeout(f"{left} of {len(self)} requests have not ended in time; wait again, none was stopped")
        return [handle.result() for handle in self._handles]

    def as_completed(self, timeout: float | None = None) -> Iterator[TaskResult]:
        """Yield each result once, in the order in which the requests end; see `EcsQueue.as_completed`."""
        return self._client.as_completed(self._handles, timeout)

    def cancel(self) -> int:
        """Request a stop of all that have not ended, and return how many were revoked at once; see `Handle.cancel`."""
        return self._client.cancel_many(self._handles)

    def retry_failed(self, states: frozenset[State] = FAILED_STATES) -> Batch:
        """Submit again what has failed so far, under new ids that name their origin, as `ecs-queue replay` does.

        Args:
            states: Which ends count as failures. UNKNOWN does so only if it is named, because the task may have run. A
                request that the ledger does not know any more counts as UNKNOWN.

        Returns:
            The new handles, in the order of the failed requests; an empty batch when there are none.

        Raises:
            UsageError: Another process submitted one of them: `ecs-queue replay ID --submit` finds its request.
        """
        failed = [handle for handle in self._handles if handle.done() and _end_state(handle) in states]
        prepared_requests = [self._prepare_again(handle) for handle in failed]
        with self._client.submitting(prepared_requests):
            return self._client.submit_prepared(prepared_requests)

    def _is_done(self) -> bool:
        return all(handle.done() for handle in self._handles)

    def _prepare_again(self, handle: Handle) -> PreparedRequest:
        if handle.prepared_request is None:
            raise UsageError(
                f"{handle.id} was submitted by another process, and its request is not known here: "
                f"ecs-queue replay {handle.id} --submit; nothing was submitted"
            )
        new_id = build_resubmit_id(handle.id, secrets.token_hex(4))
        line = build_resubmit_line(handle.prepared_request.request, new_id, ResubmitChanges(), None)
        return self._client.prepare(line, origin=handle.id)


def _end_state(handle: Handle) -> str:
    try:
        return handle.outcome(0).state
    except UnknownTask:
        return State.UNKNOWN
