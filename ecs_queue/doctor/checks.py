"""All examinations in the order in which a launch depends on them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

from botocore.exceptions import BotoCoreError

from ecs_queue.broker import open_broker
from ecs_queue.client.client import EcsQueue
from ecs_queue.config import Config, Profile
from ecs_queue.doctor.account import check_account
from ecs_queue.doctor.canary import send_canary
from ecs_queue.doctor.event_queue import check_event_queue
from ecs_queue.doctor.finding import Finding, Reporter
from ecs_queue.doctor.server import check_server
from ecs_queue.doctor.workers import check_config, check_workers
from ecs_queue.ecs.clients import ClientOptions, EcsClients, Target
from ecs_queue.ecs.event_queue import open_sqs_client
from ecs_queue.errors import EcsQueueError
from ecs_queue.ledger import open_ledger
from ecs_queue.version import package_version

#: A person waits: shorter than a worker's. Seconds.
_CONNECT_TIMEOUT_SECONDS, _READ_TIMEOUT_SECONDS = 3.0, 8.0


def run_checks(
    config: Config, queues: Sequence[str], canary: Sequence[str] | None, canary_timeout: float
) -> Iterator[Finding]:
    """`queues`: only these profiles, () all. `canary`: the command to send through each of them, None: none.

    Findings come as they are made; every wait is bounded.
    """
    yield from check_config(config)
    yield from _check_servers(config)
    broker, ledger = open_broker(config), open_ledger(config)
    try:
        yield from check_workers(config, broker, ledger, package_version())
    finally:
        broker.close()
        ledger.close()
    clients = EcsClients(
        ClientOptions(
            connect_timeout=_CONNECT_TIMEOUT_SECONDS, read_timeout=_READ_TIMEOUT_SECONDS, max_pool_connections=1
        )
    )
    chosen = [config.profile(queue) for queue in queues] or config.profiles()
    for profile in chosen:
        yield from _check_profile(config, profile, clients)
    if canary is not None:
        with EcsQueue(config, open_broker(config), open_ledger(config)) as client:
            for profile in chosen:
                yield from send_canary(client, profile.queue, canary, canary_timeout)


def _check_servers(config: Config) -> Iterator[Finding]:
    timeout = min(config.socket_timeout_seconds, _READ_TIMEOUT_SECONDS)
    yield from check_server("ledger", config.ledger_url, config.durability, timeout)
    if config.broker_url != config.ledger_url:
        yield from check_server("broker", config.broker_url, "", timeout)


def _check_profile(config: Config, profile: Profile, clients: EcsClients) -> Iterator[Finding]:
    try:
        profile.require_launchable()
        target = clients.target_for(profile)
    except EcsQueueError as error:
        yield Reporter(profile.queue).error("aws.profile", str(error), "set what is missing")
        return

    yield from check_account(config, profile, target, partial(clients.client_for_service, target))
    yield from _check_event_queue(config, profile, target, clients)


def _check_event_queue(config: Config, profile: Profile, target: Target, clients: EcsClients) -> Iterator[Finding]:
    url = config.event_queue_url_for(profile.queue)
    if not url:
        return
    report = Reporter(profile.queue)
    try:
        sqs = open_sqs_client(clients, target, url)
    except (EcsQueueError, BotoCoreError) as error:
        yield report.error("aws.event_queue", str(error), "set AWS_PROFILE, AWS_ACCESS_KEY_ID ... or a role")
        return
    yield from check_event_queue(report, url, sqs)
