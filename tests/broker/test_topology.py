"""Names and numbers on the broker."""

from __future__ import annotations

from ecs_queue.broker.topology import transport_options, transport_priority


def test_redis_counts_priorities_the_other_way_round() -> None:
    assert [transport_priority(priority, "redis") for priority in (0, 5, 9)] == [9, 4, 0]


def test_other_transports_count_as_we_do() -> None:
    assert [transport_priority(priority, "amqp") for priority in (0, 5, 9)] == [0, 5, 9]


def test_every_wait_is_bounded() -> None:
    options = transport_options("ns", 60.0, 5.0)

    assert options["socket_timeout"] == options["socket_connect_timeout"] == 5.0
    assert options["health_check_interval"] > 0
    assert "retry_on_timeout" not in options, "kombu would publish one by one"


def test_every_key_is_in_the_namespace() -> None:
    assert transport_options("ns", 60.0, 5.0)["global_keyprefix"] == "ns:q:"
