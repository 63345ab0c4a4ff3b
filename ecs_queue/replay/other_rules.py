"""What other retry rules would have made of recorded ends of attempts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from ecs_queue.journal.base import JournalEvent
from ecs_queue.protocol.decisions import decide_poll
from ecs_queue.protocol.operations import EndRuling
from ecs_queue.protocol.record import Record
from ecs_queue.protocol.retry import Backoff, RecordedDraw
from ecs_queue.protocol.retry_rules import RetryRule, encode_retry_rules
from ecs_queue.protocol.runner_ends import decide_runner_end
from ecs_queue.protocol.runs import RunEnd
from ecs_queue.replay.decisions import read_poll_input


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What followed an attempt.

    Attributes:
        retries: Whether the request was launched again; else it ended.
        counts_attempt: Whether that used an attempt.
        wait: Seconds until then at least; 0 if it ended.
        retry_rule: The rule that decided, from 1 on; 0: the relaunch policy, or no attempt was left.
    """

    retries: bool
    counts_attempt: bool = False
    wait: float = 0.0
    retry_rule: int = 0


class AttemptComparison(msgspec.Struct, frozen=True, kw_only=True):
    """One attempt that ended: what followed, and what would have followed."""

    id: str
    at: float
    attempt: int
    exit_code: int | None
    stop_code: str
    reason: str
    recorded: Outcome
    now: Outcome

    @property
    def differs(self) -> bool:
        """Whether another launch would have followed, or none."""
        return msgspec.structs.replace(self.now, retry_rule=0) != msgspec.structs.replace(self.recorded, retry_rule=0)


def compare_rules(events: Iterable[JournalEvent], rules: Sequence[RetryRule]) -> list[AttemptComparison]:
    """Return each recorded end of an attempt with what these rules, in place of all others, would make of it.

    Only what was recorded can be compared: whatever other launches would have done is not known.
    """
    text, compared = encode_retry_rules(rules), []
    for event in events:
        if event.name == "decision.poll":
            found = _compare_poll(event, text)
        elif event.name == "decision.runner_end":
            found = _compare_runner_end(event, text)
        else:
            found = None
        if found is not None:
            compared.append(found)
    return compared


def _compare_poll(event: JournalEvent, rules: str) -> AttemptComparison | None:
    """None for a poll that showed no end, or the end of a runner's task, which its run decides."""
    recorded = event.data["decision"]["update"]
    poll_input = read_poll_input(event.data)
    if recorded is None or not recorded["end_state"] or poll_input.record.run:
        return None
    record = msgspec.structs.replace(poll_input.record, retry_rules=rules)
    replayed = decide_poll(msgspec.structs.replace(poll_input, record=record), RecordedDraw(value=event.data["draw"]))
    if replayed.update is None:
        return None
    update: dict[str, Any] = msgspec.to_builtins(replayed.update)
    return AttemptComparison(
        id=event.id,
        at=event.at,
        attempt=record.attempt,
        exit_code=recorded["exit_code"],
        stop_code=recorded["stop_code"],
        reason=recorded["reason"],
        recorded=_task_outcome(record, recorded, event.data["decision"].get("retry_rule", 0)),
        now=_task_outcome(record, update, replayed.retry_rule),
    )


def _task_outcome(record: Record, update: Mapping[str, Any], retry_rule: int) -> Outcome:
    """The ledger's part of the decision: no retry after a stop, nor without an attempt that is left."""
    counts = update.get("counts_attempt", True)
    return _outcome(record, update["may_relaunch"], counts, update["wait"], update["max_attempts"], retry_rule)


def _outcome(
    record: Record, retries: bool, counts_attempt: bool, wait: float, max_attempts: int, retry_rule: int
) -> Outcome:
    has_attempts = record.attempt < max(1, max_attempts) or not counts_attempt
    if not retries or record.stop_requested_by:
        return Outcome(retries=False, retry_rule=retry_rule)
    if not has_attempts:
        return Outcome(retries=False)
    return Outcome(retries=True, counts_attempt=counts_attempt, wait=wait, retry_rule=retry_rule)


def _compare_runner_end(event: JournalEvent, rules: str) -> AttemptComparison:
    data, record = event.data, msgspec.convert(event.data["record"], Record)
    end, backoff = msgspec.convert(data["end"], RunEnd), msgspec.convert(data["backoff"], Backoff)
    other = msgspec.structs.replace(record, retry_rules=rules or "[]")  # the policy alone decides
    now = decide_runner_end(other, end, backoff, RecordedDraw(value=data["draw"]))
    before = data["decision"]
    return AttemptComparison(
        id=event.id,
        at=event.at,
        attempt=record.attempt,
        exit_code=end.exit_code,
        stop_code="",
        reason="",
        recorded=_end_outcome(record, EndRuling(before["ruling"]), before["wait"], before["retry_rule"]),
        now=_end_outcome(record, now.ruling, now.wait, now.retry_rule),
    )


def _end_outcome(record: Record, ruling: EndRuling, wait: float, retry_rule: int) -> Outcome:
    retries = ruling in (EndRuling.RETRY, EndRuling.RETRY_UNCOUNTED)
    return _outcome(record, retries, ruling is not EndRuling.RETRY_UNCOUNTED, wait, record.max_attempts, retry_rule)
