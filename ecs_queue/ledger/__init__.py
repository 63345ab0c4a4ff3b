"""The ledger: what is true about every request. `base.py` is the protocol; `open_ledger` picks the form."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from ecs_queue.ledger.base import DeadLetter, Ledger, WorkerInfo
from ecs_queue.ledger.memory import MemoryLedger
from ecs_queue.ledger.redis import RedisLedger
from ecs_queue.ledger.redis_script import connect
from ecs_queue.ledger.retention import Retention
from ecs_queue.protocol.settings import ProtocolSettings

if TYPE_CHECKING:
    from ecs_queue.config import Config

__all__ = ["DeadLetter", "Ledger", "MemoryLedger", "RedisLedger", "WorkerInfo", "open_ledger"]


def open_ledger(config: Config) -> Ledger:
    """The ledger at `config.ledger_url`. No connection is made yet. `memory://` is one of its own at each call."""
    settings = ProtocolSettings.from_config(config)
    retention = Retention(seconds=config.retention_seconds)
    if config.ledger_url.startswith("memory:"):
        return MemoryLedger(time.time, settings, retention)
    client = connect(
        config.ledger_url,
        socket_timeout=config.socket_timeout_seconds,
        max_connections=config.concurrency + 16,
    )
    return RedisLedger(
        client,
        config.namespace,
        settings,
        retention,
        durability=config.durability,
        barrier_seconds=0.8 * config.socket_timeout_seconds,
    )
