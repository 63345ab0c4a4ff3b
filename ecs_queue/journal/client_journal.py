"""The journal of a client: the requests it submitted and the stops it requested."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

from ecs_queue.journal.base import JournalStore
from ecs_queue.journal.encoder import open_event_encoder
from ecs_queue.journal.recorder import JournalRecorder
from ecs_queue.protocol.operations import ResultCode
from ecs_queue.protocol.record import Submission
from ecs_queue.telemetry import Telemetry, emit_request_submitted

if TYPE_CHECKING:
    from ecs_queue.config import Config

#: Maximum time that `close` waits until the last events are written. Seconds.
_CLOSE_TIMEOUT = 2.0


class ClientJournal:
    """Records a client's events. Thread-safe; never raises; only `close` blocks.

    The writing thread starts with the first event, so a client that only reads has none.
    """

    def __init__(self, store: JournalStore | None, config: Config) -> None:
        """Use `store`; without one, events only go to the log."""
        self._store = store
        self._namespace = config.namespace
        self._telemetry = Telemetry()
        self._recorder = (
            None if store is None else JournalRecorder(store, self._telemetry, encoder=open_event_encoder(config))
        )

    def record_submissions(self, submissions: Iterable[Submission]) -> None:
        """Emit `request.submitted` for submissions of which the ledger created records."""
        for new in submissions:
            emit_request_submitted(self._telemetry, self._namespace, new)
        self._start()

    def record_stop_request(self, record_id: str, by: str, code: ResultCode) -> None:
        """Emit `stop.requested` with the ledger's result code."""
        self._telemetry.emit("stop.requested", id=record_id, by=by, code=code.value)
        self._start()

    def pause_writes(self) -> AbstractContextManager[None]:
        """Postpone writes inside the `with` block (see `JournalRecorder.pause_writes`)."""
        return nullcontext() if self._recorder is None else self._recorder.pause_writes()

    def close(self) -> None:
        """Write the buffered events, for a bounded time, and close the store."""
        if self._recorder is not None:
            self._recorder.stop()
            self._recorder.join(_CLOSE_TIMEOUT)
        if self._store is not None:
            self._store.close()

    def _start(self) -> None:
        if self._recorder is not None:
            self._recorder.start()
