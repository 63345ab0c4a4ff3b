"""Long random lives: the rules of PROTOCOL.md hold in each, and memory and Redis agree in every answer and record."""

from __future__ import annotations

from typing import Any

import fakeredis
import msgspec
import pytest

from ecs_queue.core.record import Record
from ecs_queue.core.states import TRANSITIONS, State
from ecs_queue.ledger.script import connect
from tests.conformance.ledger.lab import PREFIX, RULES, Lab, memory_lab, redis_lab
from tests.conformance.ledger.random_life import IDS, OWNERS, QUEUES, Move, RandomLife

_RULES = msgspec.structs.replace(RULES, max_in_flight=3, startup_allowance=2.0, max_deliveries=1)


def _shelf_of(record: Record) -> str | None:
    """The one index that a record must stand in."""
    if record.ended:
        return None
    if record.state is not State.QUEUED:
        return "due"
    return f"{'retry' if record.not_before else 'silent'}:{record.queue}"


def _members(client: Any, key: str) -> set[str]:
    return {member.decode() for member in client.zrange(PREFIX + key, 0, -1)}


def check_indexes(lab: Lab) -> None:
    """Every index says exactly what the records say."""
    client: Any = lab.client
    records = [record for record in lab.ledger.get(IDS) if record is not None]
    shelves = ["due", *(f"{kind}:{queue}" for kind in ("silent", "retry") for queue in QUEUES)]
    for shelf in shelves:
        assert _members(client, shelf) == {r.id for r in records if _shelf_of(r) == shelf}, shelf
    waiting = {r.id for r in records if r.state is State.QUEUED and r.expires_at}
    assert _members(client, "expiry") == waiting
    assert _members(client, "live") == {r.id for r in records if not r.ended}
    assert _members(client, "finished") >= {r.id for r in records if r.ended}
    assert not _members(client, "finished") & _members(client, "live")
    arns = {arn.decode(): key.decode() for arn, key in client.hgetall(f"{PREFIX}arns").items()}
    assert arns == {r.arn: r.id for r in records if r.state is State.LAUNCHED}
    for owner in OWNERS:
        mine = {r.id for r in records if r.undelivered and r.owner == owner}
        assert mine <= _members(client, f"undelivered:{owner}") <= mine | (set(IDS) - {r.id for r in records})
    for record in records:
        assert (client.ttl(f"{PREFIX}r:{record.id}") > 0) == record.ended


def _compare(client: Any, seed: int, steps: int) -> None:
    redis_side = redis_lab(client, _RULES)
    life = RandomLife([memory_lab(_RULES), redis_side], seed)
    for _ in range(steps):
        life.step()
        check_indexes(redis_side)


@pytest.mark.parametrize("seed", range(6))
def test_memory_and_redis_agree_on_random_lives(seed: int) -> None:
    with fakeredis.FakeRedis(server=fakeredis.FakeServer()) as client:
        _compare(client, seed, steps=300)


@pytest.mark.parametrize("seed", range(100, 103))
def test_memory_and_a_real_server_agree_on_random_lives(redis_url: str, seed: int) -> None:
    with connect(redis_url, socket_timeout=5.0, max_connections=2) as client:
        _compare(client, seed, steps=700)


def test_random_lives_make_every_move_of_the_table_and_no_other() -> None:
    expected = {(name, move) for name, moves in TRANSITIONS.items() for move in moves}
    made: set[tuple[str, Move]] = set()
    for seed in range(600):  # some moves are made in one life of forty
        life = RandomLife([memory_lab(_RULES)], seed)
        life.run(700)
        made |= {(name, move) for name, move in life.moves if name != "admit"}
        if seed >= 40 and made == expected:
            break
    assert made == expected
