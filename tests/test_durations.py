"""Durations mean the same in options, configuration, task lines and Python."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecs_queue.cli.ui.durations import POSITIVE_DURATION
from ecs_queue.client.client import EcsQueue
from ecs_queue.config import load_config
from ecs_queue.durations import parse_duration
from ecs_queue.errors import ConfigError, InvalidRequest
from ecs_queue.messages.envelope import decode_request
from ecs_queue.messages.fields import EXPECTED_FIELDS
from ecs_queue.messages.request import TaskRequest
from tests.cli.conftest import invoke as invoke
from tests.cli.conftest import no_worker_environ as no_worker_environ
from tests.cli.conftest import task_file
from tests.client.conftest import harness as harness
from tests.client.conftest import queue as queue

GOOD = {
    "90": 90,
    "90s": 90,
    "1.5m": 90,
    "30min": 1800,
    "1h": 3600,
    "7D": 604800,
    " 1w ": 604800,
    "1e3": 1000,
    ".5": 0.5,
}
BAD = ["0", "-1", "-1s", "2x", "h", "1h30m", "yesterday", "nan", "inf", "1e400", "1e12", "1_0", "", "٣h"]


def as_option(text: str) -> float:
    return float(POSITIVE_DURATION.convert(text, None, None))


def as_config(text: str) -> float:
    return load_config(environ={"AIRFLOW__ECS_QUEUE__LAUNCH_DEADLINE": text}).launch_deadline


def as_field(client: EcsQueue, name: str, value: Any) -> float | None:
    prepared = client.prepare({"command": ["true"], name: value})
    found: float | None = getattr(decode_request(prepared.submission.request), name)
    return found


def test_the_delay_of_a_retry_rule_may_be_a_timedelta(queue: EcsQueue) -> None:
    """JSON has none: workers refused the request, which waited until it expired."""
    rules = [{"action": "retry", "delay": timedelta(minutes=1)}, {"action": "fail"}]
    prepared = queue.prepare({"command": ["true"], "retry_rules": rules})

    sent = decode_request(prepared.submission.request).retry_rules
    assert sent == [{"action": "retry", "delay": 60.0}, {"action": "fail"}]


@pytest.mark.parametrize(("text", "seconds"), GOOD.items())
def test_a_duration_is_the_same_wherever_it_is_written(queue: EcsQueue, text: str, seconds: float) -> None:
    fields = [as_field(queue, name, text) for name in ("expires_in", "time_limit")]
    assert [parse_duration(text), as_option(text), as_config(text), *fields] == [seconds] * 5
    assert as_field(queue, "expires_in", seconds) == seconds


@pytest.mark.parametrize("text", BAD)
def test_what_is_no_duration_is_refused_wherever_it_is_written(queue: EcsQueue, text: str) -> None:
    with pytest.raises(click.BadParameter, match=r"expected a duration above 0, such as 90, 90s, 30m, 2h or 7d, found"):
        as_option(text)
    if text not in ("", "1e12"):  # an empty value is the default; a configuration has no upper bound
        with pytest.raises(ConfigError, match=r"expected a duration above 0, such as 90, 90s, 30m, 2h or 7d, found"):
            as_config(text)
    for name in ("expires_in", "time_limit"):
        with pytest.raises(InvalidRequest, match=rf"^{name}: expected a duration above 0, such as 90, 90s, 30m"):
            as_field(queue, name, text)


@pytest.mark.parametrize("value", [True, [], {}, math.nan, math.inf, -1, 0, 10**400, b"1h", object()])
def test_a_value_of_another_type_is_refused_before_anything_is_computed_with_it(queue: EcsQueue, value: Any) -> None:
    with pytest.raises(InvalidRequest, match=r"^expires_in: expected a duration"):
        as_field(queue, "expires_in", value)


@given(st.one_of(st.text(), st.floats(), st.integers(), st.none(), st.binary(), st.lists(st.integers())))
def test_whatever_is_no_duration_gives_none_and_no_error(value: object) -> None:
    seconds = parse_duration(value)
    assert seconds is None or (math.isfinite(seconds) and seconds >= 0)


#: Values that no field of a task line accepts.
WRONG: Mapping[str, list[Any]] = {
    "id": ["two words", 5, [], "x" * 49, "a\n"],
    "command": ["echo", [], [1], [["a"]], {"a": 1}, 5, b"abc"],
    "queue": ["two words", 5, "", "x" * 65, {}],
    "executor_config": [[], "cpu", 5],
    "priority": [10, -1, "high", 1.5, True, []],
    "expires_in": ["soon", [], {}],
    "time_limit": ["soon", [], {}],
    "relaunch": ["always", 5, []],
}
#: The words of the library that checks types.
RAW_WORDS = ("Expected", "`", "$", "regex", "got ")


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in WRONG.items() for value in values])
def test_a_wrong_field_is_named_in_plain_words(queue: EcsQueue, name: str, value: Any) -> None:
    with pytest.raises(InvalidRequest) as caught:
        queue.prepare({"command": ["true"], name: value})
    assert str(caught.value).startswith(f"{name}: expected ")
    assert [word for word in RAW_WORDS if word in str(caught.value)] == []


def test_every_field_of_a_request_is_described_in_words() -> None:
    assert set(EXPECTED_FIELDS) == set(TaskRequest.__struct_fields__) - {"v"}


@pytest.mark.parametrize("task", [5, "text", None, ["command"], {1: 2}])
def test_what_is_no_task_is_refused(queue: EcsQueue, task: Any) -> None:
    with pytest.raises(InvalidRequest):
        queue.submit_many([task])


def test_the_line_of_a_wrong_duration_is_named(
    invoke: Any, no_worker_environ: Mapping[str, str], tmp_path: Path
) -> None:
    good = {"command": ["true"], "expires_in": "1h", "time_limit": 5}
    file = task_file(tmp_path, good, {"command": ["true"], "expires_in": "soon"})
    done = invoke("submit", "--file", str(file), env=no_worker_environ)
    assert done.exit_code == 2
    assert done.stderr.startswith(f"ecs-queue: {file} line 2: expires_in: expected a duration above 0, such as 90, 90s")
    assert done.stderr.endswith("; nothing was submitted\n")
    file = task_file(tmp_path, {"id": "a", **good})
    assert invoke("submit", "--file", str(file), env=no_worker_environ).exit_code == 0
    with EcsQueue.from_config(environ=no_worker_environ, owner="") as client:
        [record] = client.ledger.get_with_payload(["a"])
    assert record is not None
    request = json.loads(record.request)
    assert (request["expires_in"], request["time_limit"]) == (3600.0, 5.0)
