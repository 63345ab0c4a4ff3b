"""The result of a record, and its times."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from ecs_queue.messages.envelope import decode_result, encode
from ecs_queue.messages.result import RESULT_LINE_FIELDS, build_result, to_datetime
from ecs_queue.protocol.record import Record
from ecs_queue.protocol.states import State

_START = 1_700_000_000.25


def test_the_result_of_a_record_has_all_its_facts() -> None:
    record = Record(
        id="job-1",
        nonce="aB3-_x9Z",
        state=State.SUCCESS,
        queue="q",
        owner="ann",
        exit_code=0,
        arn="arn:1",
        attempts=1,
        created_at=_START,
        launched_at=_START + 1,
        finished_at=_START + 3.0004,
    )
    result = build_result(record)
    assert decode_result(encode(result)) == result
    assert result.succeeded
    line = result.to_result_line()
    assert tuple(line) == RESULT_LINE_FIELDS
    assert line["queued_at"] == "2023-11-14T22:13:20.250000Z"
    assert (line["started_at"], line["stop_code"], line["exit_code"]) == (None, None, 0)
    assert line["finished_at"] == "2023-11-14T22:13:23.250000Z"


def test_moments_are_utc_to_the_millisecond_and_never_is_none() -> None:
    assert to_datetime(_START + 0.0004) == datetime(2023, 11, 14, 22, 13, 20, 250_000, tzinfo=UTC)
    assert to_datetime(0.0) is None
    assert to_datetime(None) is None


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (2e12, "9999-12-31T23:59:59+00:00"),
        (float("inf"), "9999-12-31T23:59:59+00:00"),
        (-1e300, "0001-01-01T00:00:00+00:00"),
        (1.5, "1970-01-01T00:00:01.500000+00:00"),
    ],
)
def test_a_time_that_has_no_date_becomes_the_nearest_that_has_one(seconds: float, text: str) -> None:
    moment = to_datetime(seconds)
    assert moment is not None
    assert moment.isoformat() == text


def test_a_time_that_is_no_number_is_never() -> None:
    assert to_datetime(float("nan")) is None
