"""How long a search for the primary takes, whichever servers do not answer."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import pytest
import redis.exceptions

from ecs_queue.redis_connection import connect
from ecs_queue.redis_connection.locators import ClusterLocator, SentinelLocator
from ecs_queue.redis_connection.route import Address, Route


@pytest.fixture
def silent_servers() -> Iterator[list[tuple[str, int]]]:
    """Addresses at which connections are accepted and never answered."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(6)]
        yield [each.getsockname() for each in sockets]


@pytest.mark.parametrize("form", ["redis+cluster://{}", "sentinel://{}/0?service=s"])
def test_a_search_ends_in_time_however_many_servers_do_not_answer(
    silent_servers: list[tuple[str, int]], form: str
) -> None:
    hosts = ",".join(f"{host}:{port}" for host, port in silent_servers)
    with connect(form.format(hosts), socket_timeout=0.4, max_connections=8) as client:
        began = time.monotonic()
        with ThreadPoolExecutor(8) as threads:
            calls = [threads.submit(client.ping) for _ in range(8)]
            errors = [call.exception() for call in calls]
        assert all(isinstance(error, redis.exceptions.RedisError) for error in errors)
        assert time.monotonic() - began < 8 * 0.4  # one search for all, and one repeat of it; not one after the other


class FakeLocator:
    """Finds what it is given, or fails."""

    asks_for_each_connection = False

    def __init__(self, *found: Address | Exception) -> None:
        self.found = list(found)
        self.entered, self.released = threading.Event(), threading.Event()

    def find(self) -> Address:
        """See `Locator`. The first search lasts until it is released."""
        self.entered.set()
        self.released.wait(30)
        found = self.found.pop(0)
        if isinstance(found, Exception):
            raise found
        return found

    def suspect(self, error: Exception | None) -> bool:
        """See `Locator`."""
        return error is None


def test_those_who_wait_for_a_search_share_its_failure() -> None:
    locator = FakeLocator(redis.exceptions.ConnectionError("down"))
    route = Route(locator)
    with ThreadPoolExecutor(4) as threads:
        first = threads.submit(route.find)
        assert locator.entered.wait(30)
        others = [threads.submit(route.find) for _ in range(3)]
        time.sleep(0.2)  # they wait for the lock; one that comes later searches by itself, and fails the test
        locator.released.set()
        for call in (first, *others):
            assert str(call.exception()) == "down"


def test_of_several_reports_about_one_address_the_first_leads_to_a_new_search() -> None:
    locator = FakeLocator(Address("a", 1), Address("b", 2))
    locator.released.set()
    route = Route(locator)
    found = route.find()
    assert found.address == ("a", 1)
    for _ in range(3):
        route.report_failure(found.search)
    assert route.find().address == ("b", 2)
    route.report_failure(found.search)
    assert route.find().address == ("b", 2)


def test_a_search_that_finds_the_same_address_keeps_the_connections() -> None:
    locator = FakeLocator(Address("a", 1), Address("a", 1), Address("b", 2))
    locator.released.set()
    route = Route(locator)
    first = route.find()
    route.report_failure(first.search)
    second = route.find()
    assert (second.version, route.version) == (first.version, first.version)
    route.report_failure(second.search)
    assert route.find().version == route.version == first.version + 1


class FakeSentinels:
    """What each one names as the primary; None: it does not answer."""

    def __init__(self, **named: str | None) -> None:
        self.named = named
        self.asked: list[str] = []
        asker: Any = self
        self.locator = SentinelLocator(asker, [(name, 1) for name in named], "s")

    def ask_each(self, servers: list[Address], read: Any, unknown: str, *_: str) -> Iterator[Address]:
        """See `ServerAsker`."""
        answers = 0
        for server in servers:
            self.asked.append(server.host)
            if named := self.named[server.host]:
                answers += 1
                yield read([named.encode(), b"6379"], server)
        if not answers:
            raise redis.exceptions.ConnectionError(unknown)

    def find(self, times: int) -> list[str]:
        """Return what as many searches find."""
        self.asked.clear()
        return [self.locator.find().host for _ in range(times)]


def test_each_search_begins_with_another_sentinel() -> None:
    """What one says may be out of date for as long as it is cut off from the others."""
    sentinels = FakeSentinels(a="old", b="old", c="old")
    assert sentinels.find(1) == ["old"]
    assert sentinels.find(3) == ["old"] * 3
    assert sentinels.asked == ["b", "c", "a"]  # one for each: it confirms the present primary


@pytest.mark.parametrize("stale", ["a", "b", "c"])
def test_a_sentinel_with_an_old_answer_is_outvoted(stale: str) -> None:
    sentinels = FakeSentinels(**(dict.fromkeys("abc", "new") | {stale: "old"}))
    assert sentinels.find(7) == ["new"] * 7


def test_a_new_primary_is_found_when_most_sentinels_name_it() -> None:
    sentinels = FakeSentinels(a="old", b="old", c="old")
    assert sentinels.find(1) == ["old"]
    sentinels.named["a"] = "new"
    assert sentinels.find(3) == ["old"] * 3
    sentinels.named["b"] = "new"
    assert sentinels.find(1) == ["new"]
    sentinels.named |= {"b": None, "c": None}
    assert sentinels.find(3) == ["new"] * 3


def test_of_two_sentinels_that_differ_the_present_primary_counts_until_it_fails() -> None:
    sentinels = FakeSentinels(a="old", b="old")
    assert sentinels.find(1) == ["old"]
    sentinels.named["b"] = "new"
    assert sentinels.find(4) == ["old"] * 4
    found = []
    for _ in range(2):
        sentinels.locator.suspect(None)
        found += sentinels.find(1)
    assert sorted(found) == ["new", "old"]  # one after the other: one of them works


def test_nodes_whose_addresses_have_changed_give_way_to_those_of_the_url() -> None:
    asked: list[list[str]] = []
    slots = [[0, 16383, [b"10.0.0.1", 6379], [b"10.0.0.2", 6379]]]

    class FakeAsker:
        def ask(self, servers: list[Address], read: Any, *_: str) -> Address:
            asked.append([server.host for server in servers])
            if len(asked) == 2:
                raise redis.exceptions.TimeoutError("none answers")
            found: Address = read(slots, servers[0])
            return found

    asker: Any = FakeAsker()
    locator = ClusterLocator(asker, [("endpoint", 6379)], "{ns}")
    assert locator.find() == ("10.0.0.1", 6379)
    with pytest.raises(redis.exceptions.TimeoutError):
        locator.find()
    locator.find()
    assert asked[0] == ["endpoint"]
    assert sorted(asked[1]) == ["10.0.0.1", "10.0.0.2", "endpoint"]
    assert asked[2] == ["endpoint"]
