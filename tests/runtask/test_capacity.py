"""Which launch quota a call takes."""

from __future__ import annotations

from typing import Any

import pytest

from ecs_queue.runtask.capacity import (
    LaunchQuota,
    launch_quota,
    leaves_capacity_to_the_cluster,
    profile_launch_quota,
)
from ecs_queue.runtask.profile import RunTaskProfile


def provider(name: str, **numbers: int) -> dict[str, Any]:
    return {"capacityProvider": name, **numbers}


@pytest.mark.parametrize(
    ("arguments", "quota"),
    [
        ({"launchType": "FARGATE"}, LaunchQuota.RUN_TASK),
        ({"launchType": "EC2"}, LaunchQuota.RUN_TASK),
        ({"launchType": "EXTERNAL"}, LaunchQuota.RUN_TASK),
        ({}, LaunchQuota.RUN_TASK),
        ({"capacityProviderStrategy": [provider("FARGATE_SPOT", weight=1)]}, LaunchQuota.FARGATE_SPOT),
        ({"capacityProviderStrategy": [provider("FARGATE_SPOT")]}, LaunchQuota.FARGATE_SPOT),
        ({"capacityProviderStrategy": [provider("FARGATE", weight=1)]}, LaunchQuota.RUN_TASK),
        ({"capacityProviderStrategy": [provider("my-instances", weight=1)]}, LaunchQuota.RUN_TASK),
        (
            {"capacityProviderStrategy": [provider("FARGATE_SPOT", weight=9), provider("FARGATE", weight=1)]},
            LaunchQuota.RUN_TASK,
        ),
        (
            {"capacityProviderStrategy": [provider("FARGATE_SPOT", weight=1), provider("FARGATE", base=1)]},
            LaunchQuota.RUN_TASK,
        ),
        (
            {"capacityProviderStrategy": [provider("FARGATE_SPOT", weight=1), provider("FARGATE", weight=0)]},
            LaunchQuota.FARGATE_SPOT,
        ),
    ],
)
def test_only_what_runs_on_spot_alone_takes_spots_quota(arguments: dict[str, Any], quota: LaunchQuota) -> None:
    assert launch_quota(arguments) is quota


def test_a_profile_has_the_quota_of_what_it_chooses() -> None:
    spot = (provider("FARGATE_SPOT", weight=1),)
    assert profile_launch_quota(RunTaskProfile("q")) is LaunchQuota.RUN_TASK
    assert profile_launch_quota(RunTaskProfile("q", capacity_provider_strategy=spot)) is LaunchQuota.FARGATE_SPOT
    kwargs = {"capacityProviderStrategy": list(spot)}
    assert profile_launch_quota(RunTaskProfile("q", run_task_kwargs=kwargs)) is LaunchQuota.FARGATE_SPOT
    both = {**kwargs, "launchType": "FARGATE"}
    assert profile_launch_quota(RunTaskProfile("q", run_task_kwargs=both)) is LaunchQuota.RUN_TASK


def test_where_nothing_is_chosen_the_clusters_default_decides() -> None:
    spot = (provider("FARGATE_SPOT", weight=1),)
    assert profile_launch_quota(RunTaskProfile("q", cluster_strategy=spot)) is LaunchQuota.FARGATE_SPOT
    chosen = RunTaskProfile("q", launch_type="FARGATE", cluster_strategy=spot)
    assert profile_launch_quota(chosen) is LaunchQuota.RUN_TASK


def test_a_cluster_is_asked_only_about_what_is_left_to_it() -> None:
    assert leaves_capacity_to_the_cluster(RunTaskProfile("q"))
    assert leaves_capacity_to_the_cluster(RunTaskProfile("q", capacity_provider_strategy=()))
    assert not leaves_capacity_to_the_cluster(RunTaskProfile("q", launch_type="EC2"))
    assert not leaves_capacity_to_the_cluster(RunTaskProfile("q", run_task_kwargs={"launchType": "EC2"}))
