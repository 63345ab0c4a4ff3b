"""Replays recorded decisions: the launcher's own rules, with the recorded clock, draws and answers.

What is compared is the recorded decision, member by member: members that a later version has added are not in the
record, and are no difference.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import msgspec

from ecs_queue.journal.base import JournalEvent
from ecs_queue.journal.redact import REDACTED
from ecs_queue.protocol import decisions as protocol_decisions
from ecs_queue.protocol.ecs_results import ListTasksResult, RunTaskResult
from ecs_queue.protocol.event_health import EventHealth
from ecs_queue.protocol.operations import ResultCode, TaskUpdate
from ecs_queue.protocol.record import Record
from ecs_queue.protocol.retry import Backoff, RecordedDraw

#: A rule's name, what was recorded of it, and what it says now.
Comparison = tuple[str, Any, Any]
#: What redaction may have taken out of the inputs, so that a sentence made of them differs.
_FREE_TEXT_FIELDS = frozenset({"reason"})


class DecisionDifference(msgspec.Struct, frozen=True, kw_only=True):
    """The first decision that differs. `rule`: the function's name; `recorded` and `now`: what it said."""

    id: str
    seq: str
    at: float
    event: str
    rule: str
    recorded: Any
    replayed: Any


class DecisionReplay(msgspec.Struct, frozen=True, kw_only=True):
    """What a replay found. `decisions`: how many were compared, by event; `requests`: how many had some."""

    event_count: int
    request_count: int
    decision_counts: dict[str, int]
    difference: DecisionDifference | None

    @property
    def decision_count(self) -> int:
        """Decisions in all."""
        return sum(self.decision_counts.values())


def replay_decisions(events: Iterable[JournalEvent]) -> DecisionReplay:
    """Decide again what was decided, until the first difference."""
    decisions: Counter[str] = Counter()
    requests: set[str] = set()
    seen = 0
    difference = None
    for event in events:
        seen += 1
        if event.name not in REPLAYERS:
            continue
        decisions[event.name] += 1
        requests.add(event.id)
        difference = compare_decision(event)
        if difference is not None:
            break
    return DecisionReplay(
        event_count=seen, request_count=len(requests), decision_counts=dict(decisions), difference=difference
    )


def compare_decision(event: JournalEvent) -> DecisionDifference | None:
    """Decide one recorded decision again; None when it is the same."""
    for rule, recorded, now in _replay_event(event):
        if not _is_same(recorded, now) and not _differs_by_redaction(event, recorded, now):
            return DecisionDifference(
                id=event.id, seq=event.seq, at=event.at, event=event.name, rule=rule, recorded=recorded, replayed=now
            )
    return None


def _replay_event(event: JournalEvent) -> Iterator[Comparison]:
    """The rules of this event in the order in which they build on each other."""
    try:
        yield from REPLAYERS[event.name](event.data)
    except Exception as error:  # noqa: BLE001 - a rule that cannot take what it once took has changed
        yield event.name, event.data.get("decision"), f"{type(error).__name__}: {error}"


def _replay_call(data: Mapping[str, Any]) -> Iterator[Comparison]:
    answer, backoff = msgspec.convert(data["result"], RunTaskResult), msgspec.convert(data["backoff"], Backoff)
    took = data["decision"]
    now = _to_builtins(protocol_decisions.decide_call(answer, _record(data), backoff, RecordedDraw(value=data["draw"])))
    yield "decide_call", _without_members(took, "wait"), now
    yield "Backoff.delay", took["wait"], now["wait"]


def _replay_conflict(data: Mapping[str, Any]) -> Iterator[Comparison]:
    asked = msgspec.convert(data["call_decision"], protocol_decisions.CallDecision)
    now = protocol_decisions.decide_conflict(asked, data["started_by"], data["conflicting_arns"], data["tasks"])
    yield "decide_conflict", data["decision"], _to_builtins(now)


def _replay_list(data: Mapping[str, Any]) -> Iterator[Comparison]:
    now = protocol_decisions.decide_list(
        msgspec.convert(data["result"], ListTasksResult), data["age"], data["retry_after"]
    )
    yield "decide_list", data["decision"], _to_builtins(now)


def _replay_poll(data: Mapping[str, Any]) -> Iterator[Comparison]:
    given = data["poll_input"]
    backoff, flow = (
        msgspec.convert(given["backoff"], Backoff),
        msgspec.convert(given.get("event_health"), EventHealth | None),
    )
    look = protocol_decisions.PollInput(**{**given, "record": _record(given), "backoff": backoff, "event_health": flow})
    took, now = data["decision"], _to_builtins(protocol_decisions.decide_poll(look, RecordedDraw(value=data["draw"])))
    yield "observe", took["observation"], now["observation"]
    yield "find_stop_cause", took["stop_cause"], now["stop_cause"]
    yield "is_new_observation", took["is_new"], now["is_new"]
    yield _wait_rule(look), took["wait"], now["wait"]
    told, tells = took["update"], now["update"]
    if told is not None and tells is not None:
        yield "may_relaunch", told["may_relaunch"], tells["may_relaunch"]
        yield "build_task_update", _without_members(told, "may_relaunch", "wait"), tells
        yield "Backoff.delay" if told["end_state"] else _wait_rule(look), told["wait"], tells["wait"]
    yield "decide_poll", told, tells


def _wait_rule(poll_input: protocol_decisions.PollInput) -> str:
    return "poll_interval" if poll_input.event_health is None else "trusted_poll_wait"


def _replay_missing(data: Mapping[str, Any]) -> Iterator[Comparison]:
    now = protocol_decisions.decide_missing(
        _record(data), data["missing_for"], data["grace"], data.get("ecs_reason", "")
    )
    yield "build_lost_update" if isinstance(now, TaskUpdate) else "decide_missing", data["decision"], _to_builtins(now)


def _replay_next_action(data: Mapping[str, Any]) -> Iterator[Comparison]:
    yield (
        "next_action",
        data["next_action"],
        protocol_decisions.next_action(data["operation"], ResultCode(data["code"])).value,
    )


REPLAYERS: dict[str, Callable[[Mapping[str, Any]], Iterator[Comparison]]] = {
    "decision.next_action": _replay_next_action,
    "decision.run_task": _replay_call,
    "decision.conflict": _replay_conflict,
    "decision.list_tasks": _replay_list,
    "decision.poll": _replay_poll,
    "decision.missing_task": _replay_missing,
}


def _record(data: Mapping[str, Any]) -> Record:
    return msgspec.convert(data["record"], Record)


def _to_builtins(decision: object) -> Any:
    return msgspec.to_builtins(decision)


def _without_members(decision: Mapping[str, Any], *members: str) -> dict[str, Any]:
    """What other rules have decided is compared by their names."""
    return {key: value for key, value in decision.items() if key not in members}


def _is_same(recorded: Any, replayed: Any, compare_text: bool = True) -> bool:
    """As JSON has them. A member that is not in the record was added by a later version."""
    if isinstance(recorded, dict) and isinstance(replayed, dict):
        members = [key for key in recorded if compare_text or key not in _FREE_TEXT_FIELDS]
        return all(_is_same(recorded[key], replayed.get(key), compare_text) for key in members)
    if isinstance(recorded, list) and isinstance(replayed, list | tuple):
        return len(recorded) == len(replayed) and all(
            _is_same(one, other, compare_text) for one, other in zip(recorded, replayed, strict=True)
        )
    return bool(recorded == replayed)


def _differs_by_redaction(event: JournalEvent, recorded: Any, replayed: Any) -> bool:
    """Whether a sentence of ECS's held a secret: made of what is left of it, the recorded words may differ."""
    return REDACTED in str(event.data) and _is_same(recorded, replayed, compare_text=False)
