"""All examinations in the order in which a launch depends on them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from importlib import metadata

from botocore.exceptions import BotoCoreError

from ecs_queue.broker import open_broker
from ecs_queue.client import EcsQueue
from ecs_queue.config import Config, Profile
from ecs_queue.doctor.account import examine_account
from ecs_queue.doctor.canary import send_canary
from ecs_queue.doctor.events import examine_events
from ecs_queue.doctor.finding import Finding, Report
from ecs_queue.doctor.fleet import examine_fleet, examine_settings
from ecs_queue.doctor.server import examine_server
from ecs_queue.ecs.clients import ClientOptions, EcsClients, Target
from ecs_queue.ecs.event_queue import open_sqs
from ecs_queue.errors import EcsQueueError
from ecs_queue.ledger import open_ledger

#: A person waits: shorter than a worker's. Seconds.
_CONNECT, _READ = 3.0, 8.0


def examine(
    config: Config, queues: Sequence[str], canary: Sequence[str] | None, canary_timeout: float
) -> Iterator[Finding]:
    """`queues`: only these profiles, () all. `canary`: the command to send through each of them, None: none.

    Findings come as they are made; every wait is bounded.
    """
    yield from examine_settings(config)
    yield from _servers(config)
    broker, ledger = open_broker(config), open_ledger(config)
    try:
        yield from examine_fleet(config, broker, ledger, _version())
    finally:
        broker.close()
        ledger.close()
    clients = EcsClients(ClientOptions(connect_timeout=_CONNECT, read_timeout=_READ, max_pool_connections=1))
    chosen = [config.profile(queue) for queue in queues] or config.profiles()
    for profile in chosen:
        yield from _account(config, profile, clients)
    if canary is not None:
        with EcsQueue(config, open_broker(config), open_ledger(config)) as client:
            for profile in chosen:
                yield from send_canary(client, profile.queue, canary, canary_timeout)


def _servers(config: Config) -> Iterator[Finding]:
    timeout = min(config.socket_timeout_seconds, _READ)
    yield from examine_server("ledger", config.ledger_url, config.durability, timeout)
    if config.broker_url != config.ledger_url:
        yield from examine_server("broker", config.broker_url, "", timeout)


def _account(config: Config, profile: Profile, clients: EcsClients) -> Iterator[Finding]:
    try:
        profile.require_launchable()
        target = clients.target_for(profile)
    except EcsQueueError as error:
        yield Report(profile.queue).wrong("aws.profile", str(error), "set what is missing")
        return

    yield from examine_account(config, profile, target, partial(clients.service, target))
    yield from _events(config, profile, target, clients)


def _events(config: Config, profile: Profile, target: Target, clients: EcsClients) -> Iterator[Finding]:
    url = config.event_queue_of(profile.queue)
    if not url:
        return
    report = Report(profile.queue)
    try:
        sqs = open_sqs(clients, target, url)
    except (EcsQueueError, BotoCoreError) as error:
        yield report.wrong("aws.events", str(error), "set AWS_PROFILE, AWS_ACCESS_KEY_ID ... or a role")
        return
    yield from examine_events(report, url, sqs)


def _version() -> str:
    try:
        return metadata.version("ecs-queue")
    except metadata.PackageNotFoundError:  # run from a source tree that is not installed
        return "unknown"
