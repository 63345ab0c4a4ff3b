"""Finds a request as it was: its envelope and what was sent for it, from the ledger or else from the journal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec

from ecs_queue.client.client import EcsQueue
from ecs_queue.errors import InvalidRequest, UnknownTask
from ecs_queue.journal import JournalEvent, JournalReader
from ecs_queue.journal.base import newest_envelope
from ecs_queue.journal.redact import is_redacted, redacted_paths
from ecs_queue.messages.envelope import TaskRequest, decode_request
from ecs_queue.protocol.record import Record
from ecs_queue.runtask.launch_spec import LaunchSpec, try_decode_launch_spec


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
        redacted: The paths in the request at which the journal has redacted secrets.
    """

    id: str
    request: TaskRequest = field(repr=False)
    source: str
    last_call: RunTaskCall | None
    redacted: tuple[str, ...] = ()

    def with_secrets(self, environment: Mapping[str, str]) -> tuple[PastRequest, dict[str, str]]:
        """Fill redacted variables with the values of `environment`; return the request and the unused variables.

        Raises:
            InvalidRequest: Something is still redacted, so that this would be another request. Names what is missing.
        """
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


def find_past_request(queue: EcsQueue, journal: JournalReader, record_id: str) -> PastRequest:
    """Return the request of an id; raise `UnknownTask` when neither ledger nor journal has its envelope."""
    record = queue.ledger.get([record_id])[0]
    if record is not None and record.request:
        call = _current_call(queue, record) or _last_journaled_call(journal, record_id)
        return PastRequest(record_id, decode_request(record.request, queue.keyring), "ledger", call)
    envelope = newest_envelope(journal.request_events(record_id))
    if envelope is None:
        raise UnknownTask(_unknown_message(record_id, record))
    request = decode_request(envelope, queue.keyring.without_signatures())  # the journal wrote it anew, unsigned
    hidden = tuple(redacted_paths(msgspec.to_builtins(request)))
    return PastRequest(record_id, request, "journal", _last_journaled_call(journal, record_id), hidden)


def call_in_event(event: JournalEvent) -> RunTaskCall | None:
    """Return the RunTask call of a `launch.called` event; None when its arguments are missing or encrypted."""
    try:
        spec = msgspec.convert(_decode_json(event.data.get("launch_spec")), LaunchSpec)
        target = _decode_json(event.data.get("target") or {})
    except (msgspec.ValidationError, msgspec.DecodeError):
        return None
    return RunTaskCall(launch=int(event.data.get("launch") or 0), at=event.at, launch_spec=spec, target=target)


def _current_call(queue: EcsQueue, record: Record) -> RunTaskCall | None:
    spec = try_decode_launch_spec(record, queue.keyring)
    if spec is None:
        return None
    at = record.launched_at or record.last_claim_at
    return RunTaskCall(record.launch, at, spec, _decode_json(record.target or {}))


def _last_journaled_call(journal: JournalReader, record_id: str) -> RunTaskCall | None:
    events = [event for event in journal.request_events(record_id) if event.name == "launch.called"]
    return next(filter(None, map(call_in_event, reversed(events))), None)


def _decode_json(value: Any) -> Any:
    """The journal keeps JSON as text or as the decoded value."""
    return msgspec.json.decode(value) if isinstance(value, str | bytes) else value


def _unknown_message(record_id: str, record: Record | None) -> str:
    if record is None:
        problem = f"no request {record_id} is known: it was never submitted, or its retention time is over"
    else:
        problem = f"{record_id} has ended ({record.state.value}), and the ledger has removed its command"
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
    others = [place for place in hidden if place.rpartition(".")[2] not in names]
    if others:
        raise InvalidRequest(
            f"{record_id}: the journal does not keep secrets, and there is one in {', '.join(others)}; "
            "submit the request anew with `ecs-queue submit`"
        )
    wanted = " ".join(f"--env {name}=..." for name in names)
    raise InvalidRequest(
        f"{record_id}: the journal does not keep secrets; give {wanted} "
        "(--env NAME alone takes the value from this shell's environment)"
    )


def _redacted_names(value: Any) -> Iterator[str]:
    if isinstance(value, list):
        for item in value:
            yield from _redacted_names(item)
    elif isinstance(value, dict):
        if isinstance(value.get("name"), str) and is_redacted(value.get("value")):
            yield value["name"]
        for item in value.values():
            yield from _redacted_names(item)
