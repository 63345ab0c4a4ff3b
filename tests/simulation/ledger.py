"""The one ledger of a simulation, and how each process reaches it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from ecs_queue.core.protocol import Answer, Rules
from ecs_queue.core.record import Record
from ecs_queue.core.states import State
from ecs_queue.errors import LedgerUnavailable
from ecs_queue.ledger import MemoryLedger
from ecs_queue.ledger.base import Ledger
from ecs_queue.ledger.retention import Retention
from tests.simulation.process import Process, Stage

#: Reads, what is only advice, and what a caller asks for under a lock that no other job could wait for: token buckets,
#: bodies in hand.
_SILENT = frozenset({"now", "take", "throttled", "hold", "let_go", "note_events", "event_flows"})
_READS = frozenset(
    {"now", "get", "id_of", "undelivered", "page", "counts", "dead", "letters", "workers", "check", "paused"}
)
#: What each of these has written, and all before it, outlives a fail-over once it has answered.
_BARRIERS = frozenset(name for name, operation in vars(Ledger).items() if "Barrier" in (operation.__doc__ or ""))
#: The client library's time-out, in seconds.
_TIME_OUT = 5.0

_Image = tuple[dict[str, Record], dict[str, float], dict[str, float], dict[str, float]]


class TrueLedger(MemoryLedger):
    """The memory ledger, looked at from outside the protocol, and with the second that a fail-over may lose."""

    def __init__(self, stage: Stage, rules: Rules, retention: Retention) -> None:
        super().__init__(stage.scheduler.clock, rules, retention)
        self._image: _Image | None = None
        self.queue_limit = 0

    @property
    def records(self) -> Mapping[str, Record]:
        """Every record as it is: not to be changed."""
        return self._records

    @property
    def look_at(self) -> Mapping[str, float]:
        """The index of live records: when somebody must look next."""
        return self._look_at

    @property
    def expiry(self) -> Mapping[str, float]:
        """The index of deadlines."""
        return self._expiry

    def next_due(self) -> float:
        """When somebody has something to do."""
        looks = self._look_at.items()
        if self._is_held():
            looks = [(key, at) for key, at in looks if self._records[key].state is not State.QUEUED]  # type: ignore[assignment]
        return min((*(at for _, at in looks), *self._expiry.values()), default=float("inf"))

    def _is_held(self) -> bool:
        """Whether nothing may be claimed now."""
        limits = [limit for limit in (self._rules.max_in_flight, self.queue_limit) if limit]
        if not limits:
            return bool(self._paused)
        in_flight = sum(record.state in (State.LAUNCHING, State.LAUNCHED) for record in self._records.values())
        return bool(self._paused) or in_flight >= min(limits)

    def remember(self) -> None:
        """All that is there now would survive a fail-over."""
        copies = {key: msgspec.structs.replace(record) for key, record in self._records.items()}
        self._image = copies, dict(self._look_at), dict(self._expiry), dict(self._gone_at)

    @property
    def remembers(self) -> bool:
        """Whether a fail-over is near."""
        return self._image is not None

    def fail_over(self) -> None:
        """Lose what was written since it was remembered."""
        if self._image is not None:
            self._records, self._look_at, self._expiry, self._gone_at = self._image
            self._image = None


class SimLedger:
    """A `Ledger` as one process sees it: each call is a step, may fail before or after its effect, or act late.

    `fail_over`: called for the ledger to fail over soon; `done(operation, answer)`: after each effect.
    """

    def __init__(
        self, process: Process, truth: TrueLedger, fail_over: Callable[[], None], done: Callable[[str, Any], None]
    ) -> None:
        self._process = process
        self._stage = process.stage
        self._truth = truth
        self._fail_over = fail_over
        self._done = done

    def __getattr__(self, operation: str) -> Any:
        carry_out = getattr(self._truth, operation)

        def call(*arguments: Any, **named: Any) -> Any:
            if operation in _SILENT:
                return carry_out(*arguments, **named)
            return self._call(operation, carry_out, arguments, named)

        self.__dict__[operation] = call
        return call

    def _call(self, operation: str, carry_out: Any, arguments: tuple[Any, ...], named: dict[str, Any]) -> Any:
        self._process.step(operation)
        stage, faults = self._stage, self._stage.faults
        if "ledger" in self._process.cut_off or stage.chance(faults.ledger_before):
            self._fails(operation, "did not reach the ledger")

        if operation not in _READS and stage.chance(faults.fail_over) and not self._truth.remembers:
            self._truth.remember()
            stage.scheduler.after(stage.rng.random(), self._fail_over)

        def effect() -> Any:
            answer = carry_out(*arguments, **named)
            if operation in _BARRIERS and self._truth.remembers:
                self._truth.remember()
            if stage.traced:
                stage.tell(f"{operation}({_shown(arguments)}) -> {_shown(answer)}")
            if operation not in _READS:
                self._done(operation, answer)
            return answer

        if stage.chance(faults.ledger_late):
            stage.scheduler.after(stage.rng.uniform(0.0, 30.0), effect)
            self._fails(operation, "was given up, and will act late")
        answer = effect()
        if stage.chance(faults.ledger_after):
            self._fails(operation, "has acted, its answer is lost")
        return answer

    def _fails(self, operation: str, how: str) -> None:
        self._stage.tell(f"{operation} {how}")
        self._stage.scheduler.sleep(self._stage.rng.uniform(0.0, _TIME_OUT))
        raise LedgerUnavailable


def _shown(value: Any) -> str:
    """For the history."""
    if isinstance(value, Answer):
        return f"{value.word.value}{' ' + _shown(value.record) if value.record else ''}"
    if isinstance(value, Record):
        doubt = f"{' dirty' if value.dirty else ''}{' burnt' if value.burnt else ''}"
        stop = f" stop_by={value.stop_by}" if value.stop_by else ""
        return f"<{value.id} {value.state} launch={value.launch} attempt={value.attempt}{doubt}{stop}>"
    if isinstance(value, tuple | list):
        return f"[{', '.join(map(_shown, value))}]"
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{key}: {_shown(item)}' for key, item in value.items())}}}"
    return f"{value:.3f}" if isinstance(value, float) else str(value)
