"""Names of queues and of their keys in Redis."""

from __future__ import annotations

from ecs_queue.broker.topology import QueueKeys, redis_priority


def test_redis_reverses_priorities() -> None:
    assert [redis_priority(priority) for priority in (0, 5, 9)] == [9, 4, 0]


def test_every_key_is_in_the_namespace() -> None:
    keys = QueueKeys("ns")

    every = [keys.unacked, keys.unacked_index, keys.unreadable, keys.wake_key("a"), *keys.list_keys("a")]
    assert all(key.startswith("{ns}:q:") for key in every)
    assert len(set(every)) == 14
