"""Checks a broker that is no Redis: that it answers, and that the queues that exist can be used."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from urllib.parse import urlsplit

from ecs_queue.broker.base import Broker
from ecs_queue.broker_url import is_amqp_url, parse_amqp_url, parse_sqs_url
from ecs_queue.doctor.server import is_loopback
from ecs_queue.errors import BrokerUnavailable, MissingRight, UnusableServer
from ecs_queue.findings import Finding, Reporter


def check_broker(
    url: str,
    broker: Broker,
    queues: Sequence[str],
    monotonic: Callable[[], float] = time.monotonic,
    *,
    has_canary: bool = False,
) -> Iterator[Finding]:
    """Check the broker at a URL without making a queue.

    Args:
        url: The broker's URL.
        broker: The broker at this URL.
        queues: The queues to check, as far as they exist.
        monotonic: Seconds of a monotonic clock.
        has_canary: Whether a request follows.
    """
    reporter = Reporter("broker")
    try:
        broker.check()
        began = monotonic()
        broker.check(queues, may_create=False)
        waiting = sum(map(broker.backlog, queues))
    except UnusableServer as error:
        yield reporter.unusable("server.queues", str(error), "correct the queue, or choose another namespace")
    except MissingRight as error:
        yield reporter.unusable("server.rights", str(error), "grant it")
    except BrokerUnavailable as error:
        yield reporter.error("server.reachable", str(error), "start the server, or correct broker_url")
    else:
        name = "RabbitMQ" if is_amqp_url(url) else "SQS"
        took = (monotonic() - began) * 1000
        yield reporter.ok("server.reachable", f"{name} answers for {len(queues)} queue(s) in {took:.0f} ms")
        yield reporter.ok("server.queues", f"{waiting} message(s) wait")
        if not has_canary:
            text = "the rights to make queues, to publish and to receive are only tested by a real request"
            yield reporter.info("server.rights", text, "add --canary")
        yield _transport(reporter, url)


def _transport(reporter: Reporter, url: str) -> Finding:
    if is_amqp_url(url):
        amqp = parse_amqp_url(url)
        is_encrypted, host, advice = amqp.tls is not None, urlsplit(amqp.location).hostname, "use amqps://"
    else:
        endpoint = urlsplit(parse_sqs_url(url).endpoint_url or "https:")
        is_encrypted, host, advice = endpoint.scheme == "https", endpoint.hostname, "use an endpoint_url with https"
    if is_encrypted:
        return reporter.ok("server.transport", "the connection has TLS")
    if is_loopback(host or "localhost"):
        return reporter.ok("server.transport", "the connection does not leave this machine")
    text = f"no TLS to {host}: commands and environments cross the network in clear"
    return reporter.warning("server.transport", text, advice)
