"""The one ledger of a simulation, and how each process reaches it."""

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
    """The memory ledger, looked at from outside the protocol, and with the second that a fail-over may lose."""

    def __init__(self, context: SimulationContext, settings: ProtocolSettings) -> None:
        super().__init__(context.scheduler.clock, settings)
        self._snapshot: _Snapshot | None = None
        self.queue_limit = 0

    @property
    def records(self) -> Mapping[str, Record]:
        """Every record as it is: not to be changed."""
        return self._records

    @property
    def due(self) -> Mapping[str, float]:
        """The index of live records: when somebody must look next."""
        return self._due_at

    @property
    def expiry(self) -> Mapping[str, float]:
        """The index of deadlines."""
        return self._start_deadlines

    def next_due(self) -> float:
        """When somebody has something to do."""
        looks = self._due_at.items()
        if self._is_blocked():
            looks = [(key, at) for key, at in looks if self._records[key].state is not State.QUEUED]  # type: ignore[assignment]
        return min((*(at for _, at in looks), *self._start_deadlines.values()), default=float("inf"))

    def _is_blocked(self) -> bool:
        """Whether nothing may be claimed now."""
        limits = [limit for limit in (self._settings.max_in_flight, self.queue_limit) if limit]
        if not limits:
            return bool(self._paused_since)
        in_flight = sum(record.state in (State.LAUNCHING, State.LAUNCHED) for record in self._records.values())
        return bool(self._paused_since) or in_flight >= min(limits)

    def take_snapshot(self) -> None:
        """All that is there now would survive a fail-over."""
        copies = {key: msgspec.structs.replace(record) for key, record in self._records.items()}
        self._snapshot = copies, dict(self._due_at), dict(self._start_deadlines), dict(self._forget_at)

    @property
    def has_snapshot(self) -> bool:
        """Whether a fail-over is near."""
        return self._snapshot is not None

    def fail_over(self) -> None:
        """Lose what was written since it was remembered."""
        if self._snapshot is not None:
            self._records, self._due_at, self._start_deadlines, self._forget_at = self._snapshot
            self._snapshot = None


class SimLedger:
    """A `Ledger` as one process sees it: each call is a step, may fail before or after its effect, or act late.

    `fail_over`: called for the ledger to fail over soon; `done(operation, answer)`: after each effect.
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
        if "ledger" in self._process.cut_off or context.happens(faults.ledger_lost_before_effect):
            self._fail(operation, "did not reach the ledger")

        if operation not in _READ_OPERATIONS and context.happens(faults.fail_over) and not self._server.has_snapshot:
            self._server.take_snapshot()
            context.scheduler.call_after(context.rng.random(), self._schedule_fail_over)

        def effect() -> Any:
            answer = carry_out(*arguments, **named)
            if operation in _BARRIER_OPERATIONS and self._server.has_snapshot:
                self._server.take_snapshot()
            if context.is_traced:
                context.trace(f"{operation}({_format(arguments)}) -> {_format(answer)}")
            if operation not in _READ_OPERATIONS:
                self._on_effect(operation, answer)
            return answer

        if context.happens(faults.ledger_late):
            context.scheduler.call_after(context.rng.uniform(0.0, 30.0), effect)
            self._fail(operation, "was given up, and will act late")
        answer = effect()
        if context.happens(faults.ledger_lost_after_effect):
            self._fail(operation, "has acted, its answer is lost")
        return answer

    def _fail(self, operation: str, description: str) -> None:
        self._context.trace(f"{operation} {description}")
        self._context.scheduler.sleep(self._context.rng.uniform(0.0, _TIMEOUT_SECONDS))
        raise LedgerUnavailable


def _format(value: Any) -> str:
    """For the history."""
    if isinstance(value, OperationResult):
        return f"{value.code.value}{' ' + _format(value.record) if value.record else ''}"
    if isinstance(value, Record):
        doubt = f"{' dirty' if value.ambiguous else ''}{' burnt' if value.retired else ''}"
        stop = f" stop_by={value.stop_requested_by}" if value.stop_requested_by else ""
        return f"<{value.id} {value.state} launch={value.launch} attempt={value.attempt}{doubt}{stop}>"
    if isinstance(value, tuple | list):
        return f"[{', '.join(map(_format, value))}]"
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{key}: {_format(item)}' for key, item in value.items())}}}"
    return f"{value:.3f}" if isinstance(value, float) else str(value)
