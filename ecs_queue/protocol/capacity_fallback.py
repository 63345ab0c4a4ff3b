"""Which variant of its capacity a queue launches on: one state a queue, which all workers share (docs/policies.md).

Pure: `now` is an argument. The Redis ledger runs the same rules in Lua (ecs_queue/ledger/lua/47_capacity.lua).
"""

from __future__ import annotations

from enum import StrEnum

import msgspec

from ecs_queue.protocol.aws_causes import Cause
from ecs_queue.protocol.ecs_results import RunTaskResult, RunTaskResultKind
from ecs_queue.protocol.observation import Observation


class CapacityEvent(StrEnum):
    """What a launch says about the variant that it was made on."""

    NONE = ""
    STARTED = "started"
    REFUSED = "refused"
    """ECS had no capacity, at the call or later in place of a start."""
    INTERRUPTED = "interrupted"
    """The task ran on Spot, and its host was taken back."""


class CapacityReport(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker reports of one launch, and the rules of its queue's profile.

    Attributes:
        variants: The number of variants, with the queue's own keys as the first.
        max_refusals: After this number of refusals in a row, the next variant follows.
        seconds: How long launches stay with another variant than the first.
        event: NONE only asks for the state.
        variant: That of the launch, from 1 on.
        name: The launch: the same event of the same launch counts once in a row.
        reason: Why it was refused.
    """

    variants: int
    max_refusals: int
    seconds: float
    event: CapacityEvent = CapacityEvent.NONE
    variant: int = 0
    name: str = ""
    reason: str = ""


class CapacityState(msgspec.Struct, kw_only=True):
    """The variant for the next launches of a queue.

    Attributes:
        variant: From 1 on.
        refusals: Refusals in a row of this variant.
        until: When the first variant is tried again; 0 while it is the present one.
        reason: Why the variant before was left; "" on the first.
        reported: The launch whose refusal or interruption was counted last.
    """

    variant: int = 1
    refusals: int = 0
    until: float = 0.0
    reason: str = ""
    reported: str = ""

    def note(self, report: CapacityReport, now: float) -> None:
        """Count what a launch says about the present variant; ignore what it says about another one."""
        self._return_to_first(report, now)
        if report.variant != self.variant:
            return
        if report.event is CapacityEvent.STARTED:
            self.refusals = 0
        elif report.event is not CapacityEvent.NONE and report.name != self.reported:
            self.reported = report.name
            self.refusals += 1
            if report.event is CapacityEvent.INTERRUPTED or self.refusals >= report.max_refusals:
                self._leave(report, now)

    def _return_to_first(self, report: CapacityReport, now: float) -> None:
        """Return to the first variant when its time has come. That is a trial: a single refusal ends it."""
        if self.variant == 1:
            return
        self.until = min(self.until, now + report.seconds)  # the clock may have gone back
        if now >= self.until or self.variant > report.variants:
            self.variant, self.refusals = 1, report.max_refusals - 1
            self.until, self.reason = 0.0, ""

    def _leave(self, report: CapacityReport, now: float) -> None:
        """Go to the next variant; after the last one the first follows."""
        self.variant = self.variant % report.variants + 1
        self.refusals = 0
        is_first = self.variant == 1
        self.until = 0.0 if is_first else now + report.seconds
        self.reason = "" if is_first else f"{report.event.value} on variant {report.variant}: {report.reason}"


def event_of_call(result: RunTaskResult) -> CapacityEvent:
    """Return what the answer to RunTask says about the variant of the call."""
    if result.kind is RunTaskResultKind.STARTED:
        return CapacityEvent.STARTED
    is_refused = result.kind is RunTaskResultKind.CAPACITY and result.cause in (None, Cause.CAPACITY)
    return CapacityEvent.REFUSED if is_refused else CapacityEvent.NONE


def event_of_end(observation: Observation) -> CapacityEvent:
    """Return what a description of a task says about the variant of its launch."""
    if observation.end_kind == "start_failure" and observation.cause is Cause.CAPACITY:
        return CapacityEvent.REFUSED
    is_interrupted = observation.has_ended and observation.stop_code == "SpotInterruption"
    return CapacityEvent.INTERRUPTED if is_interrupted else CapacityEvent.NONE
