"""A request as it was: its envelope and what was sent for it, from the ledger while it lives, else from the journal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import msgspec

from ecs_queue.errors import InvalidRequest, UnknownTask
from ecs_queue.journal.base import newest_envelope

if TYPE_CHECKING:
    from ecs_queue.client.client import EcsQueue
    from ecs_queue.journal import JournalEvent, JournalReader
    from ecs_queue.messages.envelope import TaskRequest
    from ecs_queue.protocol.record import Record
    from ecs_queue.runtask.launch_spec import LaunchSpec


@dataclass(frozen=True)
class RunTaskCall:
    """What one RunTask call was made with. `at`: seconds since the epoch; `target`: region, cluster ..."""

    launch: int
    at: float
    launch_spec: LaunchSpec
    target: Mapping[str, Any]


@dataclass(frozen=True)
class PastRequest:
    """`source`: "ledger" or "journal", where the envelope is from. `sent`: the newest launch's, None without one.

    `hidden`: where the journal has hidden secrets in the request.
    """

    id: str
    request: TaskRequest = field(repr=False)
    source: str
    last_call: RunTaskCall | None
    redacted: tuple[str, ...] = ()

    def with_secrets(self, environment: Mapping[str, str]) -> tuple[PastRequest, dict[str, str]]:
        """With the variables of `environment` in the places where the journal has hidden theirs; and those left over.

        InvalidRequest names what is still hidden: without it the request would be another one.
        """
        past, left = self.with_available_secrets(environment)
        reject_redacted(self.id, msgspec.to_builtins(past.request) if past.redacted else {})
        return past, left

    def with_available_secrets(self, environment: Mapping[str, str]) -> tuple[PastRequest, dict[str, str]]:
        """The same, where it does not matter what is still hidden."""
        if not self.redacted:
            return self, dict(environment)
        filled = _SecretFiller(environment)
        request = msgspec.convert(filled.fill(msgspec.to_builtins(self.request)), type(self.request))
        left = {name: value for name, value in environment.items() if name not in filled.used}
        return replace(self, request=request), left


def find_past_request(queue: EcsQueue, journal: JournalReader, record_id: str) -> PastRequest:
    """The request of this id; UnknownTask says what to do when nobody has its envelope (any more)."""
    record = queue.ledger.get([record_id])[0]
    if record is not None and record.request:
        sent = _current_call(queue, record) or _last_journaled_call(journal, record_id)
        return PastRequest(record_id, queue.decode_request(record.request), "ledger", sent)
    envelope = newest_envelope(journal.request_events(record_id))
    if envelope is None:
        raise UnknownTask(_unknown_message(record_id, record))
    from ecs_queue.journal.redact import redacted_paths

    request = queue.decode_journaled_request(envelope)
    hidden = tuple(redacted_paths(msgspec.to_builtins(request)))
    return PastRequest(record_id, request, "journal", _last_journaled_call(journal, record_id), hidden)


def call_in_event(event: JournalEvent) -> RunTaskCall | None:
    """What a `launch.called` says was sent; None when it does not say, or it is sealed."""
    from ecs_queue.runtask.launch_spec import LaunchSpec

    try:
        plan = msgspec.convert(_decode_json(event.data.get("launch_spec")), LaunchSpec)
        target = _decode_json(event.data.get("target") or {})
    except (msgspec.ValidationError, msgspec.DecodeError):
        return None
    return RunTaskCall(launch=int(event.data.get("launch") or 0), at=event.at, launch_spec=plan, target=target)


def _current_call(queue: EcsQueue, record: Record) -> RunTaskCall | None:
    plan = queue.launch_spec(record)
    if plan is None:
        return None
    return RunTaskCall(
        record.launch, record.launched_at or record.last_claim_at, plan, _decode_json(record.target or {})
    )


def _last_journaled_call(journal: JournalReader, record_id: str) -> RunTaskCall | None:
    found = None
    for event in journal.request_events(record_id):
        if event.name == "launch.called":
            found = call_in_event(event) or found
    return found


def _decode_json(value: Any) -> Any:
    """The journal keeps JSON as it was written or as what it says."""
    return msgspec.json.decode(value) if isinstance(value, str | bytes) else value


def _unknown_message(record_id: str, record: Record | None) -> str:
    known = f"no request {record_id} is known: it was never submitted, or its retention time is over"
    if record is not None:
        known = f"{record_id} has ended ({record.state.value}), and what it ran was removed from the ledger"
    return f"{known}; the journal has nothing of it either (is `journal` on?): submit it anew with `ecs-queue submit`"


class _SecretFiller:
    """Puts values in the place of hidden variables; `used` has the names of those it could."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment
        self.used: set[str] = set()

    def fill(self, value: Any) -> Any:
        from ecs_queue.journal.redact import is_redacted

        if isinstance(value, list):
            return [self.fill(item) for item in value]
        if not isinstance(value, dict):
            return value
        name = value.get("name")
        if isinstance(name, str) and name in self._environment and is_redacted(value.get("value")):
            self.used.add(name)
            return {**value, "value": self._environment[name]}
        return {key: self.fill(item) for key, item in value.items()}


def reject_redacted(record_id: str, value: Any) -> None:
    """InvalidRequest, with what to give, when there is a secret in it that the journal has hidden."""
    from ecs_queue.journal.redact import redacted_paths

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
    from ecs_queue.journal.redact import is_redacted

    if isinstance(value, list):
        for item in value:
            yield from _redacted_names(item)
    elif isinstance(value, dict):
        if isinstance(value.get("name"), str) and is_redacted(value.get("value")):
            yield value["name"]
        for item in value.values():
            yield from _redacted_names(item)
