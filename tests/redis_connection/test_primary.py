"""Clients that follow the primary, on a real Valkey cluster and with a real Sentinel."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import redis.exceptions

from ecs_queue.errors import UnusableServer
from ecs_queue.local.redis_server import RedisServer
from ecs_queue.redis_connection import connect, locators
from tests.replicated_servers import SentinelDeployment, ValkeyCluster
from tests.servers import require_redis_binary
from tests.wait import wait_until

pytestmark = pytest.mark.server

_TAG = "{follow}"


def open_client(url: str, max_connections: int = 8) -> Any:
    return connect(url, socket_timeout=2.0, max_connections=max_connections, slot_key=_TAG)


def succeed(call: Callable[[], Any]) -> Any:
    """Return what the call returns once it is no outage any more."""
    replies: list[Any] = []

    def attempt() -> bool:
        with suppress(redis.exceptions.RedisError):
            replies.append(call())
        return bool(replies)

    wait_until(attempt, "a call succeeds")
    return replies[0]


class ConfirmedWriter(threading.Thread):
    """Adds numbers to a set, each with a barrier behind it, and notes those that a replica has confirmed."""

    def __init__(self, client: Any, name: str) -> None:
        super().__init__()
        self._client, self._name = client, name
        self._ended = threading.Event()
        self.confirmed: list[bytes] = []
        self.failures: list[Exception] = []
        self.longest = 0.0

    def run(self) -> None:
        """Write until `stop`."""
        number = 0
        while not self._ended.is_set():
            number += 1
            member = f"{self._name}-{number}"
            began = time.monotonic()
            try:
                with self._client.pipeline(transaction=False) as pipe:
                    pipe.sadd(f"{_TAG}:set", member)
                    pipe.execute_command("WAIT", 1, 500)
                    _, replicas = pipe.execute()
            except redis.exceptions.RedisError as error:
                self.failures.append(error)
                time.sleep(0.01)
            else:
                if replicas:
                    self.confirmed.append(member.encode())
            self.longest = max(self.longest, time.monotonic() - began)

    def stop(self) -> None:
        """End, and wait for the last write."""
        self._ended.set()
        self.join()


@contextmanager
def writers(client: Any) -> Iterator[list[ConfirmedWriter]]:
    """Four threads that write."""
    made = [ConfirmedWriter(client, f"w{number}") for number in range(4)]
    for writer in made:
        writer.start()
    try:
        yield made
    finally:
        for writer in made:
            writer.stop()


def kill_and_restart_under_load(client: Any, kill: Callable[[], RedisServer]) -> list[ConfirmedWriter]:
    """Kill the primary while pipelines with barriers run; return the writers when the new one has confirmed some."""
    with writers(client) as made:
        wait_until(lambda: all(len(writer.confirmed) > 20 for writer in made), "writes are confirmed")
        dead = kill()
        succeed(lambda: client.ping() and client.sadd(f"{_TAG}:set", "after"))
        dead.start()
        before = [len(writer.confirmed) for writer in made]
        wait_until(
            lambda: all(len(writer.confirmed) > count for writer, count in zip(made, before, strict=True)),
            "the new primary's replica confirms writes",
        )
    return made


def assert_nothing_confirmed_is_lost(client: Any, made: list[ConfirmedWriter]) -> None:
    stored = client.smembers(f"{_TAG}:set")
    for writer in made:
        assert set(writer.confirmed) <= stored
        assert writer.failures  # the outage was seen, and not hidden by repeats
        assert writer.longest < 15  # two answers of 2 s, twice, and the search for the primary


def test_a_cluster_that_fails_over_under_load_loses_no_confirmed_write(cluster: ValkeyCluster) -> None:
    with open_client(cluster.url) as client:
        made = kill_and_restart_under_load(client, lambda: cluster.kill_owner(_TAG))
        assert_nothing_confirmed_is_lost(client, made)


def test_a_sentinel_that_fails_over_under_load_loses_no_confirmed_write(sentinel: SentinelDeployment) -> None:
    with open_client(sentinel.url) as client:
        made = kill_and_restart_under_load(client, sentinel.kill_primary)
        assert_nothing_confirmed_is_lost(client, made)


def test_a_promoted_replica_is_found_without_an_error(cluster: ValkeyCluster) -> None:
    """The former primary goes on as a replica, and says where the keys are: nothing was done."""
    with open_client(cluster.url) as client:
        client.set(f"{_TAG}:n", 1)
        cluster.fail_over(_TAG)
        assert client.incr(f"{_TAG}:n") == 2


def test_a_slot_on_its_way_is_an_outage_and_is_found_where_it_arrives(cluster: ValkeyCluster) -> None:
    answers: list[Exception] = []

    def call_meanwhile() -> None:
        with pytest.raises(redis.exceptions.AskError) as caught:
            client.get(f"{_TAG}:absent")  # the other node may have it: a script there would see half of the keys
        answers.append(caught.value)
        assert client.incr(f"{_TAG}:n") == 2

    with open_client(cluster.url) as client:
        client.set(f"{_TAG}:n", 1)
        cluster.move_slot(_TAG, call_meanwhile)
        assert answers
        assert client.incr(f"{_TAG}:n") == 3


@pytest.mark.parametrize("options", ["", "?protocol=2"])
def test_a_plain_url_recognizes_a_cluster_and_survives_its_node(
    cluster: ValkeyCluster, options: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO, "ecs_queue")
    monkeypatch.setattr(locators, "_announced", set())
    owner = cluster.owner(_TAG)
    other = next(node for node in cluster.nodes if node not in (owner, cluster.replica(_TAG)))
    with open_client(f"{other.url}{options}") as through_other, open_client(f"{owner.url}{options}") as through_owner:
        through_other.set(f"{_TAG}:n", 1)
        assert through_owner.incr(f"{_TAG}:n") == 2
        with open_client(f"{other.url}{options}") as again:
            again.ping()
        assert cluster.kill_owner(_TAG) is owner
        try:
            assert succeed(lambda: through_owner.incr(f"{_TAG}:n")) == 3
            assert succeed(lambda: through_other.incr(f"{_TAG}:n")) == 4
        finally:
            owner.start()
    said = [record.getMessage() for record in caplog.records if "node of a cluster" in record.getMessage()]
    assert sorted(said) == sorted(
        f"127.0.0.1:{node.port} is a node of a cluster: its other nodes are used too" for node in (owner, other)
    )


def test_a_client_that_waits_for_a_message_finds_it_at_the_new_primary(cluster: ValkeyCluster) -> None:
    with open_client(cluster.url) as client, open_client(cluster.url) as other:
        timers = [
            threading.Timer(0.2, lambda: cluster.fail_over(_TAG)),
            threading.Timer(1.0, lambda: succeed(lambda: other.zadd(f"{_TAG}:wake", {"1": 0}))),
        ]
        for timer in timers:
            timer.start()
        deadline = time.monotonic() + 30
        found = None
        while found is None and time.monotonic() < deadline:
            found = succeed(lambda: client.bzpopmin([f"{_TAG}:wake"], 1.0) or "nothing yet")
            found = None if found == "nothing yet" else found
        for timer in timers:  # one may still read its reply, and its client is closed below
            timer.join()
        assert found == (f"{_TAG}:wake".encode(), b"1", 0.0)


def test_a_server_of_another_kind_than_the_url_says_is_a_sentence(
    cluster: ValkeyCluster, sentinel: SentinelDeployment
) -> None:
    for url, sentence in (
        (cluster.nodes[0].url.replace("/0", "/3"), "is in cluster mode, which has the database 0 only"),
        (sentinel.sentinels[0].url, r"is a Sentinel: write sentinel://127.0.0.1:\d+/0\?service=NAME"),
    ):
        with open_client(url) as client:
            for _ in range(2):
                with pytest.raises(UnusableServer, match=sentence):
                    client.set("a", 1)


def test_servers_that_are_not_what_the_url_looks_for_are_named_and_others_are_asked(
    cluster: ValkeyCluster, sentinel: SentinelDeployment
) -> None:
    plain = f"127.0.0.1:{sentinel.nodes[0].port}"
    for start, end, other, sentence in (
        ("sentinel://", "/0?service=mine", sentinel.sentinels[0], f"{plain} is not a Sentinel: write the port of"),
        ("redis+cluster://", "", cluster.nodes[0], f"{plain} is not in cluster mode: write redis:// in place of"),
    ):
        with (
            open_client(f"{start}{plain}{end}") as client,
            pytest.raises(redis.exceptions.ConnectionError, match=sentence),
        ):
            client.get(_TAG)
        with open_client(f"{start}{plain},127.0.0.1:{other.port}{end}") as client:
            assert client.get(_TAG) is None


def test_a_service_that_no_sentinel_knows_is_named(sentinel: SentinelDeployment) -> None:
    with (
        open_client(sentinel.url.replace("service=mine", "service=other")) as client,
        pytest.raises(redis.exceptions.ConnectionError, match="no Sentinel knows a primary of the service 'other'"),
    ):
        client.ping()


@pytest.mark.parametrize("form", ["unix://{}?db=2", "redis+socket://{}?virtual_host=2", "unix://:@{}?db=2"])
def test_a_socket_of_this_machine(tmp_path: Path, form: str) -> None:
    with RedisServer(binary=require_redis_binary(), settings=[f"unixsocket {tmp_path}/s"]) as server:
        with open_client(form.format(f"{tmp_path}/s")) as client:
            client.set("a", 1)
        with redis.Redis(port=server.port, db=2) as plain:
            assert plain.get("a") == b"1"
