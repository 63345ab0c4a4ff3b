"""Payloads in keys of their own, also beside workers of the version before, which know only the record."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from ecs_queue.protocol.operations import ClaimRequest, RefusalKind, ResultCode
from ecs_queue.protocol.states import State
from tests.conformance.ledger.harness import (
    DAY,
    PREFIX,
    SETTINGS,
    LedgerHarness,
    claim_request,
    make_refusal,
    make_submission,
)
from tests.worker_info import make_worker_info

RECORD, PAYLOAD = f"{PREFIX}r:job", f"{PREFIX}payload:job"
REQUEST, ARGS = make_submission().request, b'{"count": 1}'
WORKER = make_worker_info()


def _register_old_worker(harness: LedgerHarness, client: Any, ttl: float = 15.0) -> None:
    """Write the entry of a worker of the version before."""
    info = msgspec.to_builtins(WORKER)
    del info["payload_keys"]
    now = harness.clock.now
    client.hset(f"{PREFIX}workers", "old", f"{now:.3f} {now + ttl:.3f} {json.dumps(info)}")


def _move_payload_into_record(client: Any) -> None:
    """Store the record as the version before does."""
    client.hset(RECORD, mapping=client.hgetall(PAYLOAD))
    client.delete(PAYLOAD)


def _payload_fields(client: Any) -> tuple[set[bytes], set[bytes]]:
    """Return the payload's fields in the record, and in the key of its own."""
    return set(client.hkeys(RECORD)) & {b"request", b"args"}, set(client.hkeys(PAYLOAD))


def test_no_record_has_a_payload_at_any_time_and_none_is_left_at_the_end(harness: LedgerHarness, client: Any) -> None:
    harness.ledger.heartbeat(WORKER, 15.0)
    harness.make_queued()
    assert (client.hgetall(PAYLOAD), _payload_fields(client)[0]) == ({b"request": REQUEST}, set())
    harness.ledger.claim("job", claim_request())
    assert (client.hgetall(PAYLOAD), _payload_fields(client)[0]) == ({b"request": REQUEST, b"args": ARGS}, set())
    harness.ledger.refused("job", "claim-1", *make_refusal(RefusalKind.CAPACITY))
    assert client.hgetall(PAYLOAD) == {b"request": REQUEST}
    harness.advance(2)
    harness.ledger.claim("job", claim_request("claim-2", args=""))
    assert client.hgetall(PAYLOAD) == {b"request": REQUEST}, "no arguments could be built"
    harness.stop()
    harness.ledger.no_effect("job", "claim-2", 1.0, "throttled")
    assert harness.get_state() is State.REVOKED
    assert not client.exists(PAYLOAD)


@pytest.mark.parametrize("end", ["outcome", "stop", "expiry"])
def test_a_record_of_the_version_before_is_claimed_followed_and_ended(
    harness: LedgerHarness, client: Any, end: str
) -> None:
    harness.make_queued(expires_at=harness.clock.now + 600)
    _move_payload_into_record(client)
    assert harness.get_record().request == REQUEST
    harness.advance(SETTINGS.sweep_after_seconds)
    assert [record.request for record in harness.ledger.lease_unclaimed("default", 10)] == [REQUEST]
    if end == "stop":
        assert harness.stop().code is ResultCode.ENDED
    elif end == "expiry":
        harness.advance(600)
        assert harness.ledger.claim("job", None).code is ResultCode.ENDED
    else:
        assert harness.ledger.claim("job", claim_request()).code is ResultCode.RUN_TASK
        assert _payload_fields(client) == ({b"request", b"args"}, set()), "an old worker must find both"
        harness.advance(SETTINGS.lease_seconds)
        reclaimed = harness.reclaim()
        assert reclaimed.record is not None
        assert (reclaimed.code, reclaimed.record.args.encode()) == (ResultCode.RUN_TASK, ARGS)
        harness.ledger.launched("job", "nonce-01", 1, "arn:1", 1.0)
        assert harness.update_task(harness.get_record(), end_state=State.SUCCESS).code is ResultCode.ENDED
    assert (_payload_fields(client), harness.get_record().request) == ((set(), set()), b"")


def test_while_an_old_worker_is_alive_new_records_are_as_it_knows_them(harness: LedgerHarness, client: Any) -> None:
    harness.ledger.heartbeat(WORKER, 15.0)
    _register_old_worker(harness, client)
    assert client.pttl(f"{PREFIX}old_workers") == -2, "it is not known yet"
    harness.make_queued()
    assert 0 < client.pttl(f"{PREFIX}old_workers") <= 1000
    assert harness.ledger.put_and_claim(make_submission(), claim_request())[1].code is ResultCode.RUN_TASK
    assert _payload_fields(client) == ({b"request", b"args"}, set())
    assert all((r.request, r.args) == (b"", "") for r in harness.ledger.get(["job"]) if r), "but none is shown"

    harness.advance(16)
    client.delete(f"{PREFIX}old_workers")  # a second later
    harness.make_queued("later")
    assert client.hgetall(f"{PREFIX}payload:later") == {b"request": REQUEST}


def test_what_an_old_client_ends_loses_its_payload_when_it_is_forgotten(harness: LedgerHarness, client: Any) -> None:
    """It stops a QUEUED request, and knows nothing of the payload's key."""
    harness.make_queued()
    payload = client.hgetall(PAYLOAD)
    harness.stop()
    client.hset(PAYLOAD, mapping=payload)
    harness.advance(30 * DAY)
    assert harness.ledger.prune(10) == 1
    assert not client.exists(PAYLOAD)


def test_arguments_without_a_target_are_of_an_earlier_launch(harness: LedgerHarness, client: Any) -> None:
    """As an old worker leaves them when it queues the next launch."""
    harness.make_queued()
    client.hset(PAYLOAD, "args", "stale")
    claim = ClaimRequest(claim="claim-1", worker="w", args="fresh", target="here")
    claimed = harness.ledger.claim("job", claim)
    assert claimed.record is not None
    assert claimed.record.args == "fresh"
    assert client.hget(PAYLOAD, "args") == b"fresh"
