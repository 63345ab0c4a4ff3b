"""Recorded decisions, decided again: the same as long as the rules are, and the changed rule is named."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from ecs_queue.core import decide
from ecs_queue.core.decide import Step, Write
from ecs_queue.core.retry import Backoff
from ecs_queue.journal import JournalEvent
from ecs_queue.journal.export import read_events
from ecs_queue.journal.offline import compare, replay
from ecs_queue.journal.redact import redact
from tests.journal.conftest import SECRET, ChaosRun

GOLDEN = Path(__file__).parent / "golden" / "v1.jsonl"
Change = Callable[[Any], Any]


def _said(line: str) -> None:
    raise AssertionError(line)


def golden() -> list[JournalEvent]:
    return list(read_events(GOLDEN, _said))


def changed(rule: Callable[..., Any], change: Change) -> Callable[..., Any]:
    """The rule, with another decision."""
    return lambda *inputs: change(rule(*inputs))


def with_(**members: Any) -> Change:
    return lambda decision: msgspec.structs.replace(decision, **members)


#: rule -> where it is called, how its decision is changed, and by which event that shows.
CHANGES: dict[str, tuple[Any, Change, str]] = {
    "after_call": (decide, with_(write=Write.UNSURE), "decision.call"),
    "after_conflict": (decide, with_(write=Write.UNSURE, arn=""), "decision.conflict"),
    "after_list": (decide, with_(arn="arn:other"), "decision.list"),
    "observe": (decide, lambda seen: dataclasses.replace(seen, exit_code=99), "decision.look"),
    "must_stop": (decide, lambda why: "nobody", "decision.look"),
    "is_news": (decide, lambda is_new: not is_new, "decision.look"),
    "poll_interval": (decide, lambda seconds: seconds + 1, "decision.look"),
    "may_relaunch": (decide, lambda is_safe: not is_safe, "decision.look"),
    "outcome_of": (decide, with_(by_user=True), "decision.look"),
    "lost_outcome": (decide, with_(reason="gone"), "decision.missing"),
    "after_missing": (decide, lambda outcome: 1.0, "decision.missing"),
    "next_step": (decide, lambda step: Step.STOP, "decision.step"),
    "delay": (Backoff, lambda seconds: seconds + 0.001, "decision.look"),
}


@pytest.mark.parametrize("rule", CHANGES)
def test_a_changed_rule_is_named_with_the_first_request_and_event_that_it_shows_in(
    monkeypatch: pytest.MonkeyPatch, rule: str
) -> None:
    place, change, name = CHANGES[rule]
    monkeypatch.setattr(place, rule, changed(getattr(place, rule), change))

    difference = replay(golden()).difference

    assert difference is not None
    assert (difference.rule.rpartition(".")[2], difference.event) == (rule, name)
    assert difference.recorded != difference.now
    differing = [event for event in golden() if event.name in (name,) and compare(event) is not None]
    assert (difference.id, difference.seq) == (differing[0].id, differing[0].seq)


def test_a_rule_that_cannot_take_what_it_once_took_is_a_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*inputs: object) -> None:
        raise KeyError("colour")

    monkeypatch.setattr(decide, "after_list", broken)

    difference = replay(golden()).difference

    assert difference is not None
    assert (difference.event, difference.now) == ("decision.list", "KeyError: 'colour'")


def test_it_stops_at_the_first_difference_and_counts_what_it_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decide, "after_conflict", changed(decide.after_conflict, with_(wait=9.75)))

    report = replay(golden())

    assert report.decisions["decision.conflict"] == 1
    assert report.events < len(golden())


def test_a_member_that_a_later_version_adds_is_no_difference() -> None:
    event = next(event for event in golden() if event.name == "decision.call")
    took = {key: value for key, value in event.data["took"].items() if key != "opens_circuit"}

    assert compare(msgspec.structs.replace(event, data={**event.data, "took": took})) is None


def test_words_that_hid_a_secret_may_differ_but_not_what_was_decided() -> None:
    """The recorded reason was cut before it was redacted, the replayed one after."""
    event = next(event for event in golden() if event.name == "decision.look" and event.data["took"]["seen"]["reason"])
    said = "x" * 980 + " postgres://jobs:hunter2@db.example.com/jobs"
    data = msgspec.json.decode(msgspec.json.encode(event.data))
    data["look"]["task"]["stoppedReason"] = said
    data["took"]["seen"]["reason"] = data["took"]["outcome"]["reason"] = said[:1000]
    hidden = msgspec.structs.replace(event, data=redact(data))

    assert compare(hidden) is None
    hidden.data["took"]["outcome"]["retry"] = not hidden.data["took"]["outcome"]["retry"]
    found = compare(hidden)
    assert found is not None
    assert found.rule == "may_relaunch"


def test_events_that_are_no_decisions_are_passed_over() -> None:
    report = replay([JournalEvent(v=1, seq="1-0.0", at=1.0, name="some.later.event", data={"x": 1})])

    assert (report.events, report.compared, report.difference) == (1, 0, None)


def test_a_run_full_of_faults_is_decided_again_just_the_same_until_a_rule_is_changed(
    chaos: ChaosRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    _is_told_from_envelope_to_end(chaos)
    assert SECRET not in chaos.file.read_text()
    assert "DB_PASSWORD" in chaos.file.read_text()

    report = replay(read_events(chaos.file, _said))

    assert report.difference is None
    assert (report.requests, report.events) == (300, len(chaos.events))
    kinds = collections.Counter(e.data["answer"]["kind"] for e in chaos.events if e.name == "decision.call")
    assert {"started", "capacity", "ambiguous"} <= kinds.keys(), "the run had no faults: it proves nothing"

    monkeypatch.setattr(decide, "may_relaunch", lambda policy, seen: False)
    difference = replay(read_events(chaos.file, _said)).difference

    assert difference is not None
    first = next(
        e for e in chaos.events if e.name == "decision.look" and (e.data["took"]["outcome"] or {}).get("retry")
    )
    assert (difference.id, difference.seq, difference.event) == (first.id, first.seq, "decision.look")
    assert (difference.rule, difference.recorded, difference.now) == ("may_relaunch", True, False)


def _is_told_from_envelope_to_end(chaos: ChaosRun) -> None:
    told: dict[str, list[str]] = collections.defaultdict(list)
    for event in chaos.events:
        told[event.id].append(event.name)
    for record_id, result in chaos.results.items():
        names = told[record_id]
        assert names.count("request.submitted") == 1
        assert names.count("request.ended") >= 1
        assert names.count("launch.started") >= (1 if result.task_arn else 0)
    assert not [event for event in chaos.events if event.name == "journal.dropped"]
