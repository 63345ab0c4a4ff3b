"""Names of queues, and settings of the transport."""

from __future__ import annotations

from ecs_queue.broker.topology import transport_options, transport_priority


def test_redis_reverses_priorities() -> None:
    assert [transport_priority(priority, "redis") for priority in (0, 5, 9)] == [9, 4, 0]


def test_other_transports_keep_priorities() -> None:
    assert [transport_priority(priority, "amqp") for priority in (0, 5, 9)] == [0, 5, 9]


def test_every_wait_is_bounded() -> None:
    options = transport_options("ns", 60.0, 5.0)

    assert options["socket_timeout"] == options["socket_connect_timeout"] == 5.0
    assert options["health_check_interval"] > 0
    assert "retry_on_timeout" not in options, "kombu would publish one by one"


def test_every_key_is_in_the_namespace() -> None:
    assert transport_options("ns", 60.0, 5.0)["global_keyprefix"] == "ns:q:"
