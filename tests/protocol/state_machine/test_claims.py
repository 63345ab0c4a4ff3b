"""When a claim, or the takeover of one, calls RunTask."""

from __future__ import annotations

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from ecs_queue.protocol.operations import InFlightCounts, ResultCode
from ecs_queue.protocol.record import Record
from ecs_queue.protocol.settings import LIST_ONLY_AFTER
from ecs_queue.protocol.state_machine import claims
from ecs_queue.protocol.states import State
from tests.protocol.settings import make_settings
from tests.protocol.state_machine.records import CLAIM_REQUEST, NOW, SETTINGS, records


@given(records)
def test_run_task_is_called_only_for_what_is_neither_stopped_expired_retired_nor_old(record: Record) -> None:
    before = msgspec.structs.replace(record)
    if claims.reclaim(record, CLAIM_REQUEST, NOW, SETTINGS, False) is ResultCode.RUN_TASK:
        assert not before.stop_requested_by
        assert not before.retired
        assert not (before.expires_at and NOW + SETTINGS.startup_allowance >= before.expires_at)
        assert NOW - before.first_called_at < LIST_ONLY_AFTER
        assert record.last_claim_at == NOW
    else:
        assert record.last_claim_at == before.last_claim_at
    assert record.first_called_at == before.first_called_at


@given(st.integers(0, 3), st.integers(0, 2))
def test_a_claim_calls_only_while_fewer_tasks_start_than_may(starting: int, limit: int) -> None:
    record, request = Record(id="job"), msgspec.structs.replace(CLAIM_REQUEST, max_starting=limit)
    code = claims.claim(record, request, NOW, SETTINGS, InFlightCounts(starting=starting))
    is_full = bool(limit) and starting >= limit
    assert code is (ResultCode.LIMIT_REACHED if is_full else ResultCode.RUN_TASK)
    assert (record.max_starting, record.not_before) == ((0, NOW + 1) if is_full else (limit, 0.0))


@given(st.booleans(), st.integers(0, 3), st.integers(0, 3), st.integers(0, 2), st.integers(0, 2))
def test_a_claim_calls_only_where_there_is_room_and_no_pause(
    paused: bool, total: int, queue: int, max_in_flight: int, limit: int
) -> None:
    record, request = Record(id="job"), msgspec.structs.replace(CLAIM_REQUEST, queue_limit=limit)
    settings = make_settings(max_in_flight=max_in_flight)
    code = claims.claim(record, request, NOW, settings, InFlightCounts(total=total, queue=queue, paused=paused))
    full = bool(max_in_flight and total >= max_in_flight) or bool(limit and queue >= limit)
    assert code is (ResultCode.PAUSED if paused else ResultCode.LIMIT_REACHED if full else ResultCode.RUN_TASK)
    if code is not ResultCode.RUN_TASK:
        assert (record.state, record.not_before, record.launch) == (State.QUEUED, NOW + 1, 1)


def test_a_request_expires_though_its_queue_is_paused() -> None:
    record = Record(id="job", expires_at=NOW - 1)
    assert claims.claim(record, CLAIM_REQUEST, NOW, SETTINGS, InFlightCounts(paused=True)) is ResultCode.ENDED
    assert record.state is State.EXPIRED
