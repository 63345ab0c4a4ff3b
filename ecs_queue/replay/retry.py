"""Submits requests that have ended once more, each under a new id that names it as its origin."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import msgspec

from ecs_queue.client.client import EcsQueue
from ecs_queue.client.producer import PreparedRequest
from ecs_queue.errors import EcsQueueError, MissingRight, RetryableError
from ecs_queue.journal import JournalReader
from ecs_queue.journal.batches import UnverifiedJournal
from ecs_queue.protocol.record import Record
from ecs_queue.protocol.states import TERMINAL_STATES, State
from ecs_queue.replay.past_request import find_past_request
from ecs_queue.runtask.resubmit import ResubmitChanges, build_resubmit_id, build_resubmit_line

#: The states of requests that ended without a success.
RETRYABLE_STATES = TERMINAL_STATES - {State.SUCCESS}
#: How the owners of requests of Airflow's executor begin.
_AIRFLOW_OWNER_PREFIX = "airflow-"


@dataclass(frozen=True)
class Retry:
    """What a retry of one request would do.

    Attributes:
        origin: The request that ended.
        id: The id of the new request; it follows from the origin, so that a retry that is repeated is one.
        prepared: The new request; None when there is none to submit.
        earlier: The record of the new request, when the origin was retried already.
        problem: Why it cannot be retried, without its id; "" when it can be, or was.
    """

    origin: Record
    id: str = ""
    prepared: PreparedRequest | None = None
    earlier: Record | None = None
    problem: str = ""


def build_retry_id(origin: Record) -> str:
    """Return the id of the request that retries this one: the same for the same submission."""
    return build_resubmit_id(origin.id, hashlib.sha256(f"{origin.id} {origin.nonce}".encode()).hexdigest()[:8])


def plan_retries(
    queue: EcsQueue, journal: JournalReader, records: Sequence[Record], environment: Mapping[str, str]
) -> list[Retry]:
    """Return what a retry of each request would do. Nothing is queued.

    Args:
        queue: The client to prepare with.
        journal: It has the requests; the ledger has erased their commands.
        records: The requests.
        environment: Variables that the new requests get, and in place of those that the journal does not keep.

    Raises:
        RetryableError, MissingRight: A server cannot be reached, or denies a right.
    """
    earlier = queue.find_records([build_retry_id(record) for record in records])
    return [
        Retry(record, build_retry_id(record), earlier=old)
        if old is not None
        else _plan(queue, journal, record, environment)
        for record, old in zip(records, earlier, strict=True)
    ]


def _plan(queue: EcsQueue, journal: JournalReader, record: Record, environment: Mapping[str, str]) -> Retry:
    problem = _find_obstacle(record)
    if problem:
        return Retry(record, problem=problem)
    try:
        past = find_past_request(queue, journal, record.id)
        past, left = past.with_secrets(environment)
        changes = ResubmitChanges(environment=left)
        main_container = queue.config.profile(past.request.queue).container_name
        line = build_resubmit_line(past.request, build_retry_id(record), changes, main_container)
        return Retry(record, build_retry_id(record), queue.prepare(line, origin=record.id))
    except (RetryableError, MissingRight):
        raise
    except UnverifiedJournal:
        genuine = "if you know that it is genuine: `ecs-queue replay ID --submit --trust-unsigned`"
        return Retry(record, problem=f"what the journal has of it is not signed with a key of signing_keys; {genuine}")
    except EcsQueueError as error:
        return Retry(record, problem=str(error).removeprefix(f"{record.id}: "))
    except msgspec.ValidationError:  # a variable that was given is no text
        return Retry(record, problem="--env: expected texts as values")


def _find_obstacle(record: Record) -> str:
    if record.owner.startswith(_AIRFLOW_OWNER_PREFIX):
        return "it is a task of Airflow, which would not know of the new request: clear the task in Airflow"
    if not record.is_terminal:
        return f"it has not ended: it is {record.state.value}"
    if record.state is State.SUCCESS:
        return "it succeeded; `ecs-queue replay ID --submit` repeats it nevertheless"
    return ""
