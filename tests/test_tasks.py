"""The reference API's types."""

from __future__ import annotations

import datetime
import itertools
import re
import sys
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ecs_queue.tasks import EcsExecutorTask, EcsQueuedTask, EcsTaskCollection, EcsTaskState
from tests.docs import DOCS

NOW = datetime.datetime(2025, 1, 1, tzinfo=datetime.UTC)
CONTAINERS: list[dict[str, Any]] = [{}, *({"exit_code": code} for code in (0, 3, None, "0"))]
STOPPING = ("DEACTIVATING", "STOPPING", "DEPROVISIONING", "STOPPED")


def task(last: str, desired: str, *containers: dict[str, Any], started: bool = True) -> EcsExecutorTask:
    return EcsExecutorTask("arn:1", last, desired, list(containers), started_at=NOW if started else None)


@pytest.mark.parametrize("status", ["PROVISIONING", "PENDING", "ACTIVATING"])
def test_a_task_that_is_being_provisioned_is_queued(status: str) -> None:
    assert task(status, "RUNNING", {}, started=False).get_task_state() == "queued"


@pytest.mark.parametrize("desired", ["RUNNING", "STOPPED"])
def test_a_running_task_is_running_even_when_its_stop_was_requested(desired: str) -> None:
    assert task("RUNNING", desired, {"exit_code": 0}).get_task_state() == "running"


@pytest.mark.parametrize("status", STOPPING)
@pytest.mark.parametrize("key", ["exit_code", "exitCode"])
def test_all_exit_codes_zero_is_success_in_both_spellings(status: str, key: str) -> None:
    assert task(status, "STOPPED", {key: 0}, {key: 0}).get_task_state() == "success"


@pytest.mark.parametrize("status", STOPPING)
def test_one_exit_code_above_zero_is_failed(status: str) -> None:
    assert task(status, "STOPPED", {"exitCode": 0}, {"exitCode": 3}).get_task_state() == "failed"


@pytest.mark.parametrize("containers", [(), ({},), ({"exitCode": None},), ({"exitCode": 0}, {})])
def test_a_stopped_task_without_all_exit_codes_failed_when_it_had_started(
    containers: tuple[Any, ...],
) -> None:
    assert task("STOPPED", "STOPPED", *containers).get_task_state() == "failed"


@pytest.mark.parametrize("containers", [(), ({},), ({"exit_code": 137}, {})])
def test_a_stopped_task_without_all_exit_codes_was_removed_when_it_never_started(
    containers: tuple[Any, ...],
) -> None:
    assert task("STOPPED", "STOPPED", *containers, started=False).get_task_state() == "removed"


@pytest.mark.parametrize("containers", [(), ({},), ({"exit_code": 0},), ({"exitCode": 137},)])
@pytest.mark.parametrize("last", ["PROVISIONING", "PENDING", "DEPROVISIONING", "STOPPED"])
def test_a_stop_before_the_start_is_removed_whatever_the_exit_codes(last: str, containers: tuple[Any, ...]) -> None:
    stopped = task(last, "STOPPED", *containers, started=False)
    stopped.stopped_reason = "Timeout waiting for network interface provisioning to complete."
    assert stopped.get_task_state() == "removed"


def _upstream_state(shown: EcsExecutorTask) -> str:
    """What the upstream executor answers."""
    if shown.last_status == "RUNNING":
        return "running"
    if shown.desired_status == "RUNNING":
        return "queued"
    is_finished = shown.desired_status == "STOPPED"
    if not shown.started_at and is_finished:
        return "removed"
    if not is_finished or not all("exit_code" in container for container in shown.containers):
        return "running"
    return "success" if all(container["exit_code"] == 0 for container in shown.containers) else "failed"


def _difference(shown: EcsExecutorTask) -> str:
    """The kind of difference that a description belongs to, in the words of docs/architecture.md."""
    codes = [container.get("exit_code") for container in shown.containers]
    if shown.last_status in ("STOPPED", "DELETED") and _upstream_state(shown) in ("queued", "running"):
        return "it has ended, and upstream calls it queued or running"
    if not codes:
        return "it was stopped after its start, and has no containers"
    if any(isinstance(code, str) for code in codes):
        return "an exit code is text"
    if any("exit_code" in container and container["exit_code"] is None for container in shown.containers):
        return "an exit code is `None`"
    return "unknown"


def test_every_difference_from_the_upstream_executor_is_in_the_table_of_the_docs() -> None:
    found = set()
    grid = itertools.product(
        ["PROVISIONING", "PENDING", "ACTIVATING", "RUNNING", *STOPPING, "DELETED"],
        ["RUNNING", "STOPPED", ""],
        [True, False],
        [[], *([container] for container in CONTAINERS), *itertools.combinations_with_replacement(CONTAINERS, 2)],
    )
    for last, desired, started, containers in grid:
        shown = task(last, desired, *containers, started=started)
        if shown.get_task_state() != _upstream_state(shown):
            found.add(_difference(shown))
    table = (DOCS / "architecture.md").read_text().split("## Where `EcsExecutorTask` differs")[1].split("\n## ")[0]
    listed = set(re.findall(r"^\| ([^|]+) \| .* \|$", table, re.MULTILINE)) - {"description"}
    assert found == listed


def test_a_started_task_that_is_stopping_runs_until_its_exit_codes_arrive() -> None:
    assert task("STOPPING", "STOPPED", {}).get_task_state() == "running"


def test_a_task_that_is_taken_down_before_it_started_is_removed() -> None:
    assert task("DEPROVISIONING", "STOPPED", {}, started=False).get_task_state() == "removed"


@settings(deadline=None)
@given(
    last=st.sampled_from(["STOPPED", "DELETED"]),
    desired=st.sampled_from(["RUNNING", "STOPPED", ""]),
    containers=st.lists(
        st.dictionaries(st.sampled_from(["exitCode", "exit_code", "name"]), st.none() | st.integers(0, 255))
    ),
    started=st.booleans(),
)
def test_an_ended_task_is_never_running_or_queued_and_success_needs_a_container(
    last: str, desired: str, containers: list[dict[str, Any]], started: bool
) -> None:
    state = task(last, desired, *containers, started=started).get_task_state()
    assert state in ("removed", "failed", "success")
    assert state == "removed" or started or desired != "STOPPED"
    assert state != "success" or containers


def test_a_state_prints_as_the_plain_string() -> None:
    assert f"{EcsTaskState.QUEUED}" == str(EcsTaskState.QUEUED) == "queued"
    assert {state.value for state in EcsTaskState} == {"queued", "running", "removed", "failed", "success"}


def test_from_boto_reads_what_describe_tasks_returns() -> None:
    made = EcsExecutorTask.from_boto(
        {
            "taskArn": "arn:2",
            "lastStatus": "STOPPED",
            "desiredStatus": "STOPPED",
            "containers": [{"name": "main", "exitCode": 3}],
            "startedAt": NOW,
            "stoppedReason": "Essential container in task exited",
        }
    )
    assert (made.task_arn, made.started_at, made.stopped_reason) == (
        "arn:2",
        NOW,
        "Essential container in task exited",
    )
    assert made.get_task_state() == "failed"


def test_from_boto_accepts_the_short_description_of_an_old_client_token() -> None:
    made = EcsExecutorTask.from_boto({"taskArn": "arn:2", "lastStatus": "STOPPED", "desiredStatus": "STOPPED"})
    assert made.containers == []
    assert made.get_task_state() == "removed"


def test_repr_names_arn_statuses_and_state() -> None:
    assert repr(task("PENDING", "RUNNING")) == "(arn:1, PENDING->RUNNING, queued)"


def collection(count: int = 1) -> EcsTaskCollection:
    tasks = EcsTaskCollection()
    for i in range(count):
        made = EcsExecutorTask(f"arn:{i}", "PENDING", "RUNNING", [{}])
        tasks.add_task(made, f"key{i}", "default", ["run", str(i)], {"cpu": i}, attempt_number=1)
    return tasks


def test_a_task_is_found_by_key_and_by_arn() -> None:
    tasks = collection(2)
    assert tasks.task_by_key("key1") is tasks.task_by_arn("arn:1") is tasks["arn:1"]
    assert len(tasks) == 2
    assert tasks.get_all_arns() == ["arn:0", "arn:1"]
    assert tasks.get_all_task_keys() == ["key0", "key1"]


def test_the_info_holds_command_queue_and_config() -> None:
    info = collection(2).info_by_key("key1")
    assert (info.cmd, info.queue, info.config) == (["run", "1"], "default", {"cpu": 1})


def test_an_update_replaces_the_task_of_the_same_arn() -> None:
    tasks = collection()
    newer = EcsExecutorTask("arn:0", "RUNNING", "RUNNING", [{}])
    tasks.update_task(newer)
    assert tasks.task_by_key("key0") is newer
    assert len(tasks) == 1


def test_the_failure_count_starts_at_the_attempt_number() -> None:
    tasks = collection()
    tasks.increment_failure_count("key0")
    assert tasks.failure_count_by_key("key0") == 2


def test_a_popped_task_is_gone_in_every_direction() -> None:
    tasks = collection(2)
    assert tasks.pop_by_key("key0").task_arn == "arn:0"
    assert len(tasks) == 1
    assert tasks.get_all_arns() == ["arn:1"]
    for method, key in ((tasks.task_by_key, "key0"), (tasks.info_by_key, "key0")):
        with pytest.raises(KeyError, match="key0"):
            method(key)
    with pytest.raises(KeyError, match="arn:0"):
        tasks["arn:0"]


@pytest.mark.parametrize(
    "method",
    [
        "task_by_key",
        "task_by_arn",
        "pop_by_key",
        "info_by_key",
        "failure_count_by_key",
        "increment_failure_count",
    ],
)
def test_a_missing_key_is_named_and_nothing_is_made_of_it(method: str) -> None:
    tasks = collection()
    with pytest.raises(KeyError) as caught:
        getattr(tasks, method)("unknown")
    assert caught.value.args == ("unknown",)
    assert (len(tasks), len(tasks.key_to_failure_counts)) == (1, 1)


def test_an_update_of_an_unknown_arn_names_it_and_adds_nothing() -> None:
    tasks = collection()
    with pytest.raises(KeyError, match="arn:9"):
        tasks.update_task(EcsExecutorTask("arn:9", "RUNNING", "RUNNING", []))
    assert len(tasks) == 1


def test_a_key_that_is_added_again_leaves_no_trace_of_its_old_task() -> None:
    tasks = collection()
    tasks.add_task(EcsExecutorTask("arn:new", "PENDING", "RUNNING", []), "key0", "q", ["x"], {}, 2)
    assert (len(tasks), tasks.get_all_arns(), tasks.failure_count_by_key("key0")) == (1, ["arn:new"], 2)


def test_an_arn_that_is_added_under_another_key_leaves_the_old_key() -> None:
    tasks = collection()
    tasks.add_task(EcsExecutorTask("arn:0", "PENDING", "RUNNING", []), "other", "q", ["x"], {}, 1)
    assert (len(tasks), tasks.get_all_task_keys()) == (1, ["other"])


def test_neither_tasks_nor_collection_carry_a_dictionary_each() -> None:
    tasks = collection()
    queued = EcsQueuedTask("k", ["x"], "q", {}, 1, NOW)
    assert not any(hasattr(item, "__dict__") for item in (tasks, tasks["arn:0"], tasks.info_by_key("key0"), queued))
    assert sys.getsizeof(tasks["arn:0"]) < 120
