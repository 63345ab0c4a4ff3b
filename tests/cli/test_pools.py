"""What `pools` shows, and what `pools drain` does."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import pytest

from ecs_queue.client.client import EcsQueue
from ecs_queue.protocol.operations import ClaimRequest, ResultCode
from ecs_queue.redis_connection import connect
from ecs_queue.server_keys import ledger_prefix
from tests.cli.conftest import Invoke, json_lines

POOL = "etl.0123456789abcdef"


@pytest.fixture
def client(no_worker_environ: dict[str, str]) -> Iterator[EcsQueue]:
    with EcsQueue.from_config(environ=no_worker_environ, owner="") as queue:
        yield queue


def claim(client: EcsQueue, record_id: str) -> str:
    """Start a launch of a warm pool; return its run."""
    request = ClaimRequest(claim=record_id, worker="w", args="{}", target="t", pool=POOL, payload="secret")
    result = client.ledger.claim(record_id, request)
    assert result.code is ResultCode.RUN_TASK
    assert result.record is not None
    return result.record.run


def test_the_runners_of_a_pool_are_counted_and_drained(
    invoke: Invoke, no_worker_environ: Mapping[str, str], client: EcsQueue
) -> None:
    client.submit_many([{"command": ["true"], "queue": "etl", "id": name} for name in ("new", "busy", "silent")])
    runs = {name: claim(client, name) for name in ("new", "busy", "silent")}
    prefix, now = ledger_prefix(client.config.namespace), client.ledger.now()
    with connect(client.config.ledger_url, socket_timeout=5.0, max_connections=1) as server:
        for name, seen_at in (("busy", now), ("silent", now - 60)):
            run = {"phase": "fetched", "boot": "b", "arn": f"arn:{name}", "seen_at": f"{seen_at:.3f}", "turn": "3"}
            server.hset(f"{prefix}run:{runs[name]}", mapping=run)

    (shown,) = json_lines(invoke("pools", "--json", env=no_worker_environ).stdout)
    assert {**shown, "oldest": ""} == {
        "pool": POOL,
        "queue": "etl",
        "starting": 1,
        "busy": 1,
        "idle": 0,
        "leaving": 0,
        "silent": 1,
        "commands": 7,
        "oldest": "",
    }
    table = invoke("pools", env=no_worker_environ).stdout.splitlines()
    assert table[1].split()[:8] == ["etl", "0123456789abcdef", "1", "1", "0", "0", "1", "7"]

    assert invoke("pools", "drain", "etl", "other", env=no_worker_environ).stdout.splitlines() == [
        "etl: 3 runners will leave",
        "other: 0 runners will leave",
    ]
    (shown,) = json_lines(invoke("pools", "--json", env=no_worker_environ).stdout)
    assert (shown["starting"], shown["busy"], shown["leaving"]) == (0, 0, 1)
    found = client.status("new")
    assert (found.state, found.reason) == ("QUEUED", "its pool was drained before its runner had taken it")
    assert client.ledger.read_runs([runs["new"]]) == [None]


def test_without_runners_it_says_when_there_are_some(invoke: Invoke, no_worker_environ: Mapping[str, str]) -> None:
    result = invoke("pools", env=no_worker_environ)

    assert result.stdout == ""
    assert "warm_seconds" in result.stderr
