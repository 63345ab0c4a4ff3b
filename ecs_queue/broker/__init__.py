"""The broker: messages that wake workers and clients. The ledger decides; a message only names a record."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ecs_queue.broker.base import Broker, Delivery, RequestMessage
from ecs_queue.broker.kombu import KombuBroker

if TYPE_CHECKING:
    from ecs_queue.config import Config

__all__ = ["Broker", "Delivery", "KombuBroker", "RequestMessage", "open_broker"]


def open_broker(config: Config) -> KombuBroker:
    """Return the broker at `config.broker_url`. No connection is made yet."""
    return KombuBroker(
        config.broker_url,
        config.namespace,
        visibility_timeout=config.visibility_timeout,
        socket_timeout=config.socket_timeout_seconds,
    )
