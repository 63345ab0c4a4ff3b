"""The ledger: what is true about every request. `base.py` is the protocol; `open_ledger` picks the form."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from ecs_queue.ledger.base import DeadLetter, Ledger, WorkerInfo
from ecs_queue.ledger.memory import MemoryLedger
from ecs_queue.ledger.redis import RedisLedger
from ecs_queue.ledger.redis_script import connect
from ecs_queue.ledger.retention import Retention
from ecs_queue.protocol.operations import ProtocolSettings

if TYPE_CHECKING:
    from ecs_queue.config import Config

__all__ = ["DeadLetter", "Ledger", "MemoryLedger", "RedisLedger", "WorkerInfo", "open_ledger"]


def open_ledger(config: Config) -> Ledger:
    """The ledger at `config.ledger_url`. No connection is made yet. `memory://` is one of its own at each call."""
    rules = ProtocolSettings(
        lease_seconds=config.lease_seconds,
        settle_seconds=config.settle_seconds,
        startup_allowance=config.startup_allowance,
        sweep_after_seconds=config.sweep_after_seconds,
        max_in_flight=config.max_in_flight,
        accept_seconds=config.accept_seconds,
        max_deliveries=config.max_deliveries,
    )
    retention = Retention(seconds=config.retention_seconds)
    if config.ledger_url.startswith("memory:"):
        return MemoryLedger(time.time, rules, retention)
    client = connect(
        config.ledger_url,
        socket_timeout=config.socket_timeout_seconds,
        max_connections=config.concurrency + 16,
    )
    return RedisLedger(
        client,
        config.namespace,
        rules,
        retention,
        durability=config.durability,
        barrier_seconds=0.8 * config.socket_timeout_seconds,
    )
