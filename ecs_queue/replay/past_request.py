"""Finds a request as it was: its envelope and what was sent for it, from the ledger or else from the journal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec

from ecs_queue.client.client import EcsQueue
from ecs_queue.errors import InvalidRequest, UnknownTask
from ecs_queue.journal import JournalEvent, JournalReader
from ecs_queue.journal.base import newest_envelope
from ecs_queue.journal.batches import UnverifiedJournal, unverified_message, without_unverified
from ecs_queue.journal.redact import is_redacted, redacted_paths
from ecs_queue.messages.envelope import decode_record_request, decode_request
from ecs_queue.messages.request import TaskRequest
from ecs_queue.protocol.record import Record
from ecs_queue.replay.sealed import open_sealed
from ecs_queue.runs.runner_options import CALL_VARIABLE
from ecs_queue.runtask.launch_spec import LaunchSpec, try_decode_launch_spec

#: Which settings keep what is missing.
_KEEPING_ADVICE = (
    "To have the journal keep it for later requests, set encryption_keys (it keeps everything, encrypted), or another "
    "journal_redaction"
)


@dataclass(frozen=True)
class RunTaskCall:
    """What one RunTask call was made with. `at` is in seconds since the epoch; `target` has region, cluster, role."""

    launch: int
    at: float
    launch_spec: LaunchSpec
    target: Mapping[str, Any]


@dataclass(frozen=True)
class PastRequest:
    """A request as it was submitted.

    Attributes:
        source: Where the envelope comes from, "ledger" or "journal".
        last_call: The RunTask call of the newest launch; None when there was none, or it is unknown.
        redacted: The paths in the request at which the journal has hidden something.
        is_verified: False when it comes from events that no signing key verifies.
    """

    id: str
    request: TaskRequest = field(repr=False)
    source: str
    last_call: RunTaskCall | None
    redacted: tuple[str, ...] = ()
    is_verified: bool = True

    def with_secrets(self, environment: Mapping[str, str]) -> tuple[PastRequest, dict[str, str]]:
        """Fill redacted variables with the values of `environment`; return the request and the unused variables.

        Raises:
            InvalidRequest: Something is still redacted, so that this would be another request. Names what is missing.
                Or it is the call of a function, of which only the caller has the arguments.
        """
        if _has_variable(msgspec.to_builtins(self.request), CALL_VARIABLE):
            raise InvalidRequest(
                f"{self.id}: it is the call of a function by EcsExecutor, and its arguments are dropped when it has "
                "ended; submit the function again"
            )
        past, left = self.with_available_secrets(environment)
        reject_redacted(self.id, msgspec.to_builtins(past.request) if past.redacted else {})
        return past, left

    def with_available_secrets(self, environment: Mapping[str, str]) -> tuple[PastRequest, dict[str, str]]:
        """Do the same as `with_secrets`, but leave what is still redacted as it is."""
        if not self.redacted:
            return self, dict(environment)
        used: set[str] = set()
        request = msgspec.convert(_fill(msgspec.to_builtins(self.request), environment, used), TaskRequest)
        left = {name: value for name, value in environment.items() if name not in used}
        return replace(self, request=request), left


def find_past_request(
    queue: EcsQueue, journal: JournalReader, record_id: str, *, trust_unsigned: bool = False
) -> PastRequest:
    """Return the request of an id as far as it is verified: a caller may run it, or submit it again.

    Args:
        queue: Its ledger has the request while it lives; its keys verify and decrypt.
        journal: Has the requests that the ledger has no more.
        record_id: The request's id.
        trust_unsigned: Use events of the journal that no signing key verifies, when there are no others.

    Raises:
        UnknownTask: Neither ledger nor journal has the request.
        UnverifiedMessage: The record's request is not signed for this record.
        UnverifiedJournal: Signing keys are set, and the journal's events of the request are not verified.
        SealedMessage: It is encrypted, and no key opens it.
    """
    record = queue.ledger.get([record_id])[0]
    if record is not None and not record.is_terminal:  # the payload of a terminal record is erased
        record = queue.ledger.get_with_payload([record_id])[0]
    events = list(open_sealed(journal.request_events(record_id), queue.keyring))
    if record is not None and record.request:
        request = decode_record_request(record, queue.keyring)
        call = _current_call(queue, record) or _last_journaled_call(without_unverified(events))
        return PastRequest(record_id, request, "ledger", call)
    envelope = newest_envelope(without_unverified(events))
    is_verified = envelope is not None
    if is_verified:
        events = without_unverified(events)
    else:
        envelope = newest_envelope(events)
    if envelope is None:
        raise UnknownTask(_unknown_message(record_id, record))
    if not is_verified and not trust_unsigned:
        raise UnverifiedJournal(unverified_message(record_id))
    request = decode_request(envelope, queue.keyring.without_signatures())  # the batch is signed, not the envelope
    hidden = tuple(redacted_paths(msgspec.to_builtins(request)))
    call = _last_journaled_call(events)
    return PastRequest(record_id, request, "journal", call, hidden, is_verified)


def call_in_event(event: JournalEvent) -> RunTaskCall | None:
    """Return the RunTask call of a `launch.called` event; None when its arguments are missing or encrypted."""
    try:
        spec = msgspec.convert(_decode_json(event.data.get("launch_spec")), LaunchSpec)
        target = msgspec.convert(_decode_json(event.data.get("target") or {}), dict[str, Any])
        launch = int(event.data.get("launch") or 0)
    except (msgspec.ValidationError, msgspec.DecodeError, TypeError, ValueError, OverflowError):
        return None
    return RunTaskCall(launch=launch, at=event.at, launch_spec=spec, target=target)


def _current_call(queue: EcsQueue, record: Record) -> RunTaskCall | None:
    spec = try_decode_launch_spec(record, queue.keyring)
    if spec is None:
        return None
    at = record.launched_at or record.last_claim_at
    return RunTaskCall(record.launch, at, spec, _decode_json(record.target or {}))


def _last_journaled_call(events: Sequence[JournalEvent]) -> RunTaskCall | None:
    calls = (call_in_event(event) for event in reversed(events) if event.name == "launch.called")
    return next(filter(None, calls), None)


def _decode_json(value: Any) -> Any:
    """The journal keeps JSON as text or as the decoded value."""
    return msgspec.json.decode(value) if isinstance(value, str | bytes) else value


def _unknown_message(record_id: str, record: Record | None) -> str:
    if record is None:
        problem = f"no request {record_id} is known: it was never submitted, or its retention time is over"
    else:
        problem = f"{record_id}: it has ended ({record.state.value}), and the ledger has removed its command"
    return f"{problem}; the journal has nothing of it either (is `journal` on?). Submit it anew with `ecs-queue submit`"


def _fill(value: Any, environment: Mapping[str, str], used: set[str]) -> Any:
    """Put the values of `environment` in the place of redacted variables; `used` gets their names."""
    if isinstance(value, list):
        return [_fill(item, environment, used) for item in value]
    if not isinstance(value, dict):
        return value
    name = value.get("name")
    if isinstance(name, str) and name in environment and is_redacted(value.get("value")):
        used.add(name)
        return {**value, "value": environment[name]}
    return {key: _fill(item, environment, used) for key, item in value.items()}


def reject_redacted(record_id: str, value: Any) -> None:
    """Raise `InvalidRequest`, naming what the caller must give, when `value` has a secret that the journal redacted."""
    hidden = redacted_paths(value)
    if not hidden:
        return
    names = sorted(set(_redacted_names(value)))
    # Not by the last part of a path: a variable may be called `spring.datasource.password`.
    others = [place for place in hidden if not f".{place}".endswith(tuple(f".{name}" for name in names))]
    if others:
        raise InvalidRequest(
            f"{record_id}: the journal does not keep what stood in {', '.join(others)}; submit the request anew with "
            f"`ecs-queue submit`. {_KEEPING_ADVICE}"
        )
    wanted = " ".join(f"--env {name}=..." for name in names)
    raise InvalidRequest(
        f"{record_id}: the journal does not keep these values; give {wanted} (--env NAME alone takes the value from "
        f"this shell's environment). {_KEEPING_ADVICE}"
    )


def _has_variable(value: Any, name: str) -> bool:
    """Whether a request, as plain values, sets an environment variable."""
    if isinstance(value, dict):
        return value.get("name") == name or any(_has_variable(item, name) for item in value.values())
    return isinstance(value, list) and any(_has_variable(item, name) for item in value)


def _redacted_names(value: Any) -> Iterator[str]:
    if isinstance(value, list):
        for item in value:
            yield from _redacted_names(item)
    elif isinstance(value, dict):
        if isinstance(value.get("name"), str) and is_redacted(value.get("value")):
            yield value["name"]
        for item in value.values():
            yield from _redacted_names(item)
