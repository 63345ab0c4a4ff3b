"""The names under which executors receive their results."""

from __future__ import annotations

import re
from types import SimpleNamespace

from ecs_queue.airflow.config import build_owner_name


def test_no_two_executors_of_a_scheduler_have_one_owner() -> None:
    long = "t" * 50
    given = [("a-b", "c"), ("a", "b-c"), (long, "first"), (long, "second"), (None, "a:b"), (None, "a_b")]
    owners = [
        build_owner_name(SimpleNamespace(job_id=7, team_name=team, name=SimpleNamespace(alias=alias)))
        for team, alias in given
    ]
    assert len(set(owners)) == len(given), owners
    assert all(re.fullmatch(r"airflow-7-[A-Za-z0-9_.-]{1,54}", owner) for owner in owners), owners
