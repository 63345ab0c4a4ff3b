"""The ledger of a simulation, and how each process reaches it.

The server confirms a barrier as Valkey does: it waits for what the calling connection has written, and an operation
that has written nothing is confirmed at once. The client library repeats an operation whose answer was lost up to ten
times.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from ecs_queue.errors import LedgerUnavailable
from ecs_queue.ledger import MemoryLedger
from ecs_queue.ledger.base import (
    CapacityStates,
    DeliveryCounts,
    EventHealthStore,
    Ledger,
    LedgerServer,
    RequestReader,
    TokenBuckets,
)
from ecs_queue.ledger.contracts import read_contracts
from ecs_queue.protocol.capacity_fallback import CapacityState
from ecs_queue.protocol.operations import OperationResult, ResultCode
from ecs_queue.protocol.record import Record
from ecs_queue.protocol.record_moves import is_starting
from ecs_queue.protocol.runs import Run
from ecs_queue.protocol.settings import ProtocolSettings
from ecs_queue.protocol.states import State
from tests.simulation.process import SimProcess, SimulationContext
from tests.simulation.scheduler import SimThread

#: Advice, and what a caller does under a lock on which no other simulated thread could wait: no step of their own.
_WITHOUT_STEP = frozenset({"now", *read_contracts(TokenBuckets, CapacityStates, DeliveryCounts, EventHealthStore)})
_READ_OPERATIONS = frozenset(
    {
        *read_contracts(RequestReader, LedgerServer),
        "list_dead_letters",
        "get_dead_letters",
        "count_dead_letters",
        "total_dead_letters",
        "list_workers",
        "list_paused_queues",
        "read_runs",
        "list_runs",
    }
)
#: When one of these has returned, what it reports outlives a fail-over.
_BARRIER_OPERATIONS = frozenset(
    name for name, contract in read_contracts(*Ledger.__bases__).items() if contract.has_barrier
)
#: Whether an operation writes something of its own before its barrier, as ecs_queue/ledger/lua/90_dispatch.lua does.
_WRITES_BEFORE_BARRIER = True
#: The same call under a claim token is answered alike while nothing else has changed the record.
_TOKEN_OPERATIONS = frozenset(
    {"put_and_claim", "claim", "reclaim", "call_ambiguous", "no_effect", "refused", "task_absent"}
)
#: Answers of such a call that write nothing: the next one may differ, as time has passed.
_NOTHING_WRITTEN = frozenset({ResultCode.NO_RUNNER, ResultCode.NOT_CLAIMABLE})
#: How often the client library repeats a call at most.
_MAX_REPEATS = 10
#: The longest sleep of a worker without a runner that has changed its run, in seconds.
_MAX_WAIT_SECONDS = 600.0
#: The client library's time-out, in seconds.
_TIMEOUT_SECONDS = 5.0

_Snapshot = tuple[
    dict[str, Record],
    dict[str, float],
    dict[str, float],
    dict[str, float],
    dict[str, Run],
    dict[str, tuple[float, str]],
]


class SimLedgerServer(MemoryLedger):
    """The memory ledger, with access for the monitor and with the second of writes that a fail-over may lose."""

    def __init__(self, context: SimulationContext, settings: ProtocolSettings) -> None:
        super().__init__(lambda: context.scheduler.clock() - self.clock_is_behind, settings)
        self.clock_is_behind = 0.0
        self._scheduler = context.scheduler
        self._snapshot: _Snapshot | None = None
        self.queue_limit = 0
        self.start_limit = 0
        self.loses_hint: Callable[[], bool] = lambda: False
        self._sleepers: dict[str, list[SimThread]] = {}  # name of a run, or "" for a changed run -> who waits for it

    @property
    def records(self) -> Mapping[str, Record]:
        """All records. Callers must not change them."""
        return self._records

    @property
    def runs(self) -> dict[str, Run]:
        """All runs."""
        return self._runs

    @property
    def capacity(self) -> Mapping[str, CapacityState]:
        """On which variant of its capacity each queue launches. Callers must not change it."""
        return self._capacity

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
        at = min((*(at for _, at in checks), *self._start_deadlines.values()), default=float("inf"))
        return at + self.clock_is_behind

    def _is_blocked(self) -> bool:
        """Whether nothing may be claimed now."""
        if self.start_limit and sum(map(is_starting, self._records.values())) >= self.start_limit:
            return True
        limits = [limit for limit in (self._settings.max_in_flight, self.queue_limit) if limit]
        if not limits:
            return bool(self._paused_since)
        in_flight = sum(record.state in (State.LAUNCHING, State.LAUNCHED) for record in self._records.values())
        return bool(self._paused_since) or in_flight >= min(limits)

    def take_snapshot(self) -> None:
        """Keep the present contents as what survives a fail-over."""
        self._snapshot = self.contents()

    @property
    def has_snapshot(self) -> bool:
        """Whether a fail-over is scheduled."""
        return self._snapshot is not None

    def contents(self) -> _Snapshot:
        """Return a copy of the records and their indexes."""
        records = {key: msgspec.structs.replace(record) for key, record in self._records.items()}
        runs = {key: msgspec.structs.replace(run) for key, run in self._runs.items()}
        indexes = dict(self._due_at), dict(self._start_deadlines), dict(self._forget_at)
        return records, *indexes, runs, dict(self._idle_since)

    def fail_over(self) -> None:
        """Lose what was written since the snapshot."""
        if self._snapshot is not None:
            self._records, self._due_at, self._start_deadlines, self._forget_at = self._snapshot[:4]
            self._runs, self._idle_since = self._snapshot[4:]
            self._changed_runs.clear()
            self._snapshot = None

    def pop_changed_runs(self, seconds: float, limit: int) -> list[Run]:
        """See `WarmPools.pop_changed_runs`. A simulated thread waits as long as there is nothing else to do."""
        if not self._changed_runs:
            self._sleep("", max(seconds, _MAX_WAIT_SECONDS))
        return super().pop_changed_runs(0.0, limit)

    def wait_for_wake(self, name: str, seconds: float) -> None:
        """See `RunnerOperations.wait_for_wake`."""
        if not self._wakes[name]:
            self._sleep(name, seconds)
        self._wakes[name] = 0

    def _sleep(self, name: str, seconds: float) -> None:
        thread = self._scheduler.current
        if thread is None:  # a call that takes effect late: no thread waits
            return
        sleepers = self._sleepers.setdefault(name, [])
        sleepers.append(thread)
        try:
            self._scheduler.sleep(seconds)
        finally:
            sleepers.remove(thread)

    def _note_change(self, name: str, has_changed: bool) -> None:
        if has_changed and not self.loses_hint():
            super()._note_change(name, has_changed)
            self._wake_sleepers("")

    def _wake(self, name: str) -> None:
        super()._wake(name)
        self._wake_sleepers(name)

    def _wake_sleepers(self, name: str) -> None:
        for thread in self._sleepers.get(name, ()):
            self._scheduler.wake(thread)


class SimLedger:
    """The `Ledger` of one process: each call is a step and may fail before or after its effect, or take effect late.

    Args:
        process: The calling process.
        server: The ledger.
        schedule_fail_over: Called shortly after a snapshot was taken, to fail over.
        on_effect: Called with the operation and its result after each effect.
        on_confirmed: Called with the operation and its result when the caller receives it after a barrier.
        on_unconfirmed: Called with the id of a record whose write was not confirmed.
        report_violation: Called with what must not happen.
    """

    def __init__(
        self,
        process: SimProcess,
        server: SimLedgerServer,
        schedule_fail_over: Callable[[], None],
        on_effect: Callable[[str, Any], None],
        on_confirmed: Callable[[str, Any], None],
        on_unconfirmed: Callable[[str], None],
        report_violation: Callable[[str], None],
    ) -> None:
        self._process = process
        self._context = process.context
        self._server = server
        self._schedule_fail_over = schedule_fail_over
        self._on_effect = on_effect
        self._on_confirmed = on_confirmed
        self._on_unconfirmed = on_unconfirmed
        self._report_violation = report_violation

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

        if context.happens(faults.clock_goes_back):
            seconds = context.rng.choice((5.0, 600.0, 7200.0, 86400.0))
            context.trace(f"the ledger's clock goes back by {seconds:.0f} s")
            self._server.clock_is_behind += seconds

        is_confirmed = True

        def effect() -> Any:
            nonlocal is_confirmed
            before = self._server.contents() if self._server.has_snapshot else None
            result = carry_out(*arguments, **named)
            if operation in _BARRIER_OPERATIONS and before is not None:
                is_confirmed = self._wait_for_barrier(before)
            if context.is_traced:
                context.trace(f"{operation}({_format(arguments)}) -> {_format(result)}")
            if operation not in _READ_OPERATIONS:
                self._on_effect(operation, result)
            return result

        if context.happens(faults.ledger_late):
            context.scheduler.call_after(context.rng.uniform(0.0, 30.0), effect)
            self._fail(operation, "was given up and takes effect later")
        result = effect()
        if context.happens(faults.ledger_repeated):
            result = self._repeat(operation, arguments, effect, result)
        if not is_confirmed:
            for record in self._find_records(arguments):
                if record is not None:
                    self._on_unconfirmed(record.id)
            self._fail(operation, "took effect, and the server did not confirm it")
        if context.happens(faults.ledger_lost_after_effect):
            self._fail(operation, "took effect, the reply is lost")
        if operation in _BARRIER_OPERATIONS:
            self._on_confirmed(operation, result)
        return result

    def _wait_for_barrier(self, before: _Snapshot) -> bool:
        """Make what was written durable, if this connection has written something. Return whether it was confirmed."""
        if not _WRITES_BEFORE_BARRIER and self._server.contents() == before:
            return True
        if self._context.happens(self._context.faults.barrier_unconfirmed):
            return False
        self._server.take_snapshot()
        return True

    def _repeat(self, operation: str, arguments: tuple[Any, ...], effect: Callable[[], Any], result: Any) -> Any:
        """Run the operation again, as the client library does: it has lost the answer. Return the last answer."""
        context = self._context
        first, left = result, self._find_records(arguments)
        for _ in range(context.rng.randint(1, _MAX_REPEATS)):
            context.trace(f"{operation} is repeated by the client library")
            context.scheduler.sleep(context.rng.choice((0.0, 0.05)))
            is_untouched = self._find_records(arguments) == left
            result = effect()
            if operation in _TOKEN_OPERATIONS and arguments[1] is not None and is_untouched:
                answers = [each[-1] if isinstance(each, tuple) else each for each in (first, result)]
                if answers[0].code in _NOTHING_WRITTEN:  # the last answer counts
                    first, left = result, self._find_records(arguments)
                    continue
                if answers[0].code is not answers[1].code or self._find_records(arguments) != left:
                    codes = " and then ".join(answer.code.name for answer in answers)
                    self._report_violation(f"{operation} under one token was answered {codes}")
        return result

    def _find_records(self, arguments: tuple[Any, ...]) -> list[Record | None]:
        """Return copies of the records that the first argument names."""
        named = arguments[0] if arguments else []
        each = named if isinstance(named, list | tuple) else [named]
        return self._server.get([key for item in each if isinstance(key := getattr(item, "id", item), str)])

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
