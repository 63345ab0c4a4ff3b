"""Names of queues, and the keys of a namespace in Redis.

In Redis every key of these queues begins with `{NAMESPACE}:q:`, also those that kombu has (`unacked` and its index), so
that another application in the same database never requeues our messages. kombu's default exchange needs no binding: a
lost binding cannot drop messages.

    requests.<queue>    TaskRequest envelopes; workers consume them
    results.<owner>     TaskResult envelopes; the owner consumes them; expires when it is not used
"""

from __future__ import annotations

from ecs_queue.server_keys import queue_prefix

#: A result queue expires after this time without use; the ledger still has the results. Seconds.
RESULT_QUEUE_EXPIRY_SECONDS = 3600
#: Maximum size of an element that is read: the default of `max_message_bytes`. Our own have at most some 180 KiB.
MAX_MESSAGE_BYTES = 1024 * 1024
LOWEST_PRIORITY, HIGHEST_PRIORITY = 0, 9
#: Lists of one queue: one for each priority.
LISTS_PER_QUEUE = HIGHEST_PRIORITY + 1
_REQUESTS, _URGENT = "requests.", "urgent."
#: What kombu writes between a queue's name and a priority.
_SEPARATOR = "\x06\x16"


def request_queue_name(queue: str) -> str:
    """Return the broker's name of a request queue."""
    return f"{_REQUESTS}{queue}"


def urgent_queue_name(queue: str) -> str:
    """Return the broker's name of the queue of urgent requests, for a broker whose queues have no priorities."""
    return f"{_URGENT}{queue}"


def is_request_queue(name: str) -> bool:
    """Return whether the broker's name is that of a request queue."""
    return name.startswith(_REQUESTS)


def request_queue_of(name: str) -> str:
    """Return the queue that the broker calls `name`."""
    return name.removeprefix(_REQUESTS)


def result_queue_name(owner: str) -> str:
    """Return the broker's name of an owner's result queue."""
    return f"results.{owner}"


def redis_priority(priority: int) -> int:
    """Return our priority (9 is served first) in the order of kombu's Redis lists: 0 is served first."""
    return HIGHEST_PRIORITY - priority


class QueueKeys:
    """The keys of a namespace's queues in Redis, as kombu names them; the last two kinds are ours alone."""

    def __init__(self, namespace: str) -> None:
        self._prefix = queue_prefix(namespace)
        #: Hash of unacknowledged messages: delivery tag -> [message, exchange, queue].
        self.unacked = f"{self._prefix}unacked"
        #: Sorted set: delivery tag -> when the message was taken, in seconds since the epoch.
        self.unacked_index = f"{self._prefix}unacked_index"
        #: Hash of elements that are no messages, while a consumer reports them: "TIME QUEUE NUMBER ID" -> first bytes.
        self.unreadable = f"{self._prefix}unacked_unreadable"
        #: Never exist: a server that accepts them together accepts the keys of every script.
        self.check_keys = [f"{self._prefix}slot", f"{self._prefix}slot2"]

    def list_key(self, name: str, priority: int = 0) -> str:
        """Return the list of a queue's messages of one priority, in the order of Redis: 0 is served first."""
        return f"{self._prefix}{name}{_SEPARATOR}{priority}" if priority else f"{self._prefix}{name}"

    def list_keys(self, name: str) -> list[str]:
        """Return the lists of a queue in the order in which they are served."""
        return [self.list_key(name, priority) for priority in range(LISTS_PER_QUEUE)]

    def wake_key(self, name: str) -> str:
        """Return the sorted set with one member while a message may wait: what an idle consumer blocks on."""
        return f"{self._prefix}{name}:wake"
