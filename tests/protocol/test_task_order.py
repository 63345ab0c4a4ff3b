"""Which of two descriptions of a task is the later one."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from ecs_queue.protocol.task_order import STATUS_RANKS, compare_observations, status_rank
from ecs_queue.tasks import STOPPED_STATUSES

LIFE = ("", "PROVISIONING", "PENDING", "ACTIVATING", "RUNNING", "DEACTIVATING", "STOPPING", "DEPROVISIONING", "STOPPED")
VERSIONS = st.integers(0, 4)
STATUSES = st.sampled_from((*STATUS_RANKS, "", "of a newer API"))


def test_the_statuses_are_in_the_order_of_a_tasks_life() -> None:
    assert sorted(LIFE, key=status_rank) == list(LIFE)
    assert len({status_rank(status) for status in LIFE}) == len(LIFE)
    assert {status_rank(status) for status in STOPPED_STATUSES} == {status_rank("STOPPED")}


@given(version=VERSIONS, status=STATUSES, known_version=VERSIONS, known_status=STATUSES)
def test_the_comparison_has_the_rules_of_the_protocol(
    version: int, status: str, known_version: int, known_status: str
) -> None:
    order = compare_observations(version, status, known_version, known_status)
    assert (order > 0) == (compare_observations(known_version, known_status, version, status) < 0)
    if status in STOPPED_STATUSES:
        assert order >= 0
        assert order > 0 or known_status in STOPPED_STATUSES
    elif known_status not in STOPPED_STATUSES and version > known_version > 0:
        assert order > 0
    elif version == known_version:
        assert (order > 0) == (status_rank(status) > status_rank(known_status))


@given(data=st.data(), growth=st.sampled_from(("grows", "constant", "absent")))
def test_however_versions_grow_the_last_description_wins_in_any_order_of_arrival(data: Any, growth: str) -> None:
    statuses = ["PROVISIONING", "PENDING", "RUNNING", "DEPROVISIONING", "STOPPED"]
    versions = {"grows": (1, 2, 3, 4, 5), "constant": (1,) * 5, "absent": (0,) * 5}[growth]
    shown = list(zip(versions, statuses, strict=True))
    latest = (0, "")
    for version, status in data.draw(st.permutations(shown)):
        if compare_observations(version, status, *latest) > 0:
            latest = version, status
    assert latest == shown[-1]
