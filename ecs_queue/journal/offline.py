"""Replays recorded decisions: the launcher's own rules, with the recorded clock, draws and answers.

What is compared is the recorded decision, member by member: members that a later version has added are not in the
record, and are no difference.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import msgspec

from ecs_queue.core import decide
from ecs_queue.core.answers import ListAnswer, RunAnswer
from ecs_queue.core.flow import Flow
from ecs_queue.core.protocol import Outcome, Word
from ecs_queue.core.record import Record
from ecs_queue.core.retry import Backoff, Draw
from ecs_queue.journal.base import JournalEvent
from ecs_queue.journal.redact import REDACTED

#: A rule's name, what was recorded of it, and what it says now.
Compared = tuple[str, Any, Any]
#: What redaction may have taken out of the inputs, so that a sentence made of them differs.
_WORDS = frozenset({"reason"})


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """The first decision that differs. `rule`: the function's name; `recorded` and `now`: what it said."""

    id: str
    seq: str
    at: float
    event: str
    rule: str
    recorded: Any
    now: Any


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What a replay found. `decisions`: how many were compared, by event; `requests`: how many had some."""

    events: int
    requests: int
    decisions: dict[str, int]
    difference: Difference | None

    @property
    def compared(self) -> int:
        """Decisions in all."""
        return sum(self.decisions.values())


def replay(events: Iterable[JournalEvent]) -> Report:
    """Decide again what was decided, until the first difference."""
    decisions: Counter[str] = Counter()
    requests: set[str] = set()
    seen = 0
    difference = None
    for event in events:
        seen += 1
        if event.name not in RULES:
            continue
        decisions[event.name] += 1
        requests.add(event.id)
        difference = compare(event)
        if difference is not None:
            break
    return Report(events=seen, requests=len(requests), decisions=dict(decisions), difference=difference)


def compare(event: JournalEvent) -> Difference | None:
    """Decide one recorded decision again; None when it is the same."""
    for rule, recorded, now in _decide_again(event):
        if not _is_same(recorded, now) and not _differs_by_redaction(event, recorded, now):
            return Difference(
                id=event.id, seq=event.seq, at=event.at, event=event.name, rule=rule, recorded=recorded, now=now
            )
    return None


def _decide_again(event: JournalEvent) -> Iterator[Compared]:
    """The rules of this event in the order in which they build on each other."""
    try:
        yield from RULES[event.name](event.data)
    except Exception as error:  # noqa: BLE001 - a rule that cannot take what it once took has changed
        yield event.name, event.data.get("took"), f"{type(error).__name__}: {error}"


def _call(data: Mapping[str, Any]) -> Iterator[Compared]:
    answer, backoff = msgspec.convert(data["answer"], RunAnswer), msgspec.convert(data["backoff"], Backoff)
    took = data["took"]
    now = _built(decide.after_call(answer, _record(data), backoff, Draw(value=data["draw"])))
    yield "after_call", _without(took, "wait"), now
    yield "Backoff.delay", took["wait"], now["wait"]


def _conflict(data: Mapping[str, Any]) -> Iterator[Compared]:
    asked = msgspec.convert(data["asked"], decide.AfterCall)
    now = decide.after_conflict(asked, data["wanted"], data["conflicting"], data["shown"])
    yield "after_conflict", data["took"], _built(now)


def _list(data: Mapping[str, Any]) -> Iterator[Compared]:
    now = decide.after_list(msgspec.convert(data["listed"], ListAnswer), data["age"], data["again"])
    yield "after_list", data["took"], _built(now)


def _look(data: Mapping[str, Any]) -> Iterator[Compared]:
    given = data["look"]
    backoff, flow = msgspec.convert(given["backoff"], Backoff), msgspec.convert(given.get("flow"), Flow | None)
    look = decide.Look(**{**given, "record": _record(given), "backoff": backoff, "flow": flow})
    took, now = data["took"], _built(decide.judge(look, Draw(value=data["draw"])))
    yield "observe", took["seen"], now["seen"]
    yield "must_stop", took["stop"], now["stop"]
    yield "is_news", took["news"], now["news"]
    yield _wait_rule(look), took["wait"], now["wait"]
    told, tells = took["outcome"], now["outcome"]
    if told is not None and tells is not None:
        yield "may_relaunch", told["retry"], tells["retry"]
        yield "outcome_of", _without(told, "retry", "wait"), tells
        yield "Backoff.delay" if told["end"] else _wait_rule(look), told["wait"], tells["wait"]
    yield "judge", told, tells


def _wait_rule(look: decide.Look) -> str:
    return "poll_interval" if look.flow is None else "next_look"


def _missing(data: Mapping[str, Any]) -> Iterator[Compared]:
    now = decide.after_missing(_record(data), data["gone_for"], data["grace"], data.get("why", ""))
    yield "lost_outcome" if isinstance(now, Outcome) else "after_missing", data["took"], _built(now)


def _step(data: Mapping[str, Any]) -> Iterator[Compared]:
    yield "next_step", data["step"], decide.next_step(data["operation"], Word(data["word"])).value


RULES: dict[str, Callable[[Mapping[str, Any]], Iterator[Compared]]] = {
    "decision.step": _step,
    "decision.call": _call,
    "decision.conflict": _conflict,
    "decision.list": _list,
    "decision.look": _look,
    "decision.missing": _missing,
}


def _record(data: Mapping[str, Any]) -> Record:
    return msgspec.convert(data["record"], Record)


def _built(decision: object) -> Any:
    return msgspec.to_builtins(decision)


def _without(decision: Mapping[str, Any], *members: str) -> dict[str, Any]:
    """What other rules have decided is compared by their names."""
    return {key: value for key, value in decision.items() if key not in members}


def _is_same(recorded: Any, now: Any, words_count: bool = True) -> bool:
    """As JSON has them. A member that is not in the record was added by a later version."""
    if isinstance(recorded, dict) and isinstance(now, dict):
        members = [key for key in recorded if words_count or key not in _WORDS]
        return all(_is_same(recorded[key], now.get(key), words_count) for key in members)
    if isinstance(recorded, list) and isinstance(now, list | tuple):
        return len(recorded) == len(now) and all(
            _is_same(one, other, words_count) for one, other in zip(recorded, now, strict=True)
        )
    return bool(recorded == now)


def _differs_by_redaction(event: JournalEvent, recorded: Any, now: Any) -> bool:
    """Whether a sentence of ECS's held a secret: made of what is left of it, the recorded words may differ."""
    return REDACTED in str(event.data) and _is_same(recorded, now, words_count=False)
