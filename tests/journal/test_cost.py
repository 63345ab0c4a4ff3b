"""What the tasks of a journal used: each once, in Fargate's time, by group."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest

from ecs_queue.config.prices import Price
from ecs_queue.journal import cost
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


def test_the_idle_time_of_a_runner_is_a_row_of_its_own() -> None:
    rows = rows_of(
        event("runner.idle", 30, run="r", pool="p", turn=1),  # its first command took 20 s of the task's run
        event("launch.assigned", 50, launch=1, run="r", arn="arn:1"),
        event("runner.idle", 60, run="r", pool="p", turn=2),
        event("launch.assigned", 90, launch=1, run="r", arn="arn:1"),  # it stops at 100 with this command
        end_of(record={"run": "r"}),
    )
    assert [(row.use, row.tasks, row.vcpu_seconds) for row in rows] == [("run", 1, 40.0), ("idle", 1, 60.0)]


def test_without_a_runners_first_command_its_idle_time_is_not_known() -> None:
    meter = CostMeter()
    for each in (event("runner.idle", 60, run="r", pool="p", turn=2), end_of(record={"run": "r"})):
        meter.add(each)
    totals = meter.totals()
    assert (totals.idle_unknown, [row.use for row in totals.rows]) == (1, ["run"])


def test_a_runner_with_one_command_was_never_idle() -> None:
    assert [row.use for row in rows_of(end_of(record={"run": "r"}))] == ["run"]


def test_ends_that_no_key_verifies_are_counted() -> None:
    meter = CostMeter()
    forged = end_of()
    meter.add(event("decision.poll", verified=False, **forged.data))
    assert meter.totals().unverified == 1


def test_money_needs_a_price_of_the_capacity() -> None:
    uses = [
        TaskUse(group="etl", capacity="FARGATE", vcpus=2.0, gigabytes=4.0, seconds=1800.0, idle_seconds=900.0),
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
