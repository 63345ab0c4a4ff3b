"""Runs all checks, in the order in which a launch depends on them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from functools import partial

from botocore.exceptions import BotoCoreError

from ecs_queue.broker import open_broker
from ecs_queue.broker_url import holds_no_records
from ecs_queue.client.client import EcsQueue
from ecs_queue.config import Config, Profile
from ecs_queue.doctor.account import check_account
from ecs_queue.doctor.aws_call import CREDENTIALS_ADVICE
from ecs_queue.doctor.broker import check_broker
from ecs_queue.doctor.canary import send_canary
from ecs_queue.doctor.capacity_fallback import check_capacity_fallback
from ecs_queue.doctor.event_queue import check_event_queue
from ecs_queue.doctor.server import check_server
from ecs_queue.doctor.workers import check_config, check_workers
from ecs_queue.ecs.clients import ClientOptions, EcsClients, Target
from ecs_queue.ecs.event_queue import open_sqs_client
from ecs_queue.error_text import error_text
from ecs_queue.errors import ConfigError, EcsQueueError
from ecs_queue.findings import Finding, Reporter, Severity
from ecs_queue.ledger import open_ledger
from ecs_queue.version import package_version

#: Shorter than a worker's, because a person waits. Seconds.
_READ_TIMEOUT_SECONDS = 8.0
_TIMEOUTS = {"connect_timeout": 3.0, "read_timeout": _READ_TIMEOUT_SECONDS}


def run_checks(
    config: Config, queues: Sequence[str], canary: Sequence[str] | None, canary_timeout: float
) -> Iterator[Finding]:
    """Yield findings as they are made. Every wait is bounded.

    Args:
        config: The configuration to check.
        queues: The queues whose profiles to check; () for all.
        canary: The command to run in each of these queues; None for no canary.
        canary_timeout: Seconds to wait for each canary.
    """
    yield from check_config(config)
    timeout = min(config.socket_timeout_seconds, _READ_TIMEOUT_SECONDS)
    namespace, iam = config.namespace, config.ledger_iam
    is_ledger_down = False
    for finding in check_server("ledger", config.ledger_url, config.durability, timeout, namespace=namespace, iam=iam):
        is_ledger_down |= finding.check == "server.reachable" and finding.severity is Severity.ERROR
        yield finding
    checked = queues or [profile.queue for profile in config.profiles()]
    yield from _check_broker(config, checked, timeout, has_canary=canary is not None)
    if not is_ledger_down:  # otherwise the check of the workers would only wait again and repeat the error
        with closing(open_broker(config)) as broker, closing(open_ledger(config)) as ledger:
            yield from check_workers(config, broker, ledger, package_version())
    clients = EcsClients(ClientOptions(**_TIMEOUTS, max_pool_connections=1, http_client=config.http_client))
    chosen = [config.profile(queue) for queue in queues] or config.profiles()
    for profile in chosen:
        yield from _check_profile(config, profile, clients, has_canary=canary is not None)
    if canary is not None:
        with EcsQueue(config, open_broker(config), open_ledger(config)) as client:
            for profile in chosen:
                yield from send_canary(client, profile.queue, canary, canary_timeout)


def _check_broker(config: Config, queues: Sequence[str], timeout: float, *, has_canary: bool) -> Iterator[Finding]:
    if holds_no_records(config.broker_url):
        with closing(open_broker(config)) as broker:
            yield from check_broker(config.broker_url, broker, queues, has_canary=has_canary)
    elif (config.broker_url, config.broker_iam) != (config.ledger_url, config.ledger_iam):
        namespace, iam = config.namespace, config.broker_iam
        yield from check_server("broker", config.broker_url, "", timeout, namespace=namespace, iam=iam)


def _check_profile(config: Config, profile: Profile, clients: EcsClients, *, has_canary: bool) -> Iterator[Finding]:
    try:
        profile.require_launchable()
        target = clients.target_for(profile)
    except EcsQueueError as error:
        text = error.problem if isinstance(error, ConfigError) else str(error)
        yield Reporter(profile.queue).error("aws.profile", text, "correct it in the configuration")
        return

    make_client = partial(clients.client_for_service, target)
    yield from check_account(config, profile, target, make_client, has_canary=has_canary)
    if config.http_client == "curl":
        yield from _check_http_client(profile, target, clients)
    yield from check_capacity_fallback(config, profile, target, clients.client)
    yield from _check_event_queue(config, profile, target, clients)


def _check_http_client(profile: Profile, target: Target, clients: EcsClients) -> Iterator[Finding]:
    """Say which HTTP client it is; nothing where no client can be built, which is an error of the account already."""
    reporter = Reporter(profile.queue)
    with suppress(EcsQueueError, BotoCoreError):
        if clients.http_client(target) == "curl":
            yield reporter.ok("aws.http_client", "libcurl sends the calls to ECS")
        else:
            text = "http_client = curl, but botocore sends the calls to ECS"
            yield reporter.info("aws.http_client", f"{text}: for a proxy, TLS that is not verified, or an unusual host")


def _check_event_queue(config: Config, profile: Profile, target: Target, clients: EcsClients) -> Iterator[Finding]:
    url = config.event_queue_url_for(profile.queue)
    if not url:
        return
    reporter = Reporter(profile.queue)
    try:
        sqs = open_sqs_client(clients, target, url)
    except (EcsQueueError, BotoCoreError) as error:
        yield reporter.error("aws.event_queue", error_text(error), CREDENTIALS_ADVICE)
        return
    yield from check_event_queue(reporter, url, sqs)
