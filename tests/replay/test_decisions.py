"""Replay of recorded decisions: no difference with unchanged rules, and a changed rule is named."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from ecs_queue.journal import JournalEvent
from ecs_queue.journal.jsonl import read_events
from ecs_queue.journal.redact import redact
from ecs_queue.protocol import decisions
from ecs_queue.protocol.decisions import LedgerWrite, NextAction
from ecs_queue.protocol.retry import Backoff
from ecs_queue.replay.decisions import compare_decision, replay_decisions
from tests.journal.golden_journal import expect_no_closing_line
from tests.replay.conftest import SECRET, RecordedRun

GOLDEN = Path(__file__).parents[1] / "journal" / "golden" / "v1.jsonl"
DecisionChange = Callable[[Any], Any]


def _fail_on_warning(line: str) -> None:
    raise AssertionError(line)


def golden() -> list[JournalEvent]:
    return list(read_events(GOLDEN, expect_no_closing_line))


def changed(rule: Callable[..., Any], change: DecisionChange) -> Callable[..., Any]:
    """Return the rule with a changed decision."""
    return lambda *inputs, **named: change(rule(*inputs, **named))


def with_(**members: Any) -> DecisionChange:
    return lambda decision: msgspec.structs.replace(decision, **members)


#: rule -> where it is called, the change of its decision, and the event that shows the difference.
CHANGES: dict[str, tuple[Any, DecisionChange, str]] = {
    "decide_call": (decisions, with_(write=LedgerWrite.CALL_AMBIGUOUS), "decision.run_task"),
    "decide_conflict": (decisions, with_(write=LedgerWrite.CALL_AMBIGUOUS, arn=""), "decision.conflict"),
    "decide_list": (decisions, with_(arn="arn:other"), "decision.list_tasks"),
    "observe": (decisions, lambda observation: dataclasses.replace(observation, exit_code=99), "decision.poll"),
    "find_stop_cause": (decisions, lambda why: "nobody", "decision.poll"),
    "is_new_observation": (decisions, lambda is_new: not is_new, "decision.poll"),
    "poll_interval": (decisions, lambda seconds: seconds + 1, "decision.poll"),
    "may_relaunch": (decisions, lambda is_safe: not is_safe, "decision.poll"),
    "build_task_update": (decisions, with_(stopped_by_user=True), "decision.poll"),
    "build_lost_update": (decisions, with_(reason="gone"), "decision.missing_task"),
    "decide_missing": (decisions, lambda outcome: 1.0, "decision.missing_task"),
    "next_action": (decisions, lambda step: NextAction.STOP_TASK, "decision.next_action"),
    "delay": (Backoff, lambda seconds: seconds + 0.001, "decision.poll"),
}


@pytest.mark.parametrize("rule", CHANGES)
def test_a_changed_rule_is_named_with_the_first_event_that_differs(monkeypatch: pytest.MonkeyPatch, rule: str) -> None:
    place, change, name = CHANGES[rule]
    monkeypatch.setattr(place, rule, changed(getattr(place, rule), change))

    difference = replay_decisions(golden()).difference

    assert difference is not None
    assert (difference.rule.rpartition(".")[2], difference.event) == (rule, name)
    assert difference.recorded != difference.replayed
    differing = [event for event in golden() if event.name in (name,) and compare_decision(event) is not None]
    assert (difference.id, difference.seq) == (differing[0].id, differing[0].seq)


def test_a_rule_that_fails_on_recorded_inputs_is_a_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*inputs: object) -> None:
        raise KeyError("colour")

    monkeypatch.setattr(decisions, "decide_list", broken)

    difference = replay_decisions(golden()).difference

    assert difference is not None
    assert (difference.event, difference.replayed) == ("decision.list_tasks", "KeyError: 'colour'")


def test_it_stops_at_the_first_difference_and_counts_what_it_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decisions, "decide_conflict", changed(decisions.decide_conflict, with_(wait=9.75)))

    replay = replay_decisions(golden())

    assert replay.decision_counts["decision.conflict"] == 1
    assert replay.event_count < len(golden())


def test_a_member_that_a_later_version_adds_is_no_difference() -> None:
    event = next(event for event in golden() if event.name == "decision.run_task")
    recorded = {key: value for key, value in event.data["decision"].items() if key != "opens_circuit"}

    assert compare_decision(msgspec.structs.replace(event, data={**event.data, "decision": recorded})) is None


def test_a_redacted_text_may_differ_but_not_the_decision() -> None:
    """The recorded reason was truncated before it was redacted, the replayed one after."""
    event = next(
        event for event in golden() if event.name == "decision.poll" and event.data["decision"]["observation"]["reason"]
    )
    stopped_reason = "x" * 980 + " postgres://jobs:hunter2@db.example.com/jobs"
    data = msgspec.json.decode(msgspec.json.encode(event.data))
    data["poll_input"]["task"]["stoppedReason"] = stopped_reason
    data["decision"]["observation"]["reason"] = data["decision"]["update"]["reason"] = stopped_reason[:1000]
    redacted = msgspec.structs.replace(event, data=redact(data))

    assert compare_decision(redacted) is None
    redacted.data["decision"]["update"]["may_relaunch"] = not redacted.data["decision"]["update"]["may_relaunch"]
    found = compare_decision(redacted)
    assert found is not None
    assert found.rule == "may_relaunch"


def test_events_that_are_no_decisions_are_skipped() -> None:
    replay = replay_decisions([JournalEvent(v=1, seq="1-0.0", at=1.0, name="some.later.event", data={"x": 1})])

    assert (replay.event_count, replay.decision_count, replay.difference) == (1, 0, None)


@pytest.mark.slow
def test_a_run_with_all_faults_is_replayed_without_difference_until_a_rule_changes(
    recorded_run: RecordedRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    _assert_events_are_complete(recorded_run)
    assert SECRET not in recorded_run.journal_file.read_text()
    assert "DB_PASSWORD" in recorded_run.journal_file.read_text()

    replay = replay_decisions(read_events(recorded_run.journal_file, _fail_on_warning))

    assert replay.difference is None
    assert (replay.request_count, replay.event_count) == (300, len(recorded_run.events))
    kinds = collections.Counter(e.data["result"]["kind"] for e in recorded_run.events if e.name == "decision.run_task")
    assert {"started", "capacity", "ambiguous"} <= kinds.keys(), "the run had no faults: it proves nothing"

    monkeypatch.setattr(decisions, "may_relaunch", lambda policy, observation: False)
    difference = replay_decisions(read_events(recorded_run.journal_file, _fail_on_warning)).difference

    assert difference is not None
    first = next(
        e
        for e in recorded_run.events
        if e.name == "decision.poll" and (e.data["decision"]["update"] or {}).get("may_relaunch")
    )
    assert (difference.id, difference.seq, difference.event) == (first.id, first.seq, "decision.poll")
    assert (difference.rule, difference.recorded, difference.replayed) == ("may_relaunch", True, False)


def _assert_events_are_complete(recorded_run: RecordedRun) -> None:
    event_names: dict[str, list[str]] = collections.defaultdict(list)
    for event in recorded_run.events:
        event_names[event.id].append(event.name)
    for record_id, result in recorded_run.results.items():
        names = event_names[record_id]
        assert names.count("request.submitted") == 1
        assert names.count("request.ended") >= 1
        assert names.count("launch.started") >= (1 if result.task_arn else 0)
    assert not [event for event in recorded_run.events if event.name == "journal.events_dropped"]
