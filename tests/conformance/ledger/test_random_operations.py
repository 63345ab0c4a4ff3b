"""Random operations: the rules of docs/protocol.md always hold; memory and Redis agree in every result and record."""

from __future__ import annotations

from typing import Any

import fakeredis
import msgspec
import pytest

from ecs_queue.ledger.base import RequestOperations, RunOperations
from ecs_queue.ledger.contracts import read_contracts
from ecs_queue.protocol.concurrency_keys import holds_key_slot, waiting_order, waits_for_slot
from ecs_queue.protocol.operations import ResultCode
from ecs_queue.protocol.record import Record
from ecs_queue.protocol.record_moves import is_starting
from ecs_queue.protocol.states import TRANSITIONS, State
from ecs_queue.redis_connection import connect
from tests.conformance.ledger.harness import PREFIX, SETTINGS, LedgerHarness, make_memory_harness, make_redis_harness
from tests.conformance.ledger.random_operations import IDS, KEYS, OWNERS, QUEUES, RandomOperations, Transition

_SETTINGS = msgspec.structs.replace(
    SETTINGS, max_in_flight=3, startup_allowance=2.0, max_deliveries=1, runner_ttl=600.0, stop_timeout=5.0
)


def _expected_index(record: Record) -> str | None:
    """The one index that a record must stand in."""
    if record.is_terminal:
        return None
    if record.state is not State.QUEUED:
        return "due"
    return f"{'retry' if record.not_before else 'unclaimed'}:{record.queue}"


def _index_members(client: Any, key: str) -> set[str]:
    return {member.decode() for member in client.zrange(PREFIX + key, 0, -1)}


def check_indexes(harness: LedgerHarness) -> None:
    """Check that every index agrees with the records."""
    client: Any = harness.client
    records = [record for record in harness.ledger.get_with_payload(IDS) if record is not None]
    indexes = ["due", *(f"{kind}:{queue}" for kind in ("unclaimed", "retry") for queue in QUEUES)]
    for index in indexes:
        assert _index_members(client, index) == {r.id for r in records if _expected_index(r) == index}, index
    with_deadline = {r.id for r in records if r.state is State.QUEUED and r.expires_at}
    assert _index_members(client, "expiry") == with_deadline
    for queue in QUEUES:
        delayed = {r.id for r in records if r.state is State.QUEUED and r.delayed_until > harness.clock.now}
        in_queue = {r.id for r in records if r.state is State.QUEUED and r.queue == queue and r.delayed_until}
        assert delayed & in_queue <= _index_members(client, f"delayed:{queue}") <= in_queue
        starting = {r.id for r in records if is_starting(r) and r.queue == queue}
        assert _index_members(client, f"starting:{queue}") == starting
        parked = [r for r in records if waits_for_slot(r) and r.queue == queue]
        entries = sorted(_index_members(client, f"key_waiting:{queue}"))
        order = sorted(parked, key=lambda r: (r.concurrency_key, waiting_order(r)))
        assert [entry.split()[-1] for entry in entries] == [r.id for r in order]
        for key in KEYS:
            holders = {r.id for r in records if holds_key_slot(r) and (r.queue, r.concurrency_key) == (queue, key)}
            assert _index_members(client, f"key_holders:{queue}|{key}") == holders
    assert _index_members(client, "live") == {r.id for r in records if not r.is_terminal}
    assert _index_members(client, "finished") >= {r.id for r in records if r.is_terminal}
    assert not _index_members(client, "finished") & _index_members(client, "live")
    arns = {arn.decode(): key.decode() for arn, key in client.hgetall(f"{PREFIX}arns").items()}
    assert arns == {r.arn: r.id for r in records if r.state is State.LAUNCHED}
    for owner in OWNERS:
        waiting = {r.id for r in records if r.undelivered and r.owner == owner}
        unknown = set(IDS) - {r.id for r in records}
        assert waiting <= _index_members(client, f"undelivered:{owner}") <= waiting | unknown
    for record in records:
        assert (client.ttl(f"{PREFIX}r:{record.id}") > 0) == record.is_terminal


def _run_both(client: Any, seed: int, steps: int) -> None:
    redis_side = make_redis_harness(client, _SETTINGS)
    operations = RandomOperations([make_memory_harness(_SETTINGS), redis_side], seed)
    for _ in range(steps):
        operations.step()
        check_indexes(redis_side)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(6))
def test_memory_and_redis_agree_on_random_operations(seed: int) -> None:
    with fakeredis.FakeRedis(server=fakeredis.FakeServer()) as client:
        _run_both(client, seed, steps=300)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(100, 103))
def test_memory_and_a_real_server_agree_on_random_operations(redis_url: str, seed: int) -> None:
    with connect(redis_url, socket_timeout=5.0, max_connections=2) as client:
        _run_both(client, seed, steps=700)


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_random_operations_make_exactly_the_transitions_and_results_of_the_tables() -> None:
    transitions = {(name, move) for name, moves in TRANSITIONS.items() for move in moves}
    contracts = read_contracts(RequestOperations, RunOperations)
    results = {
        (name.replace("tasks", "task"), code) for name, contract in contracts.items() for code in contract.results
    }
    results = {(name, code) for name, code in results if code is not ResultCode.BROKEN}  # these break no record
    made: set[tuple[str, Transition]] = set()
    returned: set[tuple[str, ResultCode]] = set()
    for seed in range(600):  # some transitions are made by one seed of two hundred
        operations = RandomOperations([make_memory_harness(_SETTINGS)], seed)
        operations.run(700)
        made |= {(name, move) for name, move in operations.transitions if name != "put_and_claim"}
        returned |= operations.results
        if seed >= 40 and (made, returned) == (transitions, results):
            break
    assert made == transitions
    assert returned == results
