"""On which variant of its capacity each queue launches: what all workers know of it, through the ledger."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from ecs_queue.config import Config, Profile
from ecs_queue.ledger.base import CapacityStates
from ecs_queue.protocol.capacity_fallback import CapacityEvent, CapacityReport, CapacityState
from ecs_queue.protocol.record import Record, build_client_token
from ecs_queue.telemetry import Telemetry

#: How long a worker uses what the ledger said last. Seconds.
_REFRESH_INTERVAL = 1.0
#: The longest reason that is stored, in characters.
_MAX_REASON = 300


class CapacityFallback:
    """Thread-safe: two threads that ask the ledger at once get one state or the other, and both are right."""

    def __init__(
        self, ledger: CapacityStates, config: Config, monotonic: Callable[[], float], telemetry: Telemetry
    ) -> None:
        self._ledger = ledger
        self._config = config
        self._monotonic = monotonic
        self._telemetry = telemetry
        self._known: dict[str, tuple[CapacityState, float]] = {}  # queue -> its state, and when it was read

    def present(self, queue: str) -> CapacityState | None:
        """Return the variant for the queue's next launch, at most a second old; None if the queue has only one."""
        profile = self._config.profile(queue)
        if not profile.capacity_fallback:
            return None
        known = self._known.get(queue)
        if known is not None and self._monotonic() - known[1] < _REFRESH_INTERVAL:
            return known[0]
        return self._write(queue, profile, CapacityEvent.NONE)

    def known_variant(self, queue: str) -> int:
        """Return the number of the variant without a call of the ledger, as far as this worker knows it."""
        known = self._known.get(queue)
        return known[0].variant if known else 1

    def report(self, record: Record, event: CapacityEvent, reason: str = "") -> None:
        """Report what the record's present launch says about its variant, if it says anything new."""
        if not record.variant or event is CapacityEvent.NONE:
            return
        profile, known = self._config.profile(record.queue), self._known.get(record.queue)
        if not profile.capacity_fallback:
            return  # this worker has another configuration
        if event is CapacityEvent.STARTED and not (known and known[0].refusals):
            return  # the usual case costs no call
        name = build_client_token(record.id, record.nonce, record.launch)
        self._write(record.queue, profile, event, record.variant, name, reason[:_MAX_REASON])

    def _write(
        self, queue: str, profile: Profile, event: CapacityEvent, variant: int = 0, name: str = "", reason: str = ""
    ) -> CapacityState:
        report = CapacityReport(
            variants=profile.variants,
            max_refusals=profile.capacity_fallback_after,
            seconds=profile.capacity_fallback_seconds,
            event=event,
            variant=variant,
            name=name,
            reason=reason,
        )
        before = self.known_variant(queue)
        state = self._ledger.report_capacity(queue, report)
        if state.variant > profile.variants:  # that of a worker with another configuration
            state = msgspec.structs.replace(state, variant=1, reason="")
        self._known[queue] = (state, self._monotonic())
        if state.variant != before:
            why = state.reason or "the first one is tried again"
            self._telemetry.emit("capacity.switched", queue=queue, variant=state.variant, reason=why)
        return state
