"""The ledger: the truth about every request. `base.py` has its protocol; `open_ledger` picks the implementation."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from ecs_queue.ledger.base import DeadLetter, Ledger, WorkerInfo
from ecs_queue.ledger.memory import MemoryLedger
from ecs_queue.ledger.redis import RedisLedger
from ecs_queue.ledger.redis_script import connect
from ecs_queue.protocol.settings import ProtocolSettings

if TYPE_CHECKING:
    from ecs_queue.config import Config

__all__ = ["DeadLetter", "Ledger", "MemoryLedger", "RedisLedger", "WorkerInfo", "open_ledger"]


def open_ledger(config: Config) -> Ledger:
    """Return the ledger at `config.ledger_url`, which connects with its first call. Each `memory://` is a new one."""
    settings = ProtocolSettings.from_config(config)
    if config.ledger_url.startswith("memory:"):
        return MemoryLedger(time.time, settings)
    timeout = config.socket_timeout_seconds
    client = connect(config.ledger_url, socket_timeout=timeout, max_connections=config.concurrency + 16)
    return RedisLedger(client, config.namespace, settings, config.durability, barrier_seconds=0.8 * timeout)
