"""What a runner calls of the ledger, and the connection on which it does."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Protocol

from ecs_queue.runner.alarm import Alarm
from ecs_queue.runner.connection import ServerConnection
from ecs_queue.runs.operations import RunnerOperations
from ecs_queue.runs.redis_runner import RedisRunner
from ecs_queue.runs.runner_options import RunnerOptions
from ecs_queue.server_keys import ledger_prefix
from ecs_queue.server_url import ServerUrl


class Server(Protocol):
    """The ledger as one thread of a runner sees it."""

    @property
    def ledger(self) -> RunnerOperations:
        """The operations."""
        ...

    def interruptible(self, alarm: Alarm) -> AbstractContextManager[None]:
        """Operations in this block raise `Interrupted` when the alarm is set; their effect is unknown then."""
        ...

    def close(self) -> None:
        """Close the connection; the next operation opens a new one."""


class RedisServerLink:
    """`Server` over one connection to Redis or Valkey, which the first operation opens."""

    def __init__(self, url: ServerUrl, options: RunnerOptions) -> None:
        self._connection = ServerConnection(url)
        self.ledger: RunnerOperations = RedisRunner(
            self._connection, ledger_prefix(options.namespace), options.durability
        )

    def interruptible(self, alarm: Alarm) -> AbstractContextManager[None]:
        """See `Server`."""
        return self._connection.interruptible(alarm)

    def close(self) -> None:
        """See `Server`."""
        self._connection.close()
