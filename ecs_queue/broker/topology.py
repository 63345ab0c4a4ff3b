"""Names and numbers on the broker, in one place.

Everything is published through the default exchange, which needs no binding: a lost binding cannot drop messages.
Under Redis every key of a namespace begins with `<namespace>:q:`, also kombu's own (`unacked` and its index), so that
another application in the same database never restores our messages.

    requests.<queue>    TaskRequest envelopes; launchers consume
    results.<owner>     TaskResult envelopes; the owner drains them; expires when nobody does
"""

from __future__ import annotations

from typing import Any

#: A queue of results that nobody touches for so long is dropped; the ledger still has the results. Seconds.
RESULT_QUEUE_EXPIRY_SECONDS = 3600
LOWEST_PRIORITY, HIGHEST_PRIORITY = 0, 9
#: The most messages that one restore gives back.
RESTORE_LIMIT = 1000


def request_queue_name(queue: str) -> str:
    """The broker's name of a request queue."""
    return f"requests.{queue}"


def result_queue_name(owner: str) -> str:
    """The broker's name of an owner's results."""
    return f"results.{owner}"


def transport_priority(priority: int, transport: str) -> int:
    """Our priority (9 is served first) as the transport counts: Redis serves 0 first."""
    return HIGHEST_PRIORITY - priority if transport == "redis" else priority


def transport_options(namespace: str, visibility_timeout: float, socket_timeout: float) -> dict[str, Any]:
    """kombu's options for the Redis transport: every wait bounded, every key in the namespace."""
    return {
        "priority_steps": list(range(LOWEST_PRIORITY, HIGHEST_PRIORITY + 1)),
        "global_keyprefix": f"{namespace}:q:",
        "visibility_timeout": visibility_timeout,
        # kombu restores only now and then by itself; `RequestConsumer.restore` does it on a timer of ours.
        "unacked_restore_throttle": 1_000_000_000,
        "unacked_restore_limit": RESTORE_LIMIT,
        # A worker that is killed in the middle of a restore must not keep the others from it (kombu: for five minutes).
        # The mutex only saves work: each message is restored in a transaction, by one worker, whoever holds it.
        "unacked_mutex_expire": 2,
        "socket_timeout": socket_timeout,
        "socket_connect_timeout": socket_timeout,
        "socket_keepalive": True,
        "health_check_interval": 25,
        "client_name": "ecs-queue",
    }
