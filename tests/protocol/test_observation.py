"""What descriptions of a task mean: those that ECS is known to return, and laws for every subset of their keys."""

from __future__ import annotations

import datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecs_queue.protocol.observation import observe, parse_timestamp
from ecs_queue.tasks import EcsTaskState

ARN = "arn:aws:ecs:eu-central-1:123456789012:task/jobs/0123456789abcdef0123456789abcdef"
STARTED = 1_700_000_000.25
OOM = "OutOfMemoryError: Container killed due to memory usage"


def container(name: str = "main", exit_code: int | None = None, reason: str | None = None) -> dict[str, Any]:
    shown: dict[str, Any] = {"name": name, "lastStatus": "STOPPED"}
    if exit_code is not None:
        shown["exitCode"] = exit_code
    if reason is not None:
        shown["reason"] = reason
    return shown


def stopped(*containers: dict[str, Any], started: bool = True, **more: Any) -> dict[str, Any]:
    task = {
        "taskArn": ARN,
        "version": 7,
        "lastStatus": "STOPPED",
        "desiredStatus": "STOPPED",
        "containers": list(containers),
        "stopCode": "EssentialContainerExited",
        "stoppedReason": "Essential container in task exited",
        "stoppedAt": STARTED + 9,
        **more,
    }
    if started:
        task["startedAt"] = STARTED
    return {key: value for key, value in task.items() if value is not None}


@pytest.mark.parametrize(
    ("last_status", "started", "state"),
    [
        ("PROVISIONING", False, EcsTaskState.QUEUED),
        ("PENDING", False, EcsTaskState.QUEUED),
        ("ACTIVATING", False, EcsTaskState.QUEUED),
        ("RUNNING", True, EcsTaskState.RUNNING),
        ("RUNNING", False, EcsTaskState.RUNNING),
        ("DEACTIVATING", True, EcsTaskState.RUNNING),
        ("STOPPING", True, EcsTaskState.RUNNING),
        ("DEPROVISIONING", True, EcsTaskState.RUNNING),
        ("DEPROVISIONING", False, EcsTaskState.QUEUED),
        ("", False, EcsTaskState.QUEUED),
    ],
)
def test_before_stopped_it_has_not_ended(last_status: str, started: bool, state: EcsTaskState) -> None:
    task = stopped(container(exit_code=0), started=started, lastStatus=last_status, stoppedReason=None)
    observation = observe(task, "main")
    assert (observation.has_ended, observation.end_kind, observation.state, observation.reason) == (
        False,
        None,
        state,
        "",
    )


@pytest.mark.parametrize("last_status", ["STOPPED", "DELETED"])
@pytest.mark.parametrize(("code", "state"), [(0, "success"), (3, "failed"), (137, "failed")])
def test_the_main_containers_exit_code_decides(last_status: str, code: int, state: str) -> None:
    observation = observe(stopped(container(exit_code=code), lastStatus=last_status), "main")
    assert (observation.has_ended, observation.end_kind, observation.state, observation.exit_code) == (
        True,
        "ran",
        state,
        code,
    )


def test_a_killed_sidecar_does_not_fail_the_main_container() -> None:
    observation = observe(stopped(container(exit_code=0), container("sidecar", 137)), "main")
    assert (observation.end_kind, observation.state, observation.exit_code) == ("ran", EcsTaskState.SUCCESS, 0)


def test_a_healthy_sidecar_does_not_save_the_main_container() -> None:
    observation = observe(stopped(container("sidecar", 0), container(exit_code=3)), "main")
    assert (observation.state, observation.exit_code) == (EcsTaskState.FAILED, 3)


@pytest.mark.parametrize(
    ("codes", "state", "exit_code"),
    [
        ((0, 0), "success", 0),
        ((0, 137), "failed", 137),
        ((0, None), "failed", None),
        ((None, 2), "failed", 2),
    ],
)
def test_without_a_name_all_containers_decide(codes: tuple[int | None, ...], state: str, exit_code: int | None) -> None:
    task = stopped(*(container(f"c{number}", code) for number, code in enumerate(codes)))
    observation = observe(task, None)
    assert (observation.end_kind, observation.state, observation.exit_code) == ("ran", state, exit_code)


def test_a_stopped_task_without_exit_codes_is_not_running() -> None:
    observation = observe(stopped(container()), "main")
    assert (observation.end_kind, observation.state, observation.exit_code) == ("ran", EcsTaskState.FAILED, None)
    assert "no exit code" in observation.reason


@pytest.mark.parametrize(
    ("stop_code", "containers"),
    [
        ("TaskFailedToStart", []),
        ("TaskFailedToStart", [container(reason="CannotPullContainerError: no such image")]),
        ("TaskFailedToStart", [container(exit_code=127, reason="CannotStartContainerError: not found")]),
        ("TaskFailedToStart", [container(), container("sidecar", 1)]),
        ("EssentialContainerExited", [container()]),
        ("SpotInterruption", []),
        (None, []),
    ],
)
def test_a_task_that_never_started_is_a_start_failure(stop_code: str | None, containers: list[dict[str, Any]]) -> None:
    observation = observe(stopped(*containers, started=False, stopCode=stop_code), "main")
    assert (observation.end_kind, observation.state, observation.exit_code) == (
        "start_failure",
        EcsTaskState.REMOVED,
        None,
    )


def test_a_start_failure_after_the_main_container_ran_is_no_start_failure() -> None:
    task = stopped(container(exit_code=4), container("late"), started=False, stopCode="TaskFailedToStart")
    observation = observe(task, "main")
    assert (observation.end_kind, observation.state, observation.exit_code) == ("ran", EcsTaskState.FAILED, 4)


def test_a_task_shown_without_its_containers_may_have_run() -> None:
    observation = observe({"taskArn": ARN, "lastStatus": "STOPPED", "desiredStatus": "STOPPED"}, "main")
    assert (observation.has_ended, observation.end_kind, observation.state) == (True, "ran", EcsTaskState.FAILED)


@pytest.mark.parametrize(
    "words",
    [
        {"stopCode": "SpotInterruption", "stoppedReason": "Your Spot Task was interrupted."},
        {"stopCode": "TerminationNotice"},
        {"stopCode": "InfrastructureHealth"},
        {"stopCode": None, "stoppedReason": "Host EC2 (instance i-0123456789abcdef0) terminated."},
        {"stopCode": None, "stoppedReason": "Host EC2 (instance i-0123456789abcdef0) stopped."},
        {"stopCode": None, "stoppedReason": "Your Spot Task was interrupted."},
    ],
)
@pytest.mark.parametrize(
    ("code", "end", "state"),
    [(137, "interrupted", "failed"), (None, "interrupted", "failed"), (0, "ran", "success")],
)
def test_a_lost_host_interrupts_unless_the_program_ended_well(
    words: dict[str, Any], code: int | None, end: str, state: str
) -> None:
    observation = observe(stopped(container(exit_code=code), **words), "main")
    assert (observation.end_kind, observation.state, observation.exit_code) == (end, state, code)


@pytest.mark.parametrize(
    ("code", "started", "state"),
    [(143, True, "failed"), (0, True, "success"), (None, True, "failed"), (None, False, "removed")],
)
def test_a_stop_by_the_user_keeps_the_real_exit(code: int | None, started: bool, state: str) -> None:
    observation = observe(stopped(container(exit_code=code), started=started, stopCode="UserInitiated"), "main")
    assert (observation.end_kind, observation.stop_code, observation.exit_code, observation.state) == (
        "stopped",
        "UserInitiated",
        code,
        state,
    )


@pytest.mark.parametrize(
    ("task", "reason"),
    [
        (stopped(container(exit_code=3)), "Essential container in task exited (container main: exit 3)"),
        (
            stopped(container(exit_code=137, reason=OOM)),
            f"Essential container in task exited (container main: {OOM}, exit 137)",
        ),
        (
            stopped(container(reason="CannotPullContainerError: x"), started=False, stoppedReason=None),
            "The task never started, ECS gives no reason (container main: CannotPullContainerError: x)",
        ),
        (
            stopped(container(), container("init", 1), started=False, stoppedReason="Task failed to start"),
            "Task failed to start (container init: exit 1)",
        ),
        (
            stopped(container(exit_code=1, reason="exited")),
            "Essential container in task exited (container main: exit 1)",
        ),
    ],
)
def test_the_reason_is_for_people(task: dict[str, Any], reason: str) -> None:
    assert observe(task, "main").reason == reason


VICTIM = container(exit_code=143)


@pytest.mark.parametrize(
    ("containers", "named"),
    [
        ((VICTIM, container("log", 1, OOM)), f"container log: {OOM}, exit 1; container main: exit 143"),
        (
            (container("log", 137, OOM), container(exit_code=1)),
            f"container log: {OOM}, exit 137; container main: exit 1",
        ),
        ((VICTIM, container("log", 1)), "container log: exit 1; container main: exit 143"),
        ((container("log", 1), container(exit_code=137)), "container log: exit 1; container main: exit 137"),
        ((VICTIM, container("log", 0)), "container log: exit 0; container main: exit 143"),
        ((VICTIM, container("init", 0), container("log", 2)), "container log: exit 2; container main: exit 143"),
        ((VICTIM, container("log", 143)), "container main: exit 143"),
        # What ended by itself is no victim.
        ((container(exit_code=3), container("log", 1)), "container main: exit 3"),
        ((container(exit_code=137, reason=OOM), container("log", 1)), f"container main: {OOM}, exit 137"),
        ((container(exit_code=137), container("init", 0)), "container main: exit 137"),
        ((container(exit_code=0), container("log", 1, OOM)), "container main: exit 0"),
    ],
)
def test_the_container_that_ended_the_task_is_named_first(containers: tuple[dict[str, Any], ...], named: str) -> None:
    observation = observe(stopped(*containers), "main")
    assert observation.reason == f"Essential container in task exited ({named})"


@given(
    victim=st.sampled_from([137, 143]), code=st.integers(1, 255), reason=st.none() | st.just(OOM), first=st.booleans()
)
def test_a_side_car_that_ended_the_task_is_named_wherever_it_stands(
    victim: int, code: int, reason: str | None, first: bool
) -> None:
    containers = [container("log", code, reason), container(exit_code=victim)]
    shown = observe(stopped(*(containers if first else containers[::-1])), "main").reason
    assert ("container log" in shown) == (reason is not None or code not in (137, 143))


def test_a_stop_by_the_user_names_no_other_container() -> None:
    task = stopped(VICTIM, container("log", 1), stopCode="UserInitiated", stoppedReason="by me")
    assert observe(task, "main").reason == "by me (container main: exit 143)"


def test_a_running_tasks_reason_is_why_it_will_stop() -> None:
    notice = "Your Spot Task was interrupted."
    task = stopped(lastStatus="RUNNING", stopCode="TerminationNotice", stoppedReason=notice)
    observation = observe(task, "main")
    assert (observation.end_kind, observation.stop_code, observation.reason) == (None, "TerminationNotice", notice)


def test_an_endless_reason_is_cut() -> None:
    assert len(observe(stopped(container(exit_code=1), stoppedReason="x" * 5000), "main").reason) == 1000


def test_identity_version_and_statuses_are_taken_over() -> None:
    observation = observe(stopped(container(exit_code=0)), "main")
    assert (observation.arn, observation.version, observation.last_status, observation.desired_status) == (
        ARN,
        7,
        "STOPPED",
        "STOPPED",
    )
    assert observe({}, None).version == 0


UTC_TIME = datetime.datetime.fromtimestamp(STARTED, datetime.UTC)


@pytest.mark.parametrize(
    "shown",
    [
        STARTED,
        UTC_TIME,
        UTC_TIME.replace(tzinfo=None),
        "2023-11-14T22:13:20.25Z",
        "2023-11-14T23:13:20.250+01:00",
    ],
)
def test_every_spelling_of_a_time_is_the_same_second(shown: object) -> None:
    assert observe(stopped(container(exit_code=0), startedAt=shown, stoppedAt=shown), "main").started_at == STARTED
    assert parse_timestamp(shown) == STARTED


@pytest.mark.parametrize(
    "shown",
    [None, "", "soon", (), -1, 10**400, 253_402_300_800, float("nan"), "1969-12-31T23:59:59Z", "0001-01-01"],
    ids=lambda shown: f"{shown!r:.30}",
)
def test_what_is_no_time_is_none(shown: object) -> None:
    assert parse_timestamp(shown) is None


CODES = st.none() | st.integers(0, 255)
CONTAINER = st.fixed_dictionaries(
    {},
    optional={
        "name": st.sampled_from(["main", "sidecar", "other"]),
        "exitCode": CODES,
        "reason": st.none() | st.sampled_from([OOM, "CannotStartContainerError: x", ""]),
    },
)
TASK = st.fixed_dictionaries(
    {},
    optional={
        "taskArn": st.just(ARN),
        "version": st.none() | st.integers(0, 99),
        "lastStatus": st.sampled_from(
            ["PROVISIONING", "PENDING", "ACTIVATING", "RUNNING", "DEACTIVATING", "STOPPING", "DEPROVISIONING"]
            + ["STOPPED", "DELETED"] * 4
        ),
        "desiredStatus": st.sampled_from(["RUNNING", "STOPPED"]),
        "containers": st.none() | st.lists(CONTAINER, max_size=3),
        "startedAt": st.none() | st.sampled_from([STARTED, UTC_TIME, UTC_TIME.isoformat(), "?"]),
        "stoppedAt": st.none() | st.just(STARTED),
        "stopCode": st.none()
        | st.sampled_from(
            [
                "TaskFailedToStart",
                "EssentialContainerExited",
                "UserInitiated",
                "ServiceSchedulerInitiated",
                "SpotInterruption",
                "TerminationNotice",
                "InfrastructureHealth",
            ]
        ),
        "stoppedReason": st.none() | st.sampled_from(["", "Host EC2 (instance i-1) terminated.", "x"]),
    },
)


@given(task=TASK, name=st.none() | st.sampled_from(["main", "absent"]))
def test_every_description_gets_a_consistent_observation(task: dict[str, Any], name: str | None) -> None:
    observation = observe(task, name)
    assert observation.has_ended == (task.get("lastStatus") in ("STOPPED", "DELETED"))
    assert observation.has_ended == (observation.end_kind is not None)
    assert observation.has_ended == (observation.state not in (EcsTaskState.QUEUED, EcsTaskState.RUNNING))
    assert not observation.has_ended or observation.reason
    if observation.state is EcsTaskState.SUCCESS:
        assert observation.exit_code == 0
    if observation.end_kind == "start_failure":
        assert (observation.state, observation.exit_code) == (EcsTaskState.REMOVED, None)
    if observation.end_kind == "interrupted":
        assert observation.state is EcsTaskState.FAILED
