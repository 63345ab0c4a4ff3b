"""What a client tells the journal: what it has submitted, and which stops it has asked for."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext

from ecs_queue.journal.base import JournalStore
from ecs_queue.journal.recorder import JournalRecorder
from ecs_queue.protocol.operations import ResultCode
from ecs_queue.protocol.record import Submission
from ecs_queue.telemetry import Telemetry, emit_request_submitted

#: How long the end of a client may wait until its last events are written. Seconds.
_CLOSE_TIMEOUT = 2.0


class ClientJournal:
    """Thread-safe, never blocks but at the end, never raises. Without a `store` it tells nobody.

    Its thread starts with the first event: a client that only looks has none.
    """

    def __init__(self, store: JournalStore | None, namespace: str) -> None:
        self._store = store
        self._namespace = namespace
        self._telemetry = Telemetry()
        self._recorder = None if store is None else JournalRecorder(store, self._telemetry)

    def record_submissions(self, submissions: Iterable[Submission]) -> None:
        """The ledger has made records of these."""
        for new in submissions:
            emit_request_submitted(self._telemetry, self._namespace, new)
        self._start()

    def record_stop_request(self, record_id: str, by: str, code: ResultCode) -> None:
        """Somebody asked for a stop, and the ledger answered."""
        self._telemetry.emit("stop.requested", id=record_id, by=by, code=code.value)
        self._start()

    def pause_writes(self) -> AbstractContextManager[None]:
        """Within, what is told is written later: the caller is in a hurry."""
        return nullcontext() if self._recorder is None else self._recorder.pause_writes()

    def close(self) -> None:
        """Write what waits, for a bounded time, and give the connection back."""
        if self._recorder is not None:
            self._recorder.stop()
            self._recorder.join(_CLOSE_TIMEOUT)
        if self._store is not None:
            self._store.close()

    def _start(self) -> None:
        if self._recorder is not None:
            self._recorder.start()
