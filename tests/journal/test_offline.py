"""Recorded decisions, decided again."""

from __future__ import annotations

import collections
from typing import Any

import pytest

from ecs_queue.core import decide
from ecs_queue.core.protocol import RefusalKind
from ecs_queue.core.verdict import Observation
from ecs_queue.journal.export import read_events
from ecs_queue.journal.offline import replay
from tests.journal.conftest import SECRET, ChaosRun


def _said(line: str) -> None:
    raise AssertionError(line)


def test_a_run_full_of_faults_is_decided_again_just_the_same(chaos: ChaosRun) -> None:
    report = replay(read_events(chaos.file, _said))

    assert report.difference is None
    assert report.requests == 300
    assert report.events == len(chaos.events)
    assert {"decision.call", "decision.look", "decision.step"} <= report.decisions.keys()
    kinds = collections.Counter(e.data["answer"]["kind"] for e in chaos.events if e.name == "decision.call")
    assert {"started", "capacity", "ambiguous"} <= kinds.keys(), "the run had no faults: it proves nothing"


def test_every_request_of_the_run_is_told_from_envelope_to_end(chaos: ChaosRun) -> None:
    told: dict[str, list[str]] = collections.defaultdict(list)
    for event in chaos.events:
        told[event.id].append(event.name)
    for record_id, result in chaos.results.items():
        names = told[record_id]
        assert names.count("request.submitted") == 1
        assert names.count("request.ended") >= 1
        assert names.count("launch.started") >= (1 if result.task_arn else 0)


def test_no_secret_is_in_the_exported_file(chaos: ChaosRun) -> None:
    text = chaos.file.read_text()

    assert SECRET not in text
    assert "DB_PASSWORD" in text


def _never(policy: str, seen: Observation) -> bool:
    return False


def test_with_a_changed_rule_for_relaunches_request_event_and_rule_are_named(
    chaos: ChaosRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decide, "may_relaunch", _never)

    difference = replay(read_events(chaos.file, _said)).difference

    assert difference is not None
    first = next(
        event
        for event in chaos.events
        if event.name == "decision.look" and (event.data["took"]["outcome"] or {}).get("retry")
    )
    assert (difference.id, difference.seq, difference.event) == (first.id, first.seq, "decision.look")
    assert (difference.rule, difference.recorded, difference.now) == ("may_relaunch", True, False)


def test_with_another_answer_to_lack_of_capacity_request_event_and_rule_are_named(
    chaos: ChaosRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = decide.after_call

    def changed(*inputs: Any) -> decide.AfterCall:
        decision = original(*inputs)
        if decision.refusal is RefusalKind.CAPACITY:
            return decide.AfterCall(write=decide.Write.UNSURE, reason=decision.reason, wait=decision.wait)
        return decision

    monkeypatch.setattr(decide, "after_call", changed)

    difference = replay(read_events(chaos.file, _said)).difference

    assert difference is not None
    first = next(
        event for event in chaos.events if event.name == "decision.call" and event.data["answer"]["kind"] == "capacity"
    )
    assert (difference.id, difference.seq, difference.rule) == (first.id, first.seq, "after_call")
    assert (difference.recorded["write"], difference.now["write"]) == ("refused", "unsure")
