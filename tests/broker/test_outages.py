"""A Redis that crashes, is unreachable, or does not respond."""

from __future__ import annotations

import os
import signal
import socket
import time
import traceback
from collections.abc import Callable, Iterator

import psutil
import pytest
import redis

from ecs_queue.broker import Delivery, RedisBroker, RequestMessage
from ecs_queue.errors import BrokerUnavailable
from ecs_queue.local.redis_server import RedisServer
from tests.conformance.broker.harness import BrokerHarness

#: Maximum duration of any call, in any state of the server: a few socket time-outs. Seconds.
MAX_CALL_SECONDS = 20.0


@pytest.fixture
def own_broker(own_redis: RedisServer) -> Iterator[RedisBroker]:
    """A broker on that server."""
    broker = RedisBroker(own_redis.url, "ns", visibility_timeout=60.0, socket_timeout=1.0)
    yield broker
    broker.close()


def _restart_and_wait(server: RedisServer) -> None:
    """Start the server again, and wait until it has loaded its data."""
    server.start()
    deadline = time.monotonic() + MAX_CALL_SECONDS
    with redis.Redis(port=server.port) as plain:
        while plain.info("persistence")["loading"]:
            assert time.monotonic() < deadline
            time.sleep(0.01)


def _repeat(act: Callable[[], object]) -> None:
    for _ in range(20):
        act()


def _retry_until_it_works(act: Callable[[], object]) -> object:
    """Repeat until it does not raise BrokerUnavailable."""
    deadline = time.monotonic() + MAX_CALL_SECONDS
    while True:
        try:
            return act()
        except BrokerUnavailable:
            assert time.monotonic() < deadline
            time.sleep(0.05)


class TestServerCrash:
    def test_a_consumer_raises_and_a_new_one_works_after_the_restart(
        self, own_redis: RedisServer, own_broker: RedisBroker
    ) -> None:
        with BrokerHarness(own_broker) as harness:
            harness.publish(b"1", b"2")
            harness.receive(1)
            own_redis.kill()

            with pytest.raises(BrokerUnavailable):
                _repeat(lambda: harness.consumer.drain(0.2))
            harness.deliveries[0].ack()
        _restart_and_wait(own_redis)

        with _retry_until_it_works(lambda: BrokerHarness(own_broker)) as other:  # type: ignore[attr-defined]
            own_broker.publish_requests([RequestMessage("q", b"3")])
            other.drain_until(lambda: {b"2", b"3"} <= set(other.bodies))

    def test_the_publisher_recovers_by_itself(self, own_redis: RedisServer, own_broker: RedisBroker) -> None:
        own_broker.publish_requests([RequestMessage("q", b"1")])

        own_redis.kill()
        with pytest.raises(BrokerUnavailable):
            own_broker.publish_requests([RequestMessage("q", b"2")])
        _restart_and_wait(own_redis)
        own_broker.publish_requests([RequestMessage("q", b"3")])

        assert own_broker.backlog("q") == 2

    def test_a_connection_that_died_while_idle_loses_no_publication(
        self, own_redis: RedisServer, own_broker: RedisBroker
    ) -> None:
        own_broker.publish_requests([RequestMessage("q", b"1")])
        own_redis.kill()
        _restart_and_wait(own_redis)

        own_broker.publish_requests([RequestMessage("q", b"2")])

        assert own_broker.backlog("q") == 2

    def test_a_result_consumer_recovers_by_itself(self, own_redis: RedisServer, own_broker: RedisBroker) -> None:
        consumer = own_broker.consume_results("me")
        consumer.drain(0.05)

        own_redis.kill()
        with pytest.raises(BrokerUnavailable):
            _repeat(lambda: consumer.drain(0.2))
        _restart_and_wait(own_redis)
        _retry_until_it_works(lambda: own_broker.publish_results([("me", b"1")]))

        assert _retry_until_it_works(lambda: consumer.drain(2.0)) == [b"1"]
        consumer.close()


class TestServerUnreachable:
    @pytest.fixture
    def broker(self) -> RedisBroker:
        with socket.socket() as received:
            received.bind(("127.0.0.1", 0))
            port = received.getsockname()[1]
        url = f"redis://user:hunter2@127.0.0.1:{port}/0"
        return RedisBroker(url, "ns", visibility_timeout=60.0, socket_timeout=1.0)

    @pytest.mark.parametrize(
        "act",
        [
            lambda broker: broker.publish_requests([RequestMessage("q", b"1")]),
            lambda broker: broker.publish_results([("me", b"1")]),
            lambda broker: broker.consume_requests(["q"], 1, print, print),
            lambda broker: broker.consume_results("me").drain(0.1),
            lambda broker: broker.backlog("q"),
            lambda broker: broker.delete_result_queue("me"),
            lambda broker: broker.check(),
        ],
        ids=["requests", "results", "consume", "inbox", "backlog", "delete", "check"],
    )
    def test_every_call_raises_at_once_without_the_password(
        self, broker: RedisBroker, act: Callable[[RedisBroker], object]
    ) -> None:
        before = time.monotonic()

        with pytest.raises(BrokerUnavailable) as raised:
            act(broker)

        assert time.monotonic() - before < 3.0
        assert "broker_url" in str(raised.value)
        assert "hunter2" not in "".join(traceback.format_exception(raised.value))

    def test_a_wrong_password_is_reported_without_the_password(self, own_redis: RedisServer) -> None:
        with redis.Redis(port=own_redis.port) as plain:
            plain.config_set("requirepass", "right")
        url = own_redis.url.replace("//", "//:hunter2@")
        broker = RedisBroker(url, "ns", visibility_timeout=60.0, socket_timeout=1.0)

        with pytest.raises(BrokerUnavailable) as raised:
            broker.check()

        assert "hunter2" not in "".join(traceback.format_exception(raised.value))
        with redis.Redis(port=own_redis.port, password="right") as plain:
            plain.config_set("requirepass", "")


class TestServerFrozen:
    """It accepts connections and never responds, as a half-open connection does."""

    @pytest.fixture
    def frozen(self, own_redis: RedisServer) -> Iterator[Callable[[], None]]:
        def freeze() -> None:
            os.kill(own_redis.pid, signal.SIGSTOP)

        yield freeze
        os.kill(own_redis.pid, signal.SIGCONT)

    def test_publishing_times_out(
        self, own_redis: RedisServer, own_broker: RedisBroker, frozen: Callable[[], None]
    ) -> None:
        own_broker.publish_requests([RequestMessage("q", b"1")])
        frozen()
        before = time.monotonic()

        with pytest.raises(BrokerUnavailable):
            own_broker.publish_requests([RequestMessage("q", b"2")])

        assert time.monotonic() - before < MAX_CALL_SECONDS

    def test_drain_and_close_time_out(
        self, own_redis: RedisServer, own_broker: RedisBroker, frozen: Callable[[], None]
    ) -> None:
        harness = BrokerHarness(own_broker)
        harness.publish(b"1")
        harness.receive(1)
        frozen()
        before = time.monotonic()

        harness.deliveries[0].ack()
        with pytest.raises(BrokerUnavailable):
            harness.consumer.drain(0.5)
        harness.consumer.close()

        assert time.monotonic() - before < MAX_CALL_SECONDS


@pytest.mark.parametrize("maxmemory", [0, 512 * 1024], ids=["with-memory-left", "full"])
def test_a_consumer_that_requeues_its_messages_leaves_no_socket_open(
    own_redis: RedisServer, own_broker: RedisBroker, maxmemory: int
) -> None:
    own_broker.publish_requests([RequestMessage("default", b"1"), RequestMessage("default", b"2")])
    received: list[Delivery] = []
    consumer = own_broker.consume_requests(
        ["default"], 10, received.append, lambda queue, raw, reason: pytest.fail(reason)
    )
    deadline = time.monotonic() + MAX_CALL_SECONDS
    while len(received) < 2:
        assert time.monotonic() < deadline
        consumer.drain(1.0)
    with redis.Redis(port=own_redis.port) as plain:
        plain.config_set("maxmemory", maxmemory)

    consumer.close()
    own_broker.close()

    sockets = psutil.Process().net_connections("inet")
    assert [one for one in sockets if one.raddr and one.raddr.port == own_redis.port] == []
    assert len(received) == 2  # they keep the channel alive: nothing was closed by garbage collection
