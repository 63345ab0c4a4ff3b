"""What happens to a RabbitMQ: stopped, frozen, out of patience, in front of it a wrong certificate."""

from __future__ import annotations

import os
import signal
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ecs_queue.broker import Broker, RequestMessage, make_broker
from ecs_queue.errors import BrokerUnavailable
from ecs_queue.local.redis_server import find_free_port
from tests.conformance.broker.harness import BrokerHarness
from tests.rabbitmq_server import RabbitMqServer
from tests.servers import run_rabbitmq
from tests.system.secure_redis import CertificateAuthority
from tests.wait import wait_until

pytestmark = [pytest.mark.server, pytest.mark.slow]

HEARTBEAT = 1
#: Longer than any one call may take while the server does not answer.
MAX_CALL_SECONDS = 20.0
#: After this time RabbitMQ closes a channel that keeps a message; it looks once in a tick of the channel.
CONSUMER_TIMEOUT_MS = 5000
_TICK = "-rabbit channel_tick_interval 500"

MakeBroker = Callable[..., Broker]


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> CertificateAuthority:
    pytest.importorskip("cryptography")
    return CertificateAuthority(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def tls_port() -> int:
    return find_free_port()


@pytest.fixture(scope="module")
def server(
    tmp_path_factory: pytest.TempPathFactory, authority: CertificateAuthority, tls_port: int
) -> Iterator[RabbitMqServer]:
    """One for the module; each test leaves it running."""
    certificate, key = authority.issue("rabbitmq")
    configuration = f"""
consumer_timeout = {CONSUMER_TIMEOUT_MS}
listeners.ssl.1 = 127.0.0.1:{tls_port}
ssl_options.cacertfile = {authority.ca}
ssl_options.certfile = {certificate}
ssl_options.keyfile = {key}
"""
    with run_rabbitmq(tmp_path_factory.mktemp("rabbitmq"), configuration, _TICK) as started:
        yield started


@pytest.fixture
def make(server: RabbitMqServer) -> Iterator[MakeBroker]:
    made: list[Broker] = []
    namespace = f"t{uuid.uuid4().hex[:12]}"

    def make_one(url: str = f"{server.url}?heartbeat={HEARTBEAT}", socket_timeout: float = 5.0) -> Broker:
        made.append(make_broker(url, namespace, visibility_timeout=60.0, socket_timeout=socket_timeout))
        return made[-1]

    yield make_one
    for broker in made:
        broker.close()


def test_messages_survive_a_server_that_is_stopped_and_started(server: RabbitMqServer, make: MakeBroker) -> None:
    broker = make()
    broker.publish_requests([RequestMessage("q", b"%d" % index) for index in range(5)])
    with BrokerHarness(broker) as harness:
        harness.receive(5)
        harness.deliveries[0].ack()
        harness.consumer.drain(0.05)
        broker.backlog("q")  # RabbitMQ has read the acknowledgement before this answer
        server.stop()
        with pytest.raises(BrokerUnavailable):
            harness.drain_for(MAX_CALL_SECONDS)
        with pytest.raises(BrokerUnavailable):
            broker.publish_requests([RequestMessage("q", b"lost")])
        server.start()
        harness.deliveries[1].ack()  # of a channel that is gone: the message comes again

    with BrokerHarness(broker) as harness:
        harness.publish(b"5")
        assert sorted(harness.receive(5)) == [b"1", b"2", b"3", b"4", b"5"]
        assert all(delivery.redelivered for delivery in harness.deliveries if delivery.body != b"5")


def _thread_states(pid: int) -> list[str]:
    """The letters of proc(5): the signal reaches Erlang's threads one after the other, and any may still answer."""
    stats = (path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/stat"))
    return [stat.rpartition(")")[2].split()[0] for stat in stats]


def test_a_server_that_does_not_answer_is_noticed_in_time(server: RabbitMqServer, make: MakeBroker) -> None:
    broker = make(socket_timeout=1.0)
    with BrokerHarness(broker) as harness:
        harness.publish(b"1")
        harness.receive(1)
        os.kill(server.pid, signal.SIGSTOP)
        wait_until(lambda: set(_thread_states(server.pid)) == {"T"}, "every thread of the server has stopped", 10.0)
        try:
            for call in (
                lambda: broker.publish_requests([RequestMessage("q", b"2")]),
                lambda: broker.backlog("q"),
                lambda: harness.drain_for(MAX_CALL_SECONDS),
                make(socket_timeout=1.0).check,
            ):
                before = time.monotonic()
                with pytest.raises(BrokerUnavailable):
                    call()
                assert time.monotonic() - before < MAX_CALL_SECONDS
            before = time.monotonic()
            harness.consumer.close()
            assert time.monotonic() - before < MAX_CALL_SECONDS
        finally:
            os.kill(server.pid, signal.SIGCONT)


def test_a_consumer_that_waits_for_its_handlers_keeps_its_connection(make: MakeBroker) -> None:
    """It neither sends nor takes anything for longer than two heartbeats, but for the heartbeats themselves."""
    with BrokerHarness(make(), prefetch=1) as harness:
        harness.publish(b"1", b"2")
        harness.receive(1)
        harness.drain_for(2.5 * HEARTBEAT)
        harness.deliveries[0].ack()
        harness.consumer.suspend("q")
        harness.drain_for(2.5 * HEARTBEAT)
        harness.consumer.resume("q")

        assert harness.receive(2) == [b"1", b"2"]


def test_a_message_that_is_kept_for_too_long_costs_a_new_connection_and_nothing_else(make: MakeBroker) -> None:
    broker = make()
    with BrokerHarness(broker) as harness:
        harness.publish(b"1")
        harness.receive(1)
        with pytest.raises(BrokerUnavailable, match="timed out"):
            harness.drain_for(MAX_CALL_SECONDS)
        harness.deliveries[0].ack()
    with BrokerHarness(broker) as harness:
        assert harness.receive(1) == [b"1"]
        harness.deliveries[0].ack()
        wait_until(lambda: harness.consumer.drain(0.05) == 0 and broker.backlog("q") == 0)


@pytest.mark.parametrize(
    ("host", "options", "expected"),
    [
        ("127.0.0.1", "?ssl_ca_certs={ca}", ""),
        ("localhost", "?ssl_ca_certs={ca}&ssl_check_hostname=false", ""),
        ("localhost", "?ssl_cert_reqs=none", ""),
        ("localhost", "?ssl_ca_certs={ca}", "CERTIFICATE_VERIFY_FAILED"),
        ("127.0.0.1", "", "CERTIFICATE_VERIFY_FAILED"),
    ],
    ids=["verified", "without its name", "not verified", "of another name", "of an unknown authority"],
)
def test_the_certificate_is_verified_unless_the_url_says_otherwise(
    make: MakeBroker, authority: CertificateAuthority, tls_port: int, host: str, options: str, expected: str
) -> None:
    broker = make(f"amqps://guest:guest@{host}:{tls_port}/{options.format(ca=authority.ca)}")
    if expected:
        with pytest.raises(BrokerUnavailable, match=expected):
            broker.check()
        return
    with BrokerHarness(broker) as harness:
        harness.publish(b"1")
        assert harness.receive(1) == [b"1"]


def test_a_scheme_that_does_not_fit_the_port_says_which_one_to_write(
    server: RabbitMqServer, make: MakeBroker, tls_port: int
) -> None:
    for url, advice in (
        (
            f"amqp://guest:guest@127.0.0.1:{tls_port}/",
            "if the server has TLS at this port, begin broker_url with amqps",
        ),
        (f"amqps://guest:guest@127.0.0.1:{server.port}/", "if this port has no TLS, begin broker_url with amqp://"),
    ):
        broker = make(url)
        with pytest.raises(BrokerUnavailable, match=advice):
            broker.check()
        with pytest.raises(BrokerUnavailable, match=advice):
            BrokerHarness(broker)


def test_a_server_that_blocks_publishers_costs_one_wait(server: RabbitMqServer, make: MakeBroker) -> None:
    """RabbitMQ reads nothing more of a connection that publishes while its memory is above the limit."""
    broker = make(socket_timeout=1.0)
    broker.publish_requests([RequestMessage("q", b"1")])
    with server.blocked_publishers():
        before = time.monotonic()
        with pytest.raises(BrokerUnavailable, match=r"confirmed no message for 1 s.*memory or disk is full"):
            broker.publish_requests([RequestMessage("q", b"2")])
        assert time.monotonic() - before < MAX_CALL_SECONDS / 4
        assert make().backlog("q") >= 1
    broker.publish_requests([RequestMessage("q", b"3")])
    assert broker.backlog("q") >= 2
