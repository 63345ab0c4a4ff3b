"""The rules of concurrency keys as pure functions."""

from __future__ import annotations

import math
from typing import Any

import msgspec
import pytest

from ecs_queue.protocol.concurrency_keys import (
    KeyRoom,
    has_missed_turn,
    has_turn,
    holds_key_slot,
    wait_for_slot,
    waiting_order,
    waits_for_slot,
)
from ecs_queue.protocol.operations import ClaimRequest, InFlightCounts, ResultCode
from ecs_queue.protocol.record import Record
from ecs_queue.protocol.record_moves import finish, queue_next_launch
from ecs_queue.protocol.settings import KEY_RETRY_SECONDS, KEY_TURN_SECONDS, MAX_KEY_RETRY_SECONDS
from ecs_queue.protocol.state_machine import claims, launch_reports
from ecs_queue.protocol.states import State
from tests.protocol.settings import make_settings

NOW = 1_000_000.0
SETTINGS = make_settings()


def make_waiting(**fields: Any) -> Record:
    """A record whose key was full just now."""
    record = Record(id="job", queue="default", concurrency_key="k", **fields)
    wait_for_slot(record, KeyRoom(0, 0), NOW)
    return record


@pytest.mark.parametrize("state", list(State))
def test_what_is_in_flight_holds_a_slot_and_only_what_is_queued_waits(state: State) -> None:
    record = Record(id="job", concurrency_key="k", state=state, waits_for_key=True)
    assert holds_key_slot(record) == (state in (State.LAUNCHING, State.LAUNCHED))
    assert waits_for_slot(record) == (state is State.QUEUED)
    assert not holds_key_slot(msgspec.structs.replace(record, concurrency_key=""))


@pytest.mark.parametrize(
    ("free", "ahead", "is_full"),
    [
        (math.inf, 0, False),
        (math.inf, 9, False),
        (1, 0, False),
        (1, 1, True),
        (2, 1, False),
        (0, 0, True),
        (-2, 0, True),
    ],
)
def test_a_claim_succeeds_while_fewer_wait_before_it_than_slots_are_free(
    free: float, ahead: int, is_full: bool
) -> None:
    record = Record(id="job", queue="default", concurrency_key="k", waits_for_key=True)
    claim_request = ClaimRequest(claim="c", worker="w", args="{}", target="t")
    code = claims.claim(
        record, claim_request, NOW, SETTINGS, InFlightCounts(), find_key_room=lambda: KeyRoom(free, ahead)
    )
    assert code is (ResultCode.KEY_FULL if is_full else ResultCode.RUN_TASK)
    assert (waits_for_slot(record), holds_key_slot(record)) == (is_full, not is_full)
    assert (record.calls, record.launch, record.attempt, record.abandoned_claims) == (
        (0, 1, 1, 0) if is_full else (1, 1, 1, 1)
    )


def test_priority_then_age_then_id_orders_them() -> None:
    records = [
        Record(id="d", priority=0, created_at=1.0),
        Record(id="c", priority=0, created_at=0.5, delayed_until=2.0),
        Record(id="a", priority=5, created_at=9.0),
        Record(id="b", priority=5, created_at=9.0),
        Record(id="e", priority=400, created_at=9.5),
        Record(id="f", priority=9, created_at=9.6),
    ]
    assert [record.id for record in sorted(records, key=waiting_order)] == ["e", "f", "a", "b", "d", "c"]


@pytest.mark.parametrize(
    ("ahead", "wait"), [(0, KEY_RETRY_SECONDS), (300, 300.0), (2000, 2000.0), (10**6, MAX_KEY_RETRY_SECONDS)]
)
def test_the_more_are_before_it_the_later_it_tries_by_itself(ahead: int, wait: float) -> None:
    record = Record(id="job", concurrency_key="k")
    wait_for_slot(record, KeyRoom(0, ahead), NOW)
    assert record.not_before == NOW + wait
    assert not has_turn(record, NOW + wait - 1)
    assert has_turn(record, NOW + wait)
    assert not has_missed_turn(record, NOW + wait + KEY_TURN_SECONDS - 1)
    assert has_missed_turn(record, NOW + wait + KEY_TURN_SECONDS)


def test_the_reason_may_have_any_characters_of_the_key() -> None:
    record = Record(id="job", concurrency_key="100%s")
    wait_for_slot(record, KeyRoom(0, 0), NOW)
    assert record.reason == "max_per_key of its queue is reached for the key 100%s"


def test_the_end_the_next_launch_and_a_task_that_turns_up_end_the_wait() -> None:
    ended, relaunched, found = make_waiting(), make_waiting(), make_waiting(nonce="n")
    finish(ended, State.REVOKED, 0, NOW, "stopped")
    queue_next_launch(relaunched, NOW)
    assert launch_reports.launched(found, "n", 1, "arn:1", NOW) is ResultCode.OK
    assert [record.waits_for_key for record in (ended, relaunched, found)] == [False] * 3
