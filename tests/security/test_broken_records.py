"""With one broken item of each kind in the ledger, 200 requests run as without."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

from ecs_queue.protocol.states import State
from ecs_queue.redis_connection import connect
from ecs_queue.server_keys import ledger_prefix
from tests.faults.harness import FaultHarness
from tests.wait import wait_until

pytestmark = [pytest.mark.server]

_NAMES = [f"job-{number}" for number in range(200)]
#: Fields of the hash of a live record, each of which breaks it; None: the field is missing.
_BROKEN_FIELDS: dict[str, dict[str, Any]] = {
    "word": {"launch": "many"},
    "nan": {"created_at": "nan"},
    "huge": {"accept_until": "1e300"},
    "stateless": {"state": None},
    "queueless": {"queue": None},
    "not-utf8": {"owner": b"\xff\xfe"},
}
#: Keys that many items share.
_SHARED_KEYS = ("expiry", "arns", "paused", "event_health", "bucket:run_task:x", "finished", "dead_letter_bytes")


@pytest.fixture
def harness(redis_url: str) -> Iterator[FaultHarness]:
    """An installation with a fake ECS."""
    with FaultHarness(redis_url, concurrency=20, run_task_rate=0, describe_tasks_rate=0) as made:
        yield made


@pytest.fixture
def client(redis_url: str) -> Iterator[Any]:
    """A connection of another program."""
    with connect(redis_url, socket_timeout=5.0, max_connections=4) as connection:
        yield connection


def _break_everything(client: Any, prefix: str) -> set[str]:
    """Leave one broken item of each kind, due now; return what the list of broken items must name."""
    for name, fields in _BROKEN_FIELDS.items():
        record = {"state": "LAUNCHED", "queue": "default", "nonce": "n", "arn": f"arn:{name}", "launch": "1"}
        record |= {"attempt": "1", "created_at": "1.000", **fields}
        client.hset(f"{prefix}r:{name}", mapping={key: value for key, value in record.items() if value is not None})
    client.set(f"{prefix}r:string", "a string where a hash should be")
    names = [*_BROKEN_FIELDS, "string", "gone"]
    for index in ("due", "unclaimed:default", "retry:default"):
        client.zadd(f"{prefix}{index}", dict.fromkeys([*names, f"member of {index}"], 0))
    client.hset(f"{prefix}workers", mapping={"mute": "no heartbeat", "garbled": "1 9999999999 {"})
    client.hset(f"{prefix}dead_letters", "letter", "{")
    client.zadd(f"{prefix}dead_letter_times", {"letter": time.time()})
    client.hset(f"{prefix}counts", "default|LAUNCHED", "a few")
    unacked = prefix.removesuffix("l:") + "q:unacked"
    client.hset(unacked, mapping={"cut": "{", "nested": "[" * 5000})
    client.zadd(f"{unacked}_index", {"cut": 1, "nested": 1, "gone": 1})
    client.hset(f"{unacked}_unreadable", "no tag", "{")
    for key in _SHARED_KEYS:
        client.delete(prefix + key)
        client.rpush(prefix + key, "a list")
    members = [f"record:member of {index}" for index in ("due", "unclaimed:default", "retry:default")]
    return {*(f"record:{name}" for name in names), *members, "worker:mute"}


def test_with_one_broken_item_of_each_kind_200_requests_run_as_without(harness: FaultHarness, client: Any) -> None:
    expected = _break_everything(client, ledger_prefix(harness.config.namespace))
    harness.start_worker()
    handles = harness.queue.submit_many({"id": name, "command": ["true"], "expires_in": 600.0} for name in _NAMES)

    wait_until(lambda: len(harness.ecs.tasks) == len(_NAMES), "every request is launched", 60.0)
    wait_until(lambda: expected <= {item.key for item in harness.queue.ledger.list_broken()}, "all are listed", 30.0)
    _break_everything(client, ledger_prefix(harness.config.namespace))  # while the tasks run
    harness.end_all_tasks()

    results = list(harness.queue.as_completed(handles, 60.0))
    assert sorted(result.id for result in results) == sorted(_NAMES)
    assert {(result.state, result.attempts) for result in results} == {(State.SUCCESS, 1)}
    assert len(set(harness.started_by_values())) == len(_NAMES)
    (worker,) = harness.queue.ledger.list_workers()
    assert worker.health == "ok"
    assert harness.service_failures("") == []

    def is_reported() -> bool:
        events = list(harness.emitted)
        return any(name == "ledger.item_broken" and fields["item"] == "record:string" for name, fields in events)

    wait_until(is_reported, "a worker, which looks every five seconds, reports it", 30.0)
