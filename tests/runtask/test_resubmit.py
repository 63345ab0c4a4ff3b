"""The same request again: its id, what stays, what is changed."""

from __future__ import annotations

from typing import Any

import pytest

from ecs_queue.errors import InvalidRequest
from ecs_queue.messages.request import TaskRequest, new_request
from ecs_queue.runtask.resubmit import ResubmitChanges, build_resubmit_id, build_resubmit_line

_FLAT = {"cpu": 256, "environment": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}]}
_OWN = {"overrides": {"containerOverrides": [{"name": "main", **_FLAT}, {"name": "side", "memory": 64}]}}


def _request(**fields: Any) -> TaskRequest:
    known: dict[str, Any] = {"id": "job", "command": ["run", "it"], "now": 1e9, "accept_seconds": 60.0}
    return new_request(**(known | fields))


def _main(line: dict[str, Any]) -> dict[str, Any]:
    """The main container's override in the line."""
    containers = line["executor_config"]["overrides"]["containerOverrides"]
    found: dict[str, Any] = next(one for one in containers if one.get("name") == "main")
    return found


def test_an_id_made_again_begins_with_its_origins_and_is_short_enough() -> None:
    assert build_resubmit_id("nightly", "0123abcd") == "nightly-r-0123abcd"
    long = build_resubmit_id("x" * 48, "0123abcd")
    assert len(long) == 48
    assert long.endswith("x-r-0123abcd")


def test_an_id_made_again_and_again_does_not_grow() -> None:
    assert build_resubmit_id(build_resubmit_id("nightly", "0123abcd"), "ffffffff") == "nightly-r-ffffffff"


def test_without_changes_it_is_the_same_under_a_new_id() -> None:
    words: dict[str, Any] = {"priority": 3, "expires_in": 9.0, "time_limit": 8.0, "relaunch": "any_failure"}
    request = _request(queue="etl", executor_config=_OWN, **words)
    line = build_resubmit_line(request, "job-2", ResubmitChanges(), "main")
    assert line == {"id": "job-2", "command": ["run", "it"], "queue": "etl", "executor_config": _OWN, **words}


def test_the_key_stays_unless_it_is_changed() -> None:
    request = _request(concurrency_key="customer 7")
    assert build_resubmit_line(request, "job-2", ResubmitChanges(), "main")["concurrency_key"] == "customer 7"
    changes = ResubmitChanges(fields={"concurrency_key": "customer 8"})
    assert build_resubmit_line(request, "job-2", changes, "main")["concurrency_key"] == "customer 8"


@pytest.mark.parametrize("config", [_FLAT, _OWN])
def test_changes_are_merged_into_either_spelling_by_name(config: dict[str, Any]) -> None:
    changes = ResubmitChanges(overrides={"memory": 512}, environment={"B": "changed", "C": "new"})
    main = _main(build_resubmit_line(_request(executor_config=config), "job-2", changes, "main"))
    assert (main["cpu"], main["memory"]) == (256, 512)
    assert main["environment"] == [
        {"name": "A", "value": "1"},
        {"name": "B", "value": "changed"},
        {"name": "C", "value": "new"},
    ]


def test_members_and_the_queue_are_changed_and_none_takes_a_member_away() -> None:
    changes = ResubmitChanges(queue="big", fields={"priority": 9, "expires_in": None})
    line = build_resubmit_line(_request(expires_in=5.0), "job-2", changes, "main")
    assert (line["queue"], line["priority"], line["expires_in"]) == ("big", 9, None)


def test_a_change_that_run_task_does_not_know_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="no_such_key"):
        build_resubmit_line(_request(), "job-2", ResubmitChanges(overrides={"no_such_key": 1}), "main")


def test_a_repr_shows_names_and_no_values() -> None:
    shown = repr(ResubmitChanges(environment={"TOKEN": "hunter2"}, overrides={"cpu": 77}))
    assert "TOKEN" in shown
    assert "hunter2" not in shown
