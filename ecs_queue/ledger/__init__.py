"""The ledger: the truth about every request. `base.py` has its protocol; `open_ledger` picks the implementation."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from ecs_queue.ledger.base import DeadLetter, Ledger, WorkerInfo
from ecs_queue.ledger.memory import MemoryLedger
from ecs_queue.ledger.redis import RedisLedger
from ecs_queue.protocol.settings import ProtocolSettings
from ecs_queue.redis_connection import connect
from ecs_queue.server_keys import namespace_prefix
from ecs_queue.server_url import longest_wait, response_timeout

if TYPE_CHECKING:
    from ecs_queue.config import Config

__all__ = ["DeadLetter", "Ledger", "MemoryLedger", "RedisLedger", "WorkerInfo", "open_ledger"]


def open_ledger(config: Config, durability: str = "") -> Ledger:
    """Return the ledger at `config.ledger_url`, which connects with its first call. Each `memory://` is a new one.

    Args:
        config: The configuration.
        durability: In place of the configured one.
    """
    settings = ProtocolSettings.from_config(config)
    if config.ledger_url.startswith("memory:"):
        return MemoryLedger(time.time, settings)
    client = connect(
        config.ledger_url,
        socket_timeout=config.socket_timeout_seconds,
        max_connections=config.concurrency + 16,
        slot_key=namespace_prefix(config.namespace),
        iam=config.ledger_iam,
    )
    timeout = response_timeout(config.ledger_url, config.socket_timeout_seconds)
    durability = durability or config.durability
    return RedisLedger(
        client,
        config.namespace,
        settings,
        durability,
        barrier_seconds=0.8 * timeout,
        block_seconds=longest_wait(config.ledger_url, config.socket_timeout_seconds),
    )
