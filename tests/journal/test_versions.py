"""Journals of every version are read and replayed by the present version."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from ecs_queue.journal import codec
from ecs_queue.journal.base import EVENT_VERSION
from ecs_queue.journal.codec import UndecodableEvent, decode_event
from ecs_queue.journal.jsonl import read_events
from ecs_queue.replay.decisions import REPLAYERS, replay_decisions
from tests.journal.golden_journal import expect_no_closing_line

GOLDEN = Path(__file__).parent / "golden"
EVENT: dict[str, Any] = {"v": EVENT_VERSION, "seq": "1-0.0", "at": 1.5, "name": "request.received", "id": "a"}


def test_there_is_a_golden_journal_of_every_version() -> None:
    assert {path.name for path in GOLDEN.iterdir()} == {f"v{version}.jsonl" for version in range(1, EVENT_VERSION + 1)}


@pytest.mark.parametrize("path", sorted(GOLDEN.iterdir()), ids=lambda path: path.stem)
def test_a_journal_of_any_version_is_replayed_as_identical(path: Path) -> None:
    report = replay_decisions(read_events(path, expect_no_closing_line))

    assert report.difference is None
    assert report.decision_counts.keys() == REPLAYERS.keys(), "a golden journal has every kind of decision"


@pytest.mark.parametrize("path", sorted(GOLDEN.iterdir()), ids=lambda path: path.stem)
def test_a_golden_journal_is_of_the_version_that_its_name_says(path: Path) -> None:
    found = {msgspec.json.decode(line)["v"] for line in path.read_bytes().splitlines()}

    assert found == {int(path.stem.removeprefix("v"))}


def test_an_older_event_is_upgraded_version_by_version(monkeypatch: pytest.MonkeyPatch) -> None:
    def second(event: dict[str, Any]) -> dict[str, Any]:
        return {**event, "name": event["name"].replace("received", "got")}

    def third(event: dict[str, Any]) -> dict[str, Any]:
        return {**event, "data": {"was": event["name"]}}

    monkeypatch.setattr(codec, "EVENT_VERSION", 3)
    monkeypatch.setattr(codec, "UPGRADES", {1: second, 2: third})

    from_first, from_second = decode_event({**EVENT, "v": 1}), decode_event({**EVENT, "v": 2})

    assert (from_first.v, from_first.data) == (3, {"was": "request.got"})
    assert (from_second.v, from_second.data) == (3, {"was": "request.received"})


def test_every_older_version_has_its_upgrade() -> None:
    assert set(codec.UPGRADES) == set(range(1, EVENT_VERSION))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"v": EVENT_VERSION + 1},
            f"event version {EVENT_VERSION + 1} is unknown, this ecs-queue knows versions up to {EVENT_VERSION}",
        ),
        ({"v": None}, 'with its version as "v"'),
        ({"v": True}, 'with its version as "v"'),
        ({"v": 0}, 'with its version as "v"'),
        ({"at": "yesterday"}, r"Expected `float`, got `str` - at `\$.at`"),
        ({"name": 3}, r"at `\$.name`"),
        ({"data": []}, r"at `\$.data`"),
    ],
)
def test_a_value_that_is_not_an_event_of_a_known_version_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UndecodableEvent, match=message):
        decode_event({**EVENT, **changes})


def test_members_of_a_later_minor_change_are_ignored() -> None:
    assert decode_event({**EVENT, "colour": "red"}).id == "a"
