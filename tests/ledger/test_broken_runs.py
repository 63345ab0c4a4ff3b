"""Runs, and the hints about them, whose keys hold something else than they should: Redis alone has such."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from ecs_queue.protocol.operations import ResultCode
from ecs_queue.protocol.runs import NoTurn, RunEnd
from ecs_queue.redis_connection import connect
from tests.conformance.ledger.harness import PREFIX, LedgerHarness, make_redis_harness
from tests.conformance.ledger.runner_harness import settle, start_runner, warm_claim
from tests.protocol.settings import make_settings

pytestmark = pytest.mark.server


@pytest.fixture
def harness(redis_url: str) -> Iterator[LedgerHarness]:
    """A ledger on a real server."""
    with connect(redis_url, socket_timeout=5.0, max_connections=4) as client:
        yield make_redis_harness(client, make_settings())


def _replace(harness: LedgerHarness, key: str) -> None:
    client: Any = harness.client
    client.delete(PREFIX + key)
    client.set(PREFIX + key, "a text")


def test_a_run_whose_key_holds_no_hash_counts_as_absent_and_harms_no_other_one(harness: LedgerHarness) -> None:
    sound, broken = start_runner(harness, "sound"), start_runner(harness, "broken")
    for runner, name in ((sound, "sound"), (broken, "broken")):  # a claim looks at the last one first
        harness.advance(1.0)
        runner.next(RunEnd(turn=1, exit_code=0))
        assert settle(harness, name).code is ResultCode.ENDED
    _replace(harness, f"run:{broken.name}")

    assert [run.name for run in harness.ledger.list_runs()] == [sound.name]
    assert harness.ledger.read_runs([broken.name, sound.name])[0] is None
    assert broken.next() is NoTurn.LEAVE
    assert broken.leave()
    assert not broken.beat()
    harness.make_queued("next")
    assert harness.ledger.claim("next", warm_claim(may_call=False)).code is ResultCode.ASSIGNED
    assert harness.ledger.close_silent(0, 10) == ([], -1)
    assert harness.ledger.drain_runs([broken.name]) == 0


def test_a_changed_run_whose_key_holds_no_hash_hides_no_other_one(harness: LedgerHarness) -> None:
    runners = [start_runner(harness, name) for name in ("a", "b", "c")]
    _replace(harness, f"run:{runners[0].name}")

    assert [run.id for run in harness.ledger.pop_changed_runs(0.0, 10)] == ["b", "c"]


def test_hints_of_another_type_are_set_aside(harness: LedgerHarness) -> None:
    _replace(harness, "changed_runs")
    harness.ledger.close_silent(0, 10)  # a worker does that twice a minute
    runner = start_runner(harness)
    assert [run.name for run in harness.ledger.pop_changed_runs(0.0, 10)] == [runner.name]
    client: Any = harness.client
    assert client.get(f"{PREFIX}aside:changed_runs") == b"a text"
