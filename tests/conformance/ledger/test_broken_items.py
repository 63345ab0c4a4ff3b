"""Role `BrokenItems`: what cannot be used leaves its index, is listed, and stops nothing else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from ecs_queue.ledger import DeadLetter
from ecs_queue.ledger.broken_items import BrokenItem, DropResult
from ecs_queue.protocol.operations import OperationResult, RefusalKind, ResultCode
from ecs_queue.protocol.record import Record
from ecs_queue.protocol.states import State
from tests.conformance.ledger.defects import DEFECTS, break_entry, break_record, remove_record
from tests.conformance.ledger.harness import (
    HOUR,
    MINUTE,
    LedgerHarness,
    claim_request,
    make_refusal,
    make_submission,
    make_worker,
    task_update,
)
from tests.fake_clock import START

#: Index -> (makes a record in it, returns the ids that are leased or listed from it once they are due)
INDEXES: dict[str, tuple[Callable[[LedgerHarness, str], Any], Callable[[LedgerHarness], list[str]]]] = {
    "due, launched": (
        lambda harness, name: harness.make_launched(name, arn=f"arn:{name}"),
        lambda harness: [record.id for record in harness.ledger.lease_due(10)],
    ),
    "due, launching": (
        lambda harness, name: harness.make_launching(name, claim=name),
        lambda harness: [record.id for record in harness.ledger.lease_due(10)],
    ),
    "unclaimed": (
        lambda harness, name: harness.make_queued(name),
        lambda harness: [record.id for record in harness.ledger.lease_unclaimed("default", 10)],
    ),
    "retry": (
        lambda harness, name: (
            harness.make_launching(name, claim=name),
            harness.ledger.no_effect(name, name, 1.0, "throttled"),
        ),
        lambda harness: [record.id for record in harness.ledger.lease_due_retries("default", 10)],
    ),
    "expiry": (
        lambda harness, name: harness.make_queued(name, expires_at=START + MINUTE),
        lambda harness: harness.ledger.lease_expired(10),
    ),
    "undelivered": (
        lambda harness, name: harness.make_ended(name),
        lambda harness: [record.id for record in harness.ledger.list_undelivered("airflow", 10)],
    ),
}
#: What an ended record needs no more.
_LIVE_ONLY = {"queue is missing", "nonce is missing", "launches begin at 1"}
#: Where the payload is read with the record.
_WITH_PAYLOAD = {"due, launching", "unclaimed", "retry"}
_INDEX_DEFECTS = [
    (index, defect)
    for index in INDEXES
    for defect in DEFECTS
    if not (index == "undelivered" and defect in _LIVE_ONLY)
    and (index in _WITH_PAYLOAD or defect != "the payload holds a text")
]


def _list_keys(harness: LedgerHarness) -> list[str]:
    return [item.key for item in harness.ledger.list_broken()]


@pytest.mark.parametrize(("index", "defect"), _INDEX_DEFECTS)
def test_a_broken_record_leaves_its_index_for_the_list_and_hides_no_other(
    harness: LedgerHarness, index: str, defect: str
) -> None:
    make, find = INDEXES[index]
    for name in ("job", "other"):
        make(harness, name)
    break_record(harness, defect)
    harness.advance(MINUTE)

    assert find(harness) == ["other"]

    (item,) = harness.ledger.list_broken()
    assert (item.kind, item.name, item.since) == ("record", "job", START + MINUTE)
    assert item.reason
    harness.advance(MINUTE)
    assert find(harness) == ["other"]
    assert harness.ledger.list_broken() == [item]


@pytest.mark.parametrize("index", ["due, launched", "unclaimed", "retry"])
def test_an_id_without_a_record_is_listed_and_hides_no_record(harness: LedgerHarness, index: str) -> None:
    make, find = INDEXES[index]
    for name in ("job", "other"):
        make(harness, name)
    remove_record(harness)
    harness.advance(MINUTE)

    assert find(harness) == ["other"]
    assert _list_keys(harness) == ["record:job"]
    assert harness.ledger.drop_broken(harness.ledger.list_broken()) == [DropResult.DROPPED]
    assert harness.ledger.count_by_state()["default"].get(State.LAUNCHED, 0) == (index == "due, launched")


_ON_ONE_RECORD: dict[str, Callable[[LedgerHarness, Record], OperationResult]] = {
    "put": lambda harness, record: harness.ledger.put([make_submission()])[0],
    "put_and_claim": lambda harness, record: harness.ledger.put_and_claim(make_submission(), claim_request())[0],
    "claim": lambda harness, record: harness.ledger.claim("job", claim_request()),
    "reclaim": lambda harness, record: harness.reclaim(),
    "launched": lambda harness, record: harness.ledger.launched("job", record.nonce, 1, "arn:1", 1.0),
    "call_ambiguous": lambda harness, record: harness.ledger.call_ambiguous("job", "claim-1", 1.0, "no answer"),
    "no_effect": lambda harness, record: harness.ledger.no_effect("job", "claim-1", 1.0, "throttled"),
    "refused": lambda harness, record: harness.ledger.refused("job", "claim-1", *make_refusal(RefusalKind.CAPACITY)),
    "task_absent": lambda harness, record: harness.ledger.task_absent("job", "claim-1", 1.0),
    "update_tasks": lambda harness, record: harness.update_task(record),
    "stop": lambda harness, record: harness.stop(),
    "adopt": lambda harness, record: harness.ledger.adopt(["job"], "another")[0],
    "confirm": lambda harness, record: harness.ledger.confirm([("job", record.nonce)], "airflow")[0],
}


@pytest.mark.parametrize("operation", _ON_ONE_RECORD)
def test_an_operation_on_a_broken_record_is_answered_broken_and_lists_it(
    harness: LedgerHarness, operation: str
) -> None:
    record = harness.make_launching()
    break_record(harness, "a number is a word")

    assert _ON_ONE_RECORD[operation](harness, record).code is ResultCode.BROKEN
    assert _list_keys(harness) == ["record:job"]


def test_one_broken_record_fails_no_other_operation_of_its_batch(harness: LedgerHarness) -> None:
    records = [harness.make_launched(name, arn=f"arn:{name}") for name in ("job", "one", "two")]
    break_record(harness, "the key holds a text")

    results = harness.ledger.update_tasks([task_update(record) for record in records])
    assert [result.code for result in results] == [ResultCode.BROKEN, ResultCode.OK, ResultCode.OK]
    stopped = harness.ledger.stop(["one", "job", "two"], "ann")
    assert [result.code for result in stopped] == [
        ResultCode.STOP_REQUESTED,
        ResultCode.BROKEN,
        ResultCode.STOP_REQUESTED,
    ]


@pytest.mark.parametrize("defect", DEFECTS)
def test_a_broken_record_is_shown_as_not_ended_with_the_reason(harness: LedgerHarness, defect: str) -> None:
    for name in ("job", "other"):
        harness.make_launched(name, arn=f"arn:{name}")
    break_record(harness, defect)

    shown, other = harness.ledger.get_with_payload(["job", "other"])
    page, _ = harness.ledger.list_records("", 10)

    assert shown is not None
    assert other is not None
    assert not shown.is_terminal
    assert "broken" in shown.reason
    assert "ecs-queue broken show record:job" in shown.reason
    assert {record.id for record in page} == {"job", "other"}


def test_what_is_dropped_is_gone_and_its_id_can_be_used_again(harness: LedgerHarness) -> None:
    harness.make_launched()
    harness.make_launched("other", arn="arn:2")
    break_record(harness, "the key holds a text")
    harness.advance(MINUTE)
    harness.ledger.lease_due(10)
    (item,) = harness.ledger.list_broken()

    assert harness.ledger.drop_broken([item, item]) == [DropResult.DROPPED, DropResult.NOT_LISTED]

    assert harness.ledger.get(["job"]) == [None]
    assert harness.ledger.list_broken() == []
    assert harness.ledger.count_by_state()["default"] == {State.LAUNCHED: 1}
    assert [record.id for record in harness.ledger.list_records("", 10)[0]] == ["other"]
    harness.make_queued()


def test_what_can_be_used_again_is_returned_and_not_dropped(harness: LedgerHarness) -> None:
    for name in ("job", "other"):
        harness.make_launched(name, arn=f"arn:{name}")
        break_record(harness, "a number is negative", name)
    harness.advance(MINUTE)
    assert harness.ledger.lease_due(10) == []
    items = harness.ledger.list_broken()
    assert [item.name for item in items] == ["job", "other"]
    for name in ("job", "other"):
        _mend(harness, name)

    assert harness.ledger.drop_broken(items[:1]) == [DropResult.SOUND]
    assert harness.ledger.check_broken(10) == 0  # not yet due
    harness.advance(MINUTE)
    assert harness.ledger.check_broken(10) == 1

    assert harness.ledger.list_broken() == []
    assert {record.id for record in harness.ledger.lease_due(10)} == {"job", "other"}


def _mend(harness: LedgerHarness, record_id: str) -> None:
    client: Any = harness.client
    if client is None:
        harness.ledger._records[record_id].attempt = 1  # type: ignore[attr-defined]
    else:
        client.hdel(f"{{test}}:l:r:{record_id}", "attempt")


def test_a_broken_item_is_checked_less_and_less_often(harness: LedgerHarness) -> None:
    harness.make_launched()
    break_record(harness, "a number is negative")
    harness.advance(MINUTE)
    harness.ledger.lease_due(10)
    for wait in (MINUTE, MINUTE, 2 * MINUTE, 4 * MINUTE):
        harness.advance(wait)
        assert harness.ledger.check_broken(10) == 0
    _mend(harness, "job")
    harness.advance(8 * MINUTE - 1)
    assert harness.ledger.check_broken(10) == 0
    harness.advance(1)
    assert harness.ledger.check_broken(10) == 1
    assert [record.id for record in harness.ledger.lease_due(10)] == ["job"]


@pytest.mark.parametrize(
    "value", [b"{", b'{"key": 7}', b"", b'{"key": "other", "queue": "q", "reason": "r", "body": ""}']
)
def test_a_broken_dead_letter_hides_no_other_and_can_be_dropped(harness: LedgerHarness, value: bytes) -> None:
    for key in ("first", "second", "third"):
        harness.ledger.add_dead_letter(DeadLetter(key=key, queue="default", reason="why", body=b"x"))
    break_entry(harness, "dead_letters", "second", value)

    assert [letter.key for letter in harness.ledger.list_dead_letters(10)] == ["third", "first"]
    assert [letter is not None for letter in harness.ledger.get_dead_letters(["first", "second"])] == [True, False]
    (item,) = harness.ledger.list_broken()
    assert item.key == "dead_letter:second"
    assert harness.ledger.drop_broken([item]) == [DropResult.DROPPED]
    assert harness.ledger.delete_dead_letters(["second", "first"]) == [False, True]


@pytest.mark.parametrize("value", ["text", "1 2", "1 99999999999 {", '1 99999999999 {"name": "other"}', "nan nan {}"])
def test_a_broken_heartbeat_hides_no_worker_and_the_next_one_takes_its_place(
    harness: LedgerHarness, value: str
) -> None:
    for name in ("ann", "bob"):
        harness.ledger.heartbeat(make_worker(name), 15.0)
    break_entry(harness, "workers", "bob", value)

    assert [worker.name for worker in harness.ledger.list_workers()] == ["ann"]
    assert _list_keys(harness) == ["worker:bob"]
    harness.ledger.heartbeat(make_worker("bob"), 2 * HOUR)
    assert [worker.name for worker in harness.ledger.list_workers()] == ["ann", "bob"]
    harness.advance(MINUTE)
    harness.ledger.check_broken(10)
    assert harness.ledger.list_broken() == []


def test_a_pause_with_a_broken_time_is_still_a_pause(harness: LedgerHarness) -> None:
    harness.ledger.pause_queues(["default", "other"])
    break_entry(harness, "paused_since" if harness.client is None else "paused", "default", "since Monday")
    harness.make_queued()

    assert harness.ledger.list_paused_queues() == {"default": START, "other": START}
    assert harness.ledger.claim("job", claim_request()).code is ResultCode.PAUSED
    harness.ledger.check_broken(10)
    (item,) = harness.ledger.list_broken()
    assert item.key == "pause:default"
    assert harness.ledger.drop_broken([item]) == [DropResult.DROPPED]
    assert list(harness.ledger.list_paused_queues()) == ["other"]


def test_nothing_that_is_not_listed_is_dropped(harness: LedgerHarness) -> None:
    harness.make_launched()
    item = BrokenItem(kind="record", name="job", since=START, reason="said so")

    assert harness.ledger.drop_broken([item]) == [DropResult.NOT_LISTED]
    assert harness.get_state() is State.LAUNCHED
