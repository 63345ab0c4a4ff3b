"""Records that a newer version has written, under workers of this one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from ecs_queue.core.protocol import Word
from ecs_queue.core.states import State
from ecs_queue.ledger.script import connect
from tests.conformance.ledger.lab import DAY, PREFIX, RULES, Lab, redis_lab

KEY = f"{PREFIX}r:job"


@pytest.fixture
def client(redis_url: str) -> Iterator[Any]:
    """A connection to an empty real server."""
    with connect(redis_url, socket_timeout=5.0, max_connections=4) as client:
        yield client


@pytest.fixture
def lab(client: Any) -> Lab:
    """The ledger on it."""
    return redis_lab(client)


def _pause(client: Any) -> None:
    """A newer worker brings the record into a state of its own."""
    client.hset(KEY, "state", "PAUSED")
    client.hincrby(f"{PREFIX}counts", "default|LAUNCHED", -1)
    client.hincrby(f"{PREFIX}counts", "default|PAUSED", 1)


def test_fields_that_are_not_known_here_are_kept_and_do_no_harm(lab: Lab, client: Any) -> None:
    record = lab.launched()
    client.hset(KEY, mapping={"shard": "7", "flavour": "x"})
    lab.advance(1.0)

    assert [found.id for found in lab.ledger.due(10)] == ["job"]
    assert lab.outcome(record).word is Word.OK

    assert client.hmget(KEY, "shard", "flavour") == [b"7", b"x"]
    lab.outcome(record, 2, end=State.SUCCESS)
    assert lab.state() is State.SUCCESS


@pytest.mark.parametrize("shelve", [Lab.launched, Lab.queued], ids=["launched", "queued"])
def test_a_state_that_is_not_known_here_is_left_to_those_who_know_it(lab: Lab, client: Any, shelve: Any) -> None:
    shelve(lab)
    lab.queued("other")
    client.hset(KEY, "state", "PAUSED")
    lab.advance(RULES.lease_seconds)

    for _ in range(3):
        assert "job" not in [found.id for found in [*lab.ledger.due(10), *lab.ledger.due_silent("default", 10)]]
        lab.advance(RULES.lease_seconds)

    client.hset(KEY, "state", "LAUNCHED" if shelve is Lab.launched else "QUEUED")
    found = [*lab.ledger.due(10), *lab.ledger.due_silent("default", 10)]
    assert "job" in [record.id for record in found]
    assert client.hget(KEY, "unread_since") is None


def test_it_is_shown_with_what_to_do(lab: Lab, client: Any) -> None:
    lab.launched()
    _pause(client)

    assert not lab.record().ended
    assert lab.record().reason == "its state PAUSED is of a newer version than this one: update ecs-queue here"
    assert lab.ledger.counts() == {"default": {}} or lab.ledger.counts() == {}


def test_no_operation_of_this_version_harms_it(lab: Lab, client: Any) -> None:
    record = lab.launched()
    _pause(client)

    assert lab.outcome(record, end=State.SUCCESS).word is Word.STALE
    assert lab.stop().word is Word.SAME
    assert lab.ledger.confirm([("job", record.nonce)], "airflow")[0].word is Word.NOT_YOURS
    assert lab.ledger.adopt(["job"], "another")[0].word is Word.OK
    assert lab.ledger.launched("job", record.nonce, 1, "arn:2", 1.0).word is Word.STOP_IT

    assert client.hmget(KEY, "state", "owner", "arn") == [b"PAUSED", b"another", b"arn:1"]
    assert client.ttl(KEY) == -1
    assert client.zscore(f"{PREFIX}live", "job") is not None


def test_when_nobody_has_known_it_for_the_retention_time_it_ends_unknown(lab: Lab, client: Any) -> None:
    lab.launched()
    _pause(client)
    lab.advance(1.0)
    lab.ledger.due(10)
    lab.advance(DAY - 2.0)
    lab.ledger.due(10)
    assert client.hget(KEY, "state") == b"PAUSED"
    lab.advance(RULES.lease_seconds)

    lab.ledger.due(10)

    assert lab.state() is State.UNKNOWN
    assert "in the state PAUSED, which no worker has known for 86400 s" in lab.record().reason
    assert "set back to an older version" in lab.record().reason
    assert [record.id for record in lab.ledger.undelivered("airflow", 10)] == ["job"]
    assert client.zscore(f"{PREFIX}due", "job") is None


def test_what_a_newer_worker_looks_at_now_and_then_is_never_ended_here(lab: Lab, client: Any) -> None:
    lab.launched()
    for _ in range(4):
        client.hset(KEY, "state", "PAUSED")
        lab.advance(DAY / 2)
        lab.ledger.due(10)
        client.hset(KEY, "state", "LAUNCHED")  # known to the newer one, which clears the time
        lab.advance(RULES.lease_seconds)
        lab.ledger.due(10)

    assert lab.outcome(lab.record()).word is Word.OK
