"""The ledger of a simulation, and how each process reaches it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from ecs_queue.errors import LedgerUnavailable
from ecs_queue.ledger import MemoryLedger
from ecs_queue.ledger.base import (
    DeliveryCounts,
    EventHealthStore,
    Ledger,
    LedgerServer,
    RateLimits,
    RequestReader,
)
from ecs_queue.ledger.contracts import read_contracts
from ecs_queue.protocol.operations import OperationResult
from ecs_queue.protocol.record import Record
from ecs_queue.protocol.settings import ProtocolSettings
from ecs_queue.protocol.states import State
from tests.simulation.process import SimProcess, SimulationContext

#: Advice, and what a caller does under a lock on which no other simulated thread could wait: no step of their own.
_WITHOUT_STEP = frozenset({"now", *read_contracts(RateLimits, DeliveryCounts, EventHealthStore)})
_READ_OPERATIONS = frozenset(
    {
        *read_contracts(RequestReader, LedgerServer),
        "list_dead_letters",
        "get_dead_letters",
        "list_workers",
        "list_paused_queues",
    }
)
#: When one of these has returned, what it and all earlier operations wrote outlives a fail-over.
_BARRIER_OPERATIONS = frozenset(
    name for name, contract in read_contracts(*Ledger.__bases__).items() if contract.has_barrier
)
#: The client library's time-out, in seconds.
_TIMEOUT_SECONDS = 5.0

_Snapshot = tuple[dict[str, Record], dict[str, float], dict[str, float], dict[str, float]]


class SimLedgerServer(MemoryLedger):
    """The memory ledger, with access for the monitor and with the second of writes that a fail-over may lose."""

    def __init__(self, context: SimulationContext, settings: ProtocolSettings) -> None:
        super().__init__(context.scheduler.clock, settings)
        self._snapshot: _Snapshot | None = None
        self.queue_limit = 0

    @property
    def records(self) -> Mapping[str, Record]:
        """All records. Callers must not change them."""
        return self._records

    @property
    def due(self) -> Mapping[str, float]:
        """The index of live records, by the time of their next check."""
        return self._due_at

    @property
    def expiry(self) -> Mapping[str, float]:
        """The index of deadlines."""
        return self._start_deadlines

    def next_due(self) -> float:
        """Return the time of the next work for a worker."""
        checks = self._due_at.items()
        if self._is_blocked():
            checks = [(key, at) for key, at in checks if self._records[key].state is not State.QUEUED]  # type: ignore[assignment]
        return min((*(at for _, at in checks), *self._start_deadlines.values()), default=float("inf"))

    def _is_blocked(self) -> bool:
        """Whether nothing may be claimed now."""
        limits = [limit for limit in (self._settings.max_in_flight, self.queue_limit) if limit]
        if not limits:
            return bool(self._paused_since)
        in_flight = sum(record.state in (State.LAUNCHING, State.LAUNCHED) for record in self._records.values())
        return bool(self._paused_since) or in_flight >= min(limits)

    def take_snapshot(self) -> None:
        """Keep the present contents as what survives a fail-over."""
        records = {key: msgspec.structs.replace(record) for key, record in self._records.items()}
        self._snapshot = records, dict(self._due_at), dict(self._start_deadlines), dict(self._forget_at)

    @property
    def has_snapshot(self) -> bool:
        """Whether a fail-over is scheduled."""
        return self._snapshot is not None

    def fail_over(self) -> None:
        """Lose what was written since the snapshot."""
        if self._snapshot is not None:
            self._records, self._due_at, self._start_deadlines, self._forget_at = self._snapshot
            self._snapshot = None


class SimLedger:
    """The `Ledger` of one process: each call is a step and may fail before or after its effect, or take effect late.

    Args:
        process: The calling process.
        server: The ledger.
        schedule_fail_over: Called shortly after a snapshot was taken, to fail over.
        on_effect: Called with the operation and its result after each effect.
    """

    def __init__(
        self,
        process: SimProcess,
        server: SimLedgerServer,
        schedule_fail_over: Callable[[], None],
        on_effect: Callable[[str, Any], None],
    ) -> None:
        self._process = process
        self._context = process.context
        self._server = server
        self._schedule_fail_over = schedule_fail_over
        self._on_effect = on_effect

    def __getattr__(self, operation: str) -> Any:
        carry_out = getattr(self._server, operation)

        def call(*arguments: Any, **named: Any) -> Any:
            if operation in _WITHOUT_STEP:
                return carry_out(*arguments, **named)
            return self._call(operation, carry_out, arguments, named)

        self.__dict__[operation] = call
        return call

    def _call(self, operation: str, carry_out: Any, arguments: tuple[Any, ...], named: dict[str, Any]) -> Any:
        self._process.step(operation)
        context, faults = self._context, self._context.faults
        if "ledger" in self._process.unreachable or context.happens(faults.ledger_lost_before_effect):
            self._fail(operation, "did not reach the ledger")

        if operation not in _READ_OPERATIONS and context.happens(faults.fail_over) and not self._server.has_snapshot:
            self._server.take_snapshot()
            context.scheduler.call_after(context.rng.random(), self._schedule_fail_over)

        def effect() -> Any:
            result = carry_out(*arguments, **named)
            if operation in _BARRIER_OPERATIONS and self._server.has_snapshot:
                self._server.take_snapshot()
            if context.is_traced:
                context.trace(f"{operation}({_format(arguments)}) -> {_format(result)}")
            if operation not in _READ_OPERATIONS:
                self._on_effect(operation, result)
            return result

        if context.happens(faults.ledger_late):
            context.scheduler.call_after(context.rng.uniform(0.0, 30.0), effect)
            self._fail(operation, "was given up and takes effect later")
        result = effect()
        if context.happens(faults.ledger_lost_after_effect):
            self._fail(operation, "took effect, the reply is lost")
        return result

    def _fail(self, operation: str, description: str) -> None:
        self._context.trace(f"{operation} {description}")
        self._context.scheduler.sleep(self._context.rng.uniform(0.0, _TIMEOUT_SECONDS))
        raise LedgerUnavailable


def _format(value: Any) -> str:
    """Format a value for the history."""
    if isinstance(value, OperationResult):
        return f"{value.code.value}{' ' + _format(value.record) if value.record else ''}"
    if isinstance(value, Record):
        flags = f"{' ambiguous' if value.ambiguous else ''}{' retired' if value.retired else ''}"
        stop = f" stop_by={value.stop_requested_by}" if value.stop_requested_by else ""
        return f"<{value.id} {value.state} launch={value.launch} attempt={value.attempt}{flags}{stop}>"
    if isinstance(value, tuple | list):
        return f"[{', '.join(map(_format, value))}]"
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{key}: {_format(item)}' for key, item in value.items())}}}"
    return f"{value:.3f}" if isinstance(value, float) else str(value)
