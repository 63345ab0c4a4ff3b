"""Replays recorded decisions: the worker's own rules, with the recorded clock, random draws and ECS results.

The recorded decision is compared member by member. A member that a later version added is not in the record and does
not count as a difference.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import msgspec

from ecs_queue.error_text import typed_error_text
from ecs_queue.journal.base import JournalEvent
from ecs_queue.journal.redact import REDACTED
from ecs_queue.payload_repr import PayloadRepr
from ecs_queue.protocol import decisions as rules
from ecs_queue.protocol.ecs_results import ListTasksResult, RunTaskResult
from ecs_queue.protocol.event_health import EventHealth
from ecs_queue.protocol.operations import ResultCode, TaskUpdate
from ecs_queue.protocol.record import Record
from ecs_queue.protocol.retry import Backoff, RecordedDraw
from ecs_queue.protocol.runner_ends import decide_runner_end
from ecs_queue.protocol.runs import RunEnd

#: The name of a rule, its recorded decision, and its decision now.
Comparison = tuple[str, Any, Any]
#: Members made of ECS's text, which redaction may have changed in the inputs.
_FREE_TEXT_FIELDS = frozenset({"reason", "reasons"})


class DecisionDifference(PayloadRepr, msgspec.Struct, frozen=True, kw_only=True):
    """The first decision that differs.

    Attributes:
        id, seq, at, event: the request, and place, time and name of the event.
        rule: the name of the function.
        recorded, replayed: its recorded decision and its decision now.
    """

    id: str
    seq: str
    at: float
    event: str
    rule: str
    recorded: Any
    replayed: Any


class DecisionReplay(msgspec.Struct, frozen=True, kw_only=True):
    """The result of a replay.

    Attributes:
        event_count: events that were read.
        request_count: requests with at least one decision.
        decision_counts: compared decisions by event name.
        difference: the first difference; None if all decisions are the same.
    """

    event_count: int
    request_count: int
    decision_counts: dict[str, int]
    difference: DecisionDifference | None

    @property
    def decision_count(self) -> int:
        """The number of compared decisions."""
        return sum(self.decision_counts.values())


def replay_decisions(events: Iterable[JournalEvent]) -> DecisionReplay:
    """Repeat the recorded decisions and compare them, until the first difference."""
    decision_counts: Counter[str] = Counter()
    requests: set[str] = set()
    event_count = 0
    difference = None
    for event_count, event in enumerate(events, 1):  # noqa: B007 - the last number is the count
        if event.name not in REPLAYERS:
            continue
        decision_counts[event.name] += 1
        requests.add(event.id)
        difference = compare_decision(event)
        if difference is not None:
            break
    return DecisionReplay(
        event_count=event_count,
        request_count=len(requests),
        decision_counts=dict(decision_counts),
        difference=difference,
    )


def compare_decision(event: JournalEvent) -> DecisionDifference | None:
    """Repeat one recorded decision. Return None when it is the same."""
    for rule, recorded, now in _replay_event(event):
        if not _is_same(recorded, now) and not _differs_by_redaction(event, recorded, now):
            return DecisionDifference(
                id=event.id, seq=event.seq, at=event.at, event=event.name, rule=rule, recorded=recorded, replayed=now
            )
    return None


def _replay_event(event: JournalEvent) -> Iterator[Comparison]:
    """The rules of this event in the order in which they depend on each other."""
    try:
        yield from REPLAYERS[event.name](event.data)
    except Exception as error:  # noqa: BLE001 - a rule that fails on inputs that it once accepted has changed
        yield event.name, event.data.get("decision"), typed_error_text(error)


def _replay_call(data: Mapping[str, Any]) -> Iterator[Comparison]:
    result, backoff = msgspec.convert(data["result"], RunTaskResult), msgspec.convert(data["backoff"], Backoff)
    recorded = data["decision"]
    draw, chosen = RecordedDraw(value=data["draw"]), data.get("chosen", ())
    now = msgspec.to_builtins(rules.decide_call(result, _record(data), backoff, draw, chosen))
    yield "decide_call", _without_members(recorded, "wait"), now
    yield "Backoff.delay", recorded["wait"], now["wait"]


def _replay_conflict(data: Mapping[str, Any]) -> Iterator[Comparison]:
    call_decision = msgspec.convert(data["call_decision"], rules.CallDecision)
    now = rules.decide_conflict(call_decision, data["started_by"], data["conflicting_arns"], data["tasks"])
    yield "decide_conflict", data["decision"], msgspec.to_builtins(now)


def _replay_list(data: Mapping[str, Any]) -> Iterator[Comparison]:
    now = rules.decide_list(msgspec.convert(data["result"], ListTasksResult), data["age"], data["retry_after"])
    yield "decide_list", data["decision"], msgspec.to_builtins(now)


def read_poll_input(data: Mapping[str, Any]) -> rules.PollInput:
    """Return the inputs that a `decision.poll` recorded."""
    given = data["poll_input"]
    return rules.PollInput(
        **{
            **given,
            "record": _record(given),
            "backoff": msgspec.convert(given["backoff"], Backoff),
            "event_health": msgspec.convert(given.get("event_health"), EventHealth | None),
        }
    )


def _replay_poll(data: Mapping[str, Any]) -> Iterator[Comparison]:
    recorded, poll_input = data["decision"], read_poll_input(data)
    now = msgspec.to_builtins(rules.decide_poll(poll_input, RecordedDraw(value=data["draw"])))
    wait_rule = "poll_interval" if poll_input.event_health is None else "trusted_poll_wait"
    for rule, member in (
        ("observe", "observation"),
        ("find_stop_cause", "stop_cause"),
        ("is_new_observation", "is_new"),
        (wait_rule, "wait"),
    ):
        yield rule, recorded[member], now[member]
    before, after = recorded["update"], now["update"]
    if before is not None and after is not None:
        yield "may_relaunch", before["may_relaunch"], after["may_relaunch"]
        yield "build_task_update", _without_members(before, "may_relaunch", "wait"), after
        yield "Backoff.delay" if before["end_state"] else wait_rule, before["wait"], after["wait"]
    yield "decide_poll", before, after


def _replay_runner_end(data: Mapping[str, Any]) -> Iterator[Comparison]:
    end, backoff = msgspec.convert(data["end"], RunEnd), msgspec.convert(data["backoff"], Backoff)
    now = decide_runner_end(_record(data), end, backoff, RecordedDraw(value=data["draw"]))
    yield "decide_runner_end", data["decision"], msgspec.to_builtins(now)


def _replay_missing(data: Mapping[str, Any]) -> Iterator[Comparison]:
    now = rules.decide_missing(_record(data), data["missing_for"], data["grace"], data.get("ecs_reason", ""))
    rule = "build_lost_update" if isinstance(now, TaskUpdate) else "decide_missing"
    yield rule, data["decision"], msgspec.to_builtins(now)


def _replay_next_action(data: Mapping[str, Any]) -> Iterator[Comparison]:
    now = rules.next_action(data["operation"], ResultCode(data["code"]))
    yield "next_action", data["next_action"], now.value


REPLAYERS: dict[str, Callable[[Mapping[str, Any]], Iterator[Comparison]]] = {
    "decision.next_action": _replay_next_action,
    "decision.run_task": _replay_call,
    "decision.conflict": _replay_conflict,
    "decision.list_tasks": _replay_list,
    "decision.poll": _replay_poll,
    "decision.runner_end": _replay_runner_end,
    "decision.missing_task": _replay_missing,
}


def _record(data: Mapping[str, Any]) -> Record:
    return msgspec.convert(data["record"], Record)


def _without_members(decision: Mapping[str, Any], *members: str) -> dict[str, Any]:
    """Leave out what other rules decided: it is compared under their names."""
    return {key: value for key, value in decision.items() if key not in members}


def _is_same(recorded: Any, replayed: Any, compare_text: bool = True) -> bool:
    """Compare JSON values. A member that is not in the record was added by a later version."""
    if isinstance(recorded, dict) and isinstance(replayed, dict):
        members = [key for key in recorded if compare_text or key not in _FREE_TEXT_FIELDS]
        return all(_is_same(recorded[key], replayed.get(key), compare_text) for key in members)
    if isinstance(recorded, list) and isinstance(replayed, list | tuple):
        return len(recorded) == len(replayed) and all(
            _is_same(one, other, compare_text) for one, other in zip(recorded, replayed, strict=True)
        )
    return bool(recorded == replayed)


def _differs_by_redaction(event: JournalEvent, recorded: Any, replayed: Any) -> bool:
    """Whether only text differs, and the inputs had a secret: redaction may have changed a text of ECS."""
    return REDACTED in str(event.data) and _is_same(recorded, replayed, compare_text=False)
