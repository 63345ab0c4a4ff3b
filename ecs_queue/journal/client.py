"""What a client tells the journal: what it has submitted, and which stops it has asked for."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext

from ecs_queue.core.protocol import Word
from ecs_queue.core.record import Submission
from ecs_queue.journal.base import JournalStore
from ecs_queue.journal.record import Recorder
from ecs_queue.telemetry import Telemetry, tell_submitted

#: How long the end of a client may wait until its last events are written. Seconds.
_END_TAKES = 2.0


class ClientJournal:
    """Thread-safe, never blocks but at the end, never raises. Without a `store` it tells nobody.

    Its thread starts with the first event: a client that only looks has none.
    """

    def __init__(self, store: JournalStore | None, namespace: str) -> None:
        self._store = store
        self._namespace = namespace
        self._telemetry = Telemetry()
        self._recorder = None if store is None else Recorder(store, self._telemetry)

    def submitted(self, accepted: Iterable[Submission]) -> None:
        """The ledger has made records of these."""
        for new in accepted:
            tell_submitted(self._telemetry, self._namespace, new)
        self._start()

    def stop_asked(self, record_id: str, by: str, word: Word) -> None:
        """Somebody asked for a stop, and the ledger answered."""
        self._telemetry.emit("stop.asked", id=record_id, by=by, word=word.value)
        self._start()

    def held(self) -> AbstractContextManager[None]:
        """Within, what is told is written later: the caller is in a hurry."""
        return nullcontext() if self._recorder is None else self._recorder.held()

    def close(self) -> None:
        """Write what waits, for a bounded time, and give the connection back."""
        if self._recorder is not None:
            self._recorder.stop()
            self._recorder.join(_END_TAKES)
        if self._store is not None:
            self._store.close()

    def _start(self) -> None:
        if self._recorder is not None:
            self._recorder.start()
