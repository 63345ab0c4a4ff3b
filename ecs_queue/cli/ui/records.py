"""Finds requests and queues in the ledger, as several commands need them."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from typing import TYPE_CHECKING

from ecs_queue.cli.ui.exit_status import EXIT_FAILURE
from ecs_queue.cli.ui.output import describe_number, print_stderr
from ecs_queue.client.records import find_record
from ecs_queue.errors import BrokerUnavailable, LedgerUnavailable, MissingRight, UsageError

if TYPE_CHECKING:
    from ecs_queue.client.client import EcsQueue
    from ecs_queue.config import Config
    from ecs_queue.ledger.base import Ledger, RequestReader, WorkerInfo
    from ecs_queue.protocol.record import Record

#: The values of `ecs_queue.protocol.states.State`, without its import; a test compares them.
STATE_NAMES = ("QUEUED", "LAUNCHING", "LAUNCHED", "SUCCESS", "FAILED", "REMOVED", "REVOKED", "EXPIRED", "UNKNOWN")
_ID = re.compile(r"[A-Za-z0-9_-]{1,48}")


def list_queues(client: EcsQueue, workers: Sequence[WorkerInfo], *others: Iterable[str]) -> list[str]:
    """Return the names of all known queues, sorted: the configured ones, those of workers, and `others`."""
    names = {"default", *(profile.queue for profile in client.config.profiles()), *itertools.chain(*others)}
    names.update(name for worker in workers for name in worker.queues)
    return sorted(names - {""})  # "": the ledger's entry for stops of requests that never came


def find_reached_limit(client: EcsQueue, record: Record) -> str:
    """Return the limit that a QUEUED request waits for, by the configuration of this command; "" if there is none."""
    from ecs_queue.protocol.settings import CLAIM_RETRY_SECONDS
    from ecs_queue.protocol.states import State

    if record.state is not State.QUEUED:
        return ""
    if max(record.not_before, record.delayed_until) > client.ledger.now() + CLAIM_RETRY_SECONDS:
        return _describe_full_key(client, record) if record.waits_for_key else ""
    profile, counts = client.config.profile(record.queue), client.ledger.count_by_state()
    in_flight = {
        name: states.get(State.LAUNCHING, 0) + states.get(State.LAUNCHED, 0) for name, states in counts.items()
    }
    starting = client.ledger.count_starting([record.queue])[record.queue]
    for limit, number, name in (
        (client.config.max_in_flight, sum(in_flight.values()), "max_in_flight of the namespace"),
        (profile.max_in_flight, in_flight.get(record.queue, 0), "max_in_flight of its queue"),
        (profile.max_starting, starting, "max_starting of its queue"),
    ):
        if limit and number >= limit:
            return f"{name}: {number} of {limit}"
    return f"launch_rate of its queue: at most {profile.launch_rate:g} a second" if profile.launch_rate else ""


def _describe_full_key(client: EcsQueue, record: Record) -> str:
    limit = client.config.profile(record.queue).max_per_key
    found = client.ledger.count_of_key(record.queue, record.concurrency_key)
    # Its key is full by the limit of the workers. That of this configuration is shown as the same where it can be.
    is_same = found.in_flight == limit
    in_flight = f"{found.in_flight} of {limit}" if is_same else f"{found.in_flight}"
    waiting = describe_number(found.waiting, "request")
    other = "" if is_same else f"; max_per_key is {limit} in the configuration here, and that of the workers counts"
    key = record.concurrency_key
    return f"max_per_key of its queue: {in_flight} in flight with the key {key}, {waiting} waiting{other}"


def report_health(ledger: Ledger, workers: Sequence[WorkerInfo]) -> int:
    """Say on stderr that items of the ledger are broken; return 1 then and when a worker is not healthy, else 0."""
    number = len(ledger.list_broken())
    if number:
        items = describe_number(number, "item")
        print_stderr(f"ecs-queue: {items} of the ledger cannot be used and are kept apart: `ecs-queue broken list`")
    return EXIT_FAILURE if number or any(worker.health != "ok" for worker in workers) else 0


def describe_default_server(config: Config) -> str:
    """Return a sentence that names the server when no one has chosen it; "" otherwise."""
    from ecs_queue.config.loader import DEFAULT_ORIGIN

    server = next(value for value in config.effective_values if value.key == "broker_url")
    if server.origin != DEFAULT_ORIGIN:
        return ""
    return f"broker_url is not set, so the server is its default, {server.value}"


def warn_unserved_queues(client: EcsQueue, names: Iterable[str], *, expects_launch: bool = True) -> None:
    """Say which of the queues no live worker serves: its name may be misspelt, or the server the wrong one.

    Args:
        client: The client.
        names: The queues.
        expects_launch: Their requests were submitted, or are awaited: then also say which queues are paused.

    An outage of the ledger says nothing.
    """
    try:
        served = {name for worker in client.ledger.list_workers() for name in worker.queues}
        paused = sorted(client.ledger.list_paused_queues().keys() & set(names)) if expects_launch else []
    except (LedgerUnavailable, MissingRight):
        return  # the requests are submitted, and waiting outlasts an outage
    for name in paused:
        print_stderr(f"ecs-queue: queue {name} is paused: its requests wait until `ecs-queue queues resume {name}`")
    unserved = sorted(set(names) - served)
    for name in unserved:
        near = get_close_matches(name, served, n=1)
        if expects_launch:
            advice = f"did you mean {near[0]}? Or start one" if near else "start one"
            advice = f"{advice}: ecs-queue worker --queues {name}"
        else:
            advice = f"did you mean {near[0]}?" if near else "check its name"
        print_stderr(f"ecs-queue: no live worker serves queue {name}; {advice}")
    if unserved and (default_server := describe_default_server(client.config)):
        print_stderr(f"ecs-queue: {default_server}")


def read_backlog(client: EcsQueue, queue: str) -> int | None:
    """Return how many messages wait in the queue; None, and a sentence on stderr, when the broker cannot be reached."""
    try:
        return client.backlog(queue)
    except (BrokerUnavailable, MissingRight) as error:
        print_stderr(f"ecs-queue: {error}")
        return None


def resolve_id(ledger: RequestReader, name: str, consequence: str) -> str:
    """Return the id of a request that is named by its id, or by the ARN of its task.

    Raises:
        UsageError: It is no id, or no request has the task; the message ends with the consequence.
    """
    if ":" in name:
        record = find_record(ledger, name)
        if record is None:
            raise UsageError(f"no request with the task {name} is known; {consequence}")
        return record.id
    if not _ID.fullmatch(name):
        raise UsageError(f"expected an id of 1 to 48 of A-Z a-z 0-9 _ -, found {name!r}; {consequence}")
    return name
