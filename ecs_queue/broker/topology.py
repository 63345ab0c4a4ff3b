"""Names of queues, and settings of the transport.

Messages are published through the default exchange, which needs no binding: a lost binding cannot drop messages. In
Redis every key of a namespace begins with `<namespace>:q:`, also kombu's own (`unacked` and its index), so that another
application in the same database never requeues our messages.

    requests.<queue>    TaskRequest envelopes; workers consume them
    results.<owner>     TaskResult envelopes; the owner consumes them; expires when it is not used
"""

from __future__ import annotations

from typing import Any

#: A result queue expires after this time without use; the ledger still has the results. Seconds.
RESULT_QUEUE_EXPIRY_SECONDS = 3600
LOWEST_PRIORITY, HIGHEST_PRIORITY = 0, 9
#: Maximum number of messages that one restore requeues.
RESTORE_LIMIT = 1000


def request_queue_name(queue: str) -> str:
    """Return the broker's name of a request queue."""
    return f"requests.{queue}"


def result_queue_name(owner: str) -> str:
    """Return the broker's name of an owner's result queue."""
    return f"results.{owner}"


def transport_priority(priority: int, transport: str) -> int:
    """Return our priority (9 is served first) in the transport's order: Redis serves 0 first."""
    return HIGHEST_PRIORITY - priority if transport == "redis" else priority


def transport_options(namespace: str, visibility_timeout: float, socket_timeout: float) -> dict[str, Any]:
    """Return kombu's options for the Redis transport: every wait is bounded, every key is in the namespace."""
    return {
        "priority_steps": list(range(LOWEST_PRIORITY, HIGHEST_PRIORITY + 1)),
        "global_keyprefix": f"{namespace}:q:",
        "visibility_timeout": visibility_timeout,
        # kombu's own schedule is off: workers call `RequestConsumer.restore_expired` on a timer.
        "unacked_restore_throttle": 1_000_000_000,
        "unacked_restore_limit": RESTORE_LIMIT,
        # A worker that is killed during a restore must not block the others (kombu's default: five minutes). The mutex
        # only saves work: each message is requeued in a transaction, by one worker.
        "unacked_mutex_expire": 2,
        "socket_timeout": socket_timeout,
        "socket_connect_timeout": socket_timeout,
        "socket_keepalive": True,
        "health_check_interval": 25,
        "client_name": "ecs-queue",
    }
