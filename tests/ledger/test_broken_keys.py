"""Keys that many items share and that hold something else than they should: Redis alone has such."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from ecs_queue.ledger import DeadLetter
from ecs_queue.ledger.broken_items import DropResult
from ecs_queue.protocol.event_health import EventFact, EventFactKind
from ecs_queue.protocol.operations import ResultCode
from ecs_queue.protocol.states import State
from ecs_queue.redis_connection import connect
from tests.conformance.ledger.harness import (
    HOUR,
    MINUTE,
    PREFIX,
    LedgerHarness,
    claim_request,
    make_redis_harness,
    make_report,
    make_submission,
    make_worker,
)
from tests.fake_clock import START
from tests.protocol.settings import make_settings

pytestmark = pytest.mark.server

SHARED_KEYS = (
    "due",
    "unclaimed:default",
    "retry:default",
    "expiry",
    "undelivered:airflow",
    "arns",
    "live",
    "finished",
    "counts",
    "bucket:run",
    "capacity:default",
    "paused",
    "delivery:nonce-9",
    "last_delivery:nonce-9",
    "dead_letters",
    "dead_letter_times",
    "dead_letter_bytes",
    "event_health",
    "workers",
    "broken",
    "broken_checks",
    "clock",
    "old_workers",
)


@pytest.fixture
def harness(redis_url: str) -> Iterator[LedgerHarness]:
    """A ledger on a real server, with a limit, so that claims read the counts."""
    with connect(redis_url, socket_timeout=5.0, max_connections=4) as client:
        yield make_redis_harness(client, make_settings(max_in_flight=100, lease_seconds=30.0))


def _break_key(harness: LedgerHarness, key: str) -> None:
    client: Any = harness.client
    client.delete(PREFIX + key)
    if key.startswith(("last_delivery", "dead_letter_bytes", "old_workers")):
        client.rpush(PREFIX + key, "text")
    else:
        client.set(PREFIX + key, "text")


def _use_everything(harness: LedgerHarness, name: str) -> None:
    """Take a request through all its states, and use every role."""
    ledger = harness.ledger
    record = harness.make_launched(name, arn=f"arn:{name}", expires_at=harness.clock.now + HOUR)
    assert ledger.find_id_by_arn(record.arn) == name
    assert harness.update_task(record, end_state=State.SUCCESS, exit_code=0).code is ResultCode.ENDED
    assert name in [found.id for found in ledger.list_undelivered("airflow", 100)]
    assert ledger.confirm([(name, record.nonce)], "airflow")[0].code is ResultCode.OK
    assert ledger.put_and_claim(make_submission(f"{name}-2"), claim_request())[1].code is ResultCode.RUN_TASK
    assert ledger.no_effect(f"{name}-2", "claim-1", 1.0, "throttled").code is ResultCode.OK
    assert f"{name}-2" in [found.id for found in ledger.list_records("", 100)[0]]
    assert ledger.take_tokens("run", 1, 1.0, 10)[0] == 1
    assert ledger.report_capacity("default", make_report(name)).variant == 2
    ledger.pause_queues(["other"])
    assert "other" in ledger.list_paused_queues()
    ledger.resume_queues(["other"])
    assert ledger.begin_delivery("nonce-9", name) >= 1
    ledger.add_dead_letter(DeadLetter(key=name, queue="default", reason="why", body=b"x"))
    assert name in [letter.key for letter in ledger.list_dead_letters(100)]
    assert ledger.delete_dead_letters([name]) == [True]
    ledger.record_event_facts([EventFact("source", EventFactKind.TIMELY, START)])
    ledger.heartbeat(make_worker(name), 15.0)
    assert name in [worker.name for worker in ledger.list_workers()]
    ledger.lease_due(100)
    ledger.lease_due_retries("default", 100)
    ledger.lease_unclaimed("default", 100)
    ledger.lease_expired(100)
    ledger.poll_soon(1.0, 100)
    ledger.prune(100)
    ledger.check_broken(100)
    assert ledger.count_by_state()["default"][State.QUEUED] >= 1


@pytest.mark.parametrize("key", SHARED_KEYS)
def test_a_shared_key_of_another_type_is_set_aside_and_everything_goes_on(harness: LedgerHarness, key: str) -> None:
    client: Any = harness.client
    _use_everything(harness, "before")
    _break_key(harness, key)

    _use_everything(harness, "after")

    items = {item.key: item for item in harness.ledger.list_broken()}
    assert f"key:{key}" in items
    assert client.exists(f"{PREFIX}aside:{key}")
    assert harness.ledger.drop_broken([items[f"key:{key}"]]) == [DropResult.DROPPED]
    assert not client.exists(f"{PREFIX}aside:{key}")
    assert harness.ledger.list_broken() == []


@pytest.mark.parametrize("key", ["due", "unclaimed:default", "retry:default", "live", "arns", "undelivered:airflow"])
def test_what_stood_in_a_lost_index_returns(harness: LedgerHarness, key: str) -> None:
    ledger = harness.ledger
    launched = harness.make_launched("launched", arn="arn:launched")
    harness.make_queued("queued")
    harness.make_launching("retried", claim="c")
    ledger.no_effect("retried", "c", 1.0, "throttled")
    harness.make_ended("ended")
    _break_key(harness, key)
    harness.make_launched("next", arn="arn:next", queue="elsewhere")
    harness.make_ended("next-ended", queue="elsewhere")
    harness.advance(MINUTE)
    for _ in range(2):
        ledger.lease_unclaimed("default", 10)
        ledger.lease_due_retries("default", 10)
        ledger.check_broken(10)
        harness.advance(MINUTE)

    assert "launched" in [record.id for record in ledger.lease_due(10)]
    assert [record.id for record in ledger.lease_unclaimed("default", 10)] == ["queued"]
    assert [record.id for record in ledger.lease_due_retries("default", 10)] == ["retried"]
    assert "ended" in [record.id for record in ledger.list_undelivered("airflow", 10)]
    assert ledger.find_id_by_arn(launched.arn) == "launched"
    assert {"launched", "queued", "retried"} <= {record.id for record in ledger.list_records("", 10)[0]}


@pytest.mark.parametrize("value", ["many", "nan", "1e300", "12.5x"])
def test_a_number_of_requests_that_is_no_number_limits_nothing_and_is_counted_anew(
    harness: LedgerHarness, value: str
) -> None:
    client: Any = harness.client
    harness.make_launched("one", arn="arn:one")
    client.hset(f"{PREFIX}counts", "default|LAUNCHED", value)

    harness.make_launched("two", arn="arn:two")
    harness.ledger.check_broken(10)
    for item in harness.ledger.list_broken():
        assert item.key == "count:default|LAUNCHED"
        harness.ledger.drop_broken([item])
    harness.ledger.check_broken(10)

    assert harness.ledger.count_by_state()["default"][State.LAUNCHED] == 2


@pytest.mark.parametrize("field", ["tokens", "at", "share", "lowered_at"])
@pytest.mark.parametrize("value", ["nan", "inf", "x", "1e300"])
def test_a_broken_token_bucket_begins_anew(harness: LedgerHarness, field: str, value: str) -> None:
    client: Any = harness.client
    harness.ledger.take_tokens("run", 10, 1.0, 10)
    client.hset(f"{PREFIX}bucket:run", field, value)

    assert harness.ledger.take_tokens("run", 4, 1.0, 10)[0] == 4
    assert harness.ledger.record_throttle("run") > 0
    assert [item.key for item in harness.ledger.list_broken()] == ["key:bucket:run"]


def test_a_full_list_leaves_the_next_ones_where_they_are_and_skips_them(
    harness: LedgerHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    client: Any = harness.client
    for name in ("job", "other"):
        harness.make_launched(name, arn=f"arn:{name}")
    client.zadd(f"{PREFIX}broken_checks", {f"record {number}": 1e12 for number in range(10_000)})
    client.hset(f"{PREFIX}r:job", "launch", "x")
    harness.advance(1.0)

    assert [record.id for record in harness.ledger.lease_due(10)] == ["other"]
    assert harness.ledger.list_broken() == []
    assert client.zscore(f"{PREFIX}due", "job") == harness.clock.now + 30.0


def test_members_of_an_index_that_are_no_ids_are_listed(harness: LedgerHarness) -> None:
    client: Any = harness.client
    harness.make_launched()
    client.zadd(f"{PREFIX}due", {b"\xff\xfe": 0, "": 0, "a b|c": float("-inf"), "later": float("inf")})
    harness.advance(1.0)

    assert [record.id for record in harness.ledger.lease_due(10)] == ["job"]
    items = harness.ledger.list_broken()
    assert sorted(item.name for item in items) == ["", "a b|c", "\udcff\udcfe"]
    assert harness.ledger.drop_broken(items) == [DropResult.DROPPED] * 3


@pytest.mark.parametrize("since", ["nan", "inf", "-1", "1e300", "when", "1.0"])
@pytest.mark.parametrize("by_check", [True, False])
def test_an_item_of_an_unknown_kind_is_shown_and_can_be_dropped(
    harness: LedgerHarness, since: str, by_check: bool
) -> None:
    client: Any = harness.client
    client.hset(f"{PREFIX}broken", "word job", f"{since} 0 why")
    client.zadd(f"{PREFIX}broken_checks", {"word job": 0})

    (item,) = harness.ledger.list_broken()
    assert (item.key, item.reason, item.since) == ("word:job", "why", 1.0 if since == "1.0" else 0.0)
    if by_check:
        harness.ledger.check_broken(10)
    else:
        assert harness.ledger.drop_broken([item]) == [DropResult.DROPPED]
    assert harness.ledger.list_broken() == []


@pytest.mark.parametrize("item", [b"\x80", b"\x80 \xff", b"word"])
def test_an_item_of_bytes_that_are_no_text_can_be_dropped(harness: LedgerHarness, item: bytes) -> None:
    client: Any = harness.client
    client.hset(f"{PREFIX}broken", item, b"")

    assert harness.ledger.drop_broken(harness.ledger.list_broken()) == [DropResult.DROPPED]
    assert harness.ledger.list_broken() == []


@pytest.mark.parametrize("field", ["id", "flat", "changed", "before", "is_payload_inside", "changed_payload"])
@pytest.mark.parametrize("value", ["other", "\udcff"])
def test_a_stored_field_with_the_name_of_an_inner_one_changes_no_other_record(
    harness: LedgerHarness, field: str, value: str
) -> None:
    harness.make_queued("a")
    harness.make_queued("other")
    client: Any = harness.client
    client.hset(PREFIX + "r:a", field, value.encode(errors="surrogateescape"))

    (stopped,) = harness.ledger.stop(["a"], "ann")

    assert stopped.code is ResultCode.ENDED
    assert [harness.get_record(id).state for id in ("a", "other")] == [State.REVOKED, State.QUEUED]
    assert harness.ledger.list_broken() == []


@pytest.mark.parametrize(
    "operate", [lambda ledger: ledger.adopt(["a"], "bob"), lambda ledger: ledger.stop(["a"], "ann")]
)
def test_a_state_that_is_no_text_breaks_its_record_alone(harness: LedgerHarness, operate: Any) -> None:
    harness.make_launching("a")
    client: Any = harness.client
    client.hset(PREFIX + "r:a", "state", b"\x80")

    assert [result.code for result in operate(harness.ledger)] == [ResultCode.BROKEN]
    assert [item.key for item in harness.ledger.list_broken()] == ["record:a"]
