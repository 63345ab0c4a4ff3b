"""The broker: messages that wake workers and clients. The ledger decides; a message only names a record."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ecs_queue.broker.amqp import AmqpBroker
from ecs_queue.broker.base import Broker, Delivery, RequestMessage
from ecs_queue.broker.kombu import KombuBroker
from ecs_queue.broker.redis import RedisBroker
from ecs_queue.broker_url import is_amqp_url, is_sqs_url
from ecs_queue.server_url import is_server_url

if TYPE_CHECKING:
    from ecs_queue.config import Config
    from ecs_queue.server_url.iam import IamLogin

__all__ = ["Broker", "Delivery", "KombuBroker", "RedisBroker", "RequestMessage", "make_broker", "open_broker"]


def open_broker(config: Config) -> Broker:
    """Return the broker at `config.broker_url`. No connection is made yet."""
    return make_broker(
        config.broker_url,
        config.namespace,
        ledger_url=config.ledger_url,
        broker_iam=config.broker_iam,
        ledger_iam=config.ledger_iam,
        visibility_timeout=config.visibility_timeout,
        socket_timeout=config.socket_timeout_seconds,
        max_message_bytes=config.max_message_bytes,
    )


def make_broker(
    url: str,
    namespace: str,
    *,
    ledger_url: str = "",
    broker_iam: IamLogin | None = None,
    ledger_iam: IamLogin | None = None,
    **options: Any,
) -> Broker:
    """Return the broker at a URL.

    Args:
        url: That of the broker.
        namespace: That of the installation.
        ledger_url: That of the ledger, for brokers whose results go there.
        broker_iam: The log-in at the broker, if it is a Redis.
        ledger_iam: The log-in at the ledger.
        options: Those of `KombuBroker`.
    """
    if is_amqp_url(url):
        return AmqpBroker(url, namespace, **options)
    if is_sqs_url(url):
        from ecs_queue.broker.sqs import SqsBroker  # botocore takes a while

        results = RedisBroker(ledger_url, namespace, iam=ledger_iam, **options)
        return SqsBroker(url, namespace, results=results, **options)
    if is_server_url(url):
        return RedisBroker(url, namespace, iam=broker_iam, **options)
    return KombuBroker(url, namespace, **options)
