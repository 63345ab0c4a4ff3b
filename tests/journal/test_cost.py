"""What the tasks of a journal used: each once, in Fargate's time, by group."""

from __future__ import annotations

import itertools
import json
from typing import Any

import msgspec
import pytest

from ecs_queue.config.prices import Price
from ecs_queue.journal import cost, runner_time
from ecs_queue.journal.base import JournalEvent
from ecs_queue.journal.cost import CostMeter, CostRow, TaskUse, total_use

START = 1_700_000_000.0
_numbers = itertools.count(1)


def event(name: str, at: float = 0.0, verified: bool | None = None, **data: Any) -> JournalEvent:
    return JournalEvent(
        v=1, seq=f"{next(_numbers)}-0.0", at=START + at, name=name, id="job", data=data, verified=verified
    )


def end_of(arn: str = "arn:1", *, record: dict[str, Any] | None = None, **task: Any) -> JournalEvent:
    """The poll that shows a stopped task: 1 vCPU, 2 GB, 100 s from its pull to its end."""
    times = {"pullStartedAt": START, "startedAt": START + 10, "stoppedAt": START + 100}
    described = {"lastStatus": "STOPPED", "cpu": "1024", "memory": "2048", "launchType": "FARGATE", **times, **task}
    inputs = {"record": {"id": "job", "queue": "etl", **(record or {})}, "task": described}
    return event("decision.poll", 100, arn=arn, status="STOPPED", poll_input=inputs)


def rows_of(*events: JournalEvent, by: str = "queue") -> list[CostRow]:
    meter = CostMeter(by)
    for each in events:
        meter.add(each)
    return meter.totals().rows


def test_a_task_counts_from_its_pull_to_its_end() -> None:
    assert rows_of(end_of()) == [
        CostRow(group="etl", capacity="FARGATE", use="run", tasks=1, vcpu_seconds=100.0, gb_seconds=200.0)
    ]


def test_an_end_that_two_workers_saw_counts_once() -> None:
    assert [row.tasks for row in rows_of(end_of(), end_of(), end_of("arn:2"))] == [2]


@pytest.mark.parametrize(
    ("task", "seconds"),
    [
        ({"stoppedAt": START + 12}, 60.0),
        ({"stoppedAt": START + 60.25}, 61.0),
        ({"stoppedAt": START + 12, "launchType": "EC2"}, 12.0),
        ({"pullStartedAt": None}, 90.0),
        ({"pullStartedAt": None, "startedAt": None}, 0.0),
        ({"stoppedAt": "2023-11-14T22:15:00Z"}, 100.0),
    ],
)
def test_the_billed_time_is_rounded_up_and_a_minute_at_least_on_fargate(task: dict[str, Any], seconds: float) -> None:
    assert [row.vcpu_seconds for row in rows_of(end_of(**task))] == [seconds]


@pytest.mark.parametrize(
    ("task", "capacity"),
    [
        ({"capacityProviderName": "FARGATE_SPOT"}, "FARGATE_SPOT"),
        ({"launchType": "EC2", "capacityProviderName": "mine"}, "mine"),
        ({"launchType": "EC2"}, "EC2"),
        ({"platformFamily": "Windows_Server_2022_Core"}, "FARGATE windows"),
    ],
)
def test_each_capacity_has_its_row(task: dict[str, Any], capacity: str) -> None:
    assert [row.capacity for row in rows_of(end_of(**task))] == [capacity]


def test_tasks_are_grouped_by_a_label() -> None:
    data = {"labels": json.dumps({"team": "data"})}
    rows = rows_of(end_of("a", record=data), end_of("b", record=data), end_of("c"), by="label:team")
    assert [(row.group, row.tasks) for row in rows] == [("", 1), ("data", 2)]


def test_a_task_that_runs_is_not_counted_and_said() -> None:
    meter = CostMeter()
    for each in (
        event("launch.started", launch=1, arn="arn:1"),
        event("launch.started", launch=1, arn="arn:2"),
        end_of("arn:1"),
        end_of("arn:2", lastStatus="RUNNING"),
    ):
        meter.add(each)
    totals = meter.totals()
    assert (totals.without_end, [row.tasks for row in totals.rows]) == (1, [1])


@pytest.mark.parametrize(
    "task",
    [
        {"cpu": None},
        {"memory": "much"},
        {"cpu": "nan"},
        {"memory": "-1"},
        {"cpu": "1e300"},
        {"stoppedAt": None},
        {"stoppedAt": 1e17},
    ],
)
def test_an_end_without_a_usable_size_or_time_is_counted_apart(task: dict[str, Any]) -> None:
    meter = CostMeter()
    meter.add(end_of(**task))
    totals = meter.totals()
    assert (totals.unusable, totals.rows) == (1, [])


@pytest.mark.parametrize("labels", ["{", "[]", '{"team": 1}'])
def test_broken_labels_are_counted_apart(labels: str) -> None:
    meter = CostMeter("label:team")
    meter.add(end_of(record={"labels": labels}))
    assert meter.totals().unusable == 1


def test_no_odd_data_breaks_a_meter() -> None:
    meter = CostMeter()
    for name in cost.EVENT_NAMES:
        meter.add(event(name))
        meter.add(event(name, poll_input=[1], run=None, arn=None, turn="x"))
    assert meter.totals().rows == []


def idle(turn: int, at: float, run: str = "r", **data: Any) -> JournalEvent:
    """A runner's command has ended."""
    return event("runner.idle", at, run=run, pool="etl.1", turn=turn, **data)


def assigned(at: float, run: str = "r") -> JournalEvent:
    """A runner gets another command."""
    return event("launch.assigned", at, launch=1, run=run, arn="arn:1")


def left(turn: int, closed: str = "left") -> JournalEvent:
    """The runner of `end_of` has left."""
    task = end_of().data["poll_input"]["task"]
    return event("runner.ended", 200, run="r", pool="etl.1", arn="arn:1", turn=turn, closed=closed, task=task)


def used(rows: list[CostRow]) -> list[tuple[str, str, int, float]]:
    return [(row.group, row.use, row.tasks, row.vcpu_seconds) for row in rows]


def test_the_idle_time_of_a_runner_is_a_row_of_its_own() -> None:
    rows = rows_of(
        idle(1, 30),  # its first command has its task since the pull: 30 s
        assigned(50),
        idle(2, 60),
        assigned(90),  # it stops at 100 with this command
        end_of(record={"run": "r"}),
    )
    assert used(rows) == [("etl", "run", 1, 50.0), ("etl", "idle", 1, 50.0)]


def test_a_runner_that_left_while_it_was_idle_counts_once_under_its_queue() -> None:
    rows = rows_of(event("launch.started", launch=1, arn="arn:1"), idle(1, 30), left(1), left(1))
    assert used(rows) == [("etl", "run", 1, 30.0), ("etl", "idle", 1, 70.0)]


def test_a_runner_that_left_is_no_task_without_an_end() -> None:
    meter = CostMeter()
    for each in (event("launch.started", launch=1, arn="arn:1"), left(0), assigned(50)):
        meter.add(each)
    assert meter.totals().without_end == 0


def test_the_poll_of_a_request_and_that_of_its_runner_tell_one_end() -> None:
    poll = end_of(record={"run": "r"})
    assert used(rows_of(poll, left(1))) == used(rows_of(poll)) == [("etl", "run", 1, 100.0)]


def test_a_command_that_its_runner_did_not_take_is_idle_time() -> None:
    rows = rows_of(idle(1, 30), assigned(50), left(2, closed="voided"))
    assert used(rows) == [("etl", "run", 1, 30.0), ("etl", "idle", 1, 70.0)]


def test_by_label_each_command_of_a_runner_counts_under_its_own() -> None:
    rows = rows_of(
        idle(1, 30, labels='{"team": "a"}'),
        assigned(50),
        idle(2, 60, labels='{"team": "b"}'),
        left(2),
        by="label:team",
    )
    assert used(rows) == [("", "idle", 1, 60.0), ("a", "run", 1, 30.0), ("b", "run", 1, 10.0)]


def test_by_label_the_idle_time_is_that_of_the_only_label() -> None:
    team = {"labels": '{"team": "a"}'}
    rows = rows_of(idle(1, 30, **team), assigned(50), idle(2, 60, **team), left(2), by="label:team")
    assert used(rows) == [("a", "run", 1, 40.0), ("a", "idle", 1, 60.0)]


def test_the_events_of_two_workers_may_come_in_another_order() -> None:
    in_order = [idle(1, 30), assigned(50), idle(2, 60), assigned(70), idle(3, 75), left(3)]
    swapped = [in_order[index] for index in (1, 0, 3, 2, 4, 5)]
    assert used(rows_of(*swapped)) == used(rows_of(*in_order)) == [("etl", "run", 1, 45.0), ("etl", "idle", 1, 55.0)]


@pytest.mark.parametrize(
    "events",
    [
        (idle(2, 60), end_of(record={"run": "r"})),
        (idle(2, 60), left(2)),
        (idle(1, 30), left(2)),  # the end of its second command is missing
        (idle(1, 30), idle(2, 60), left(2)),  # its beginning is
        (idle(1, 30), assigned(40), assigned(50), end_of(record={"run": "r"})),
        (assigned(40), end_of(record={"run": "r"})),
        (idle(1, 30, labels="{"), left(1)),
        (left(1),),
    ],
)
def test_where_an_event_of_a_runner_is_missing_its_idle_time_is_not_known(events: tuple[JournalEvent, ...]) -> None:
    meter = CostMeter("label:team")
    for each in events:
        meter.add(each)
    totals = meter.totals()
    assert (totals.idle_unknown, used(totals.rows)) == (1, [("", "run", 1, 100.0)])


def test_commands_take_no_more_than_the_time_of_their_task() -> None:
    (row,) = rows_of(idle(1, 30), assigned(50), idle(2, 500), left(2))
    assert row.use == "run"
    assert row.vcpu_seconds == pytest.approx(100.0)


def test_since_a_time_only_later_ends_count_with_what_their_runners_did_before() -> None:
    meter = CostMeter(since=START + 70)
    earlier = end_of("arn:old")
    for each in (
        event("launch.started", launch=1, arn="arn:0"),
        msgspec.structs.replace(earlier, at=START + 60),
        idle(1, 30),
        assigned(50),
        idle(2, 60),
        left(2),
    ):
        meter.add(each)
    totals = meter.totals()
    assert used(totals.rows) == [("etl", "run", 1, 40.0), ("etl", "idle", 1, 60.0)]
    assert (totals.idle_unknown, totals.without_end) == (0, 0)


def test_a_runner_with_one_command_was_never_idle() -> None:
    assert [row.use for row in rows_of(end_of(record={"run": "r"}))] == ["run"]


def test_what_is_remembered_of_a_runner_has_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner_time, "_MAX_GROUPS", 2)
    events = [idle(1, 1, labels='{"team": "t1"}')]
    for turn in range(2, 7):
        events += assigned(turn), idle(turn, turn + 0.5, labels=f'{{"team": "t{turn}"}}')
    rows = rows_of(*events, left(6), by="label:team")
    assert [row.group for row in rows if row.use == "run"] == ["(other)", "t1", "t2", "t3"]


def test_ends_that_no_key_verifies_are_counted() -> None:
    meter = CostMeter()
    forged = end_of()
    meter.add(event("decision.poll", verified=False, **forged.data))
    assert meter.totals().unverified == 1


def test_money_needs_a_price_of_the_capacity() -> None:
    uses = [
        TaskUse(group="etl", capacity="FARGATE", vcpus=2.0, gigabytes=4.0, seconds=900.0),
        TaskUse(group="etl", capacity="FARGATE", vcpus=2.0, gigabytes=4.0, seconds=900.0, use="idle"),
        TaskUse(group="etl", capacity="EC2", vcpus=2.0, gigabytes=4.0, seconds=1800.0),
    ]
    rows = total_use(uses, [Price("FARGATE", vcpu_hour=3.0, gb_hour=0.5)])
    assert [(row.capacity, row.use, row.cost) for row in rows] == [
        ("EC2", "run", None),
        ("FARGATE", "run", 2.0),
        ("FARGATE", "idle", 2.0),
    ]


def test_a_meter_remembers_a_bounded_number_of_tasks_and_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cost, "MAX_REMEMBERED", 3)
    monkeypatch.setattr(cost, "MAX_GROUPS", 2)
    meter = CostMeter()
    for number in range(10):
        meter.add(event("launch.started", launch=1, arn=f"open:{number}"))
        meter.add(end_of(f"arn:{number}", record={"queue": f"q{number}"}))
    totals = meter.totals()
    assert totals.without_end == 3
    assert [(row.group, row.tasks) for row in totals.rows] == [("(other)", 8), ("q0", 1), ("q1", 1)]
