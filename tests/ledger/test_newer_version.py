"""Workers of this version with records that a newer version has written."""

from __future__ import annotations

from typing import Any

import pytest

from ecs_queue.protocol.operations import ResultCode
from ecs_queue.protocol.states import State
from tests.conformance.ledger.harness import DAY, PREFIX, SETTINGS, LedgerHarness

KEY = f"{PREFIX}r:job"


def _set_newer_state(client: Any) -> None:
    """Do what a newer worker does when it moves the record to a state of its own."""
    client.hset(KEY, "state", "PAUSED")
    client.hincrby(f"{PREFIX}counts", "default|LAUNCHED", -1)
    client.hincrby(f"{PREFIX}counts", "default|PAUSED", 1)


def test_unknown_fields_are_kept_and_do_no_harm(harness: LedgerHarness, client: Any) -> None:
    record = harness.make_launched()
    client.hset(KEY, mapping={"shard": "7", "flavour": "x"})
    harness.advance(1.0)

    assert [found.id for found in harness.ledger.lease_due(10)] == ["job"]
    assert harness.update_task(record).code is ResultCode.OK

    assert client.hmget(KEY, "shard", "flavour") == [b"7", b"x"]
    harness.update_task(record, 2, end_state=State.SUCCESS)
    assert harness.get_state() is State.SUCCESS


@pytest.mark.parametrize(
    "make_record", [LedgerHarness.make_launched, LedgerHarness.make_queued], ids=["launched", "queued"]
)
def test_a_state_of_a_newer_version_is_left_to_newer_workers(
    harness: LedgerHarness, client: Any, make_record: Any
) -> None:
    make_record(harness)
    harness.make_queued("other")
    client.hset(KEY, "state", "PAUSED")
    harness.advance(SETTINGS.lease_seconds)

    for _ in range(3):
        assert "job" not in [
            found.id for found in [*harness.ledger.lease_due(10), *harness.ledger.lease_unclaimed("default", 10)]
        ]
        harness.advance(SETTINGS.lease_seconds)

    client.hset(KEY, "state", "LAUNCHED" if make_record is LedgerHarness.make_launched else "QUEUED")
    found = [*harness.ledger.lease_due(10), *harness.ledger.lease_unclaimed("default", 10)]
    assert "job" in [record.id for record in found]
    assert client.hget(KEY, "unknown_state_since") is None


def test_a_record_in_a_newer_state_is_shown_with_advice(harness: LedgerHarness, client: Any) -> None:
    harness.make_launched()
    _set_newer_state(client)

    assert not harness.get_record().is_terminal
    assert harness.get_record().reason == "its state PAUSED is of a newer version than this one: update ecs-queue here"
    assert harness.ledger.count_by_state() == {"default": {}} or harness.ledger.count_by_state() == {}


def test_no_operation_of_this_version_changes_a_record_in_a_newer_state(harness: LedgerHarness, client: Any) -> None:
    record = harness.make_launched()
    _set_newer_state(client)

    assert harness.update_task(record, end_state=State.SUCCESS).code is ResultCode.STALE
    assert harness.stop().code is ResultCode.UNCHANGED
    assert harness.ledger.confirm([("job", record.nonce)], "airflow")[0].code is ResultCode.NOT_OWNER
    assert harness.ledger.adopt(["job"], "another")[0].code is ResultCode.OK
    assert harness.ledger.launched("job", record.nonce, 1, "arn:2", 1.0).code is ResultCode.UNWANTED

    assert client.hmget(KEY, "state", "owner", "arn") == [b"PAUSED", b"another", b"arn:1"]
    assert client.ttl(KEY) == -1
    assert client.zscore(f"{PREFIX}live", "job") is not None


def test_a_state_that_no_worker_knows_for_the_retention_time_ends_unknown(harness: LedgerHarness, client: Any) -> None:
    harness.make_launched()
    _set_newer_state(client)
    harness.advance(1.0)
    harness.ledger.lease_due(10)
    harness.advance(DAY - 2.0)
    harness.ledger.lease_due(10)
    assert client.hget(KEY, "state") == b"PAUSED"
    harness.advance(SETTINGS.lease_seconds)

    harness.ledger.lease_due(10)

    assert harness.get_state() is State.UNKNOWN
    assert "in the state PAUSED, which no worker has known for 86400 s" in harness.get_record().reason
    assert "set back to an older version" in harness.get_record().reason
    assert [record.id for record in harness.ledger.list_undelivered("airflow", 10)] == ["job"]
    assert client.zscore(f"{PREFIX}due", "job") is None


def test_a_record_that_a_newer_worker_leases_is_never_ended_here(harness: LedgerHarness, client: Any) -> None:
    harness.make_launched()
    for _ in range(4):
        client.hset(KEY, "state", "PAUSED")
        harness.advance(DAY / 2)
        harness.ledger.lease_due(10)
        client.hset(KEY, "state", "LAUNCHED")  # known to the newer one, which clears the time
        harness.advance(SETTINGS.lease_seconds)
        harness.ledger.lease_due(10)

    assert harness.update_task(harness.get_record()).code is ResultCode.OK
