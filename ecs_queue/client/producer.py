"""What every producer of requests does the same way: the Python client and Airflow's executor. No I/O."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import msgspec

from ecs_queue.broker.base import RequestMessage
from ecs_queue.config import Config
from ecs_queue.errors import BrokenRecord, IdConflict, RequestTooLate
from ecs_queue.messages import envelope
from ecs_queue.messages.keyring import Keyring
from ecs_queue.messages.request import TaskRequest
from ecs_queue.protocol.operations import OperationResult, ResultCode
from ecs_queue.protocol.record import Record, Submission
from ecs_queue.runtask.launch_spec import build_submission
from ecs_queue.runtask.overrides import ALLOW_EVERYTHING, check_policies_allowed
from ecs_queue.runtask.profile import RunTaskProfile


class PreparedRequest(msgspec.Struct, frozen=True):
    """A validated request that is not queued yet, with the submission that the ledger stores."""

    request: TaskRequest
    submission: Submission
    submit_span: Any = None  # OpenTelemetry's, with `otel_traces`

    def to_message(self) -> RequestMessage:
        """Return the broker message: the envelope exactly as the ledger stores it."""
        return RequestMessage(self.request.queue, self.submission.request, self.request.priority)

    def __repr__(self) -> str:
        """Without the payload."""
        return f"PreparedRequest({self.submission!r})"


def prepare_request(request: TaskRequest, config: Config, keyring: Keyring) -> PreparedRequest:
    """Encode, sign and encrypt a request that the caller has validated.

    Raises:
        InvalidRequest: It sets a launch policy that its queue does not allow.
    """
    policies = request.given_policies()
    if policies:
        profile = profile_for_checks(config.profile(request.queue))
        check_policies_allowed(policies, profile.allowed_overrides, request.queue)
    body = envelope.encode(request, keyring)
    nonce = envelope.compute_nonce(config.namespace, body)
    return PreparedRequest(request, build_submission(request, body, nonce, config.launch_deadline))


def profile_for_checks(profile: RunTaskProfile) -> RunTaskProfile:
    """Return the profile that a request is checked with before it is queued.

    A producer needs no profile: where none of the keys is set that every launch needs, placeholders take their place,
    and the workers check the request against the real profile. An incomplete profile stays as it is, because its
    owner meant to have it checked.
    """
    needed = (profile.cluster, profile.task_definition, profile.container_name, profile.subnets)
    if any(needed) or profile.run_task_kwargs or profile.capacity_provider_strategy is not None:
        return profile
    return replace(
        profile,
        cluster="unknown",
        task_definition="unknown",
        container_name="main",
        subnets=("subnet-unknown",),
        allowed_overrides=(ALLOW_EVERYTHING,),
    )


def is_accepted(result: OperationResult) -> bool:
    """Return whether `Ledger.put` stored the request, now or in an earlier call with the same envelope."""
    return is_accepted_code(result.code)


def is_accepted_code(code: ResultCode) -> bool:
    """Return whether this result of `Ledger.put` says so."""
    return code not in (ResultCode.CONFLICT, ResultCode.TOO_LATE, ResultCode.BROKEN)


def find_conflicts(prepared: Sequence[PreparedRequest], records: Iterable[Record | None]) -> list[PreparedRequest]:
    """Return the requests whose id belongs to a different request, given the ledger's records of their ids, in order.

    A record without a digest is a stop that came before its request: the id is still free.
    """
    return [
        item
        for item, record in zip(prepared, records, strict=True)
        if record is not None and record.digest and record.digest != item.submission.digest
    ]


def batches(items: Sequence[PreparedRequest], size: int) -> Iterator[Sequence[PreparedRequest]]:
    """Yield slices of at most `size` items, in order."""
    return (items[start : start + size] for start in range(0, len(items), size))


def reject_duplicate_ids(prepared_requests: Sequence[PreparedRequest]) -> None:
    """Raise `IdConflict` when two different requests of one call have the same id."""
    digests: dict[str, str] = {}
    for item in prepared_requests:
        if digests.setdefault(item.request.id, item.submission.digest) != item.submission.digest:
            raise IdConflict(
                f"two different requests have the id {item.request.id}; choose another id, or leave it out"
            )


def raise_if_rejected(prepared_request: PreparedRequest, result: OperationResult) -> None:
    """Raise `IdConflict`, `BrokenRecord` or `RequestTooLate` when `Ledger.put` did not accept the request."""
    record_id = prepared_request.request.id
    if result.code is ResultCode.CONFLICT:
        raise IdConflict(f"another request was submitted under the id {record_id}; choose another id, or leave it out")
    if result.code is ResultCode.BROKEN:
        raise BrokenRecord(
            f"{record_id} was not submitted: the ledger's record of this id cannot be used; see `ecs-queue broken show "
            f"record:{record_id}`, or choose another id"
        )
    if result.code is ResultCode.TOO_LATE:
        raise RequestTooLate(
            f"{record_id} was not submitted: this machine's clock is behind the ledger's by more than accept_seconds; "
            "correct the clock, then submit it again"
        )
