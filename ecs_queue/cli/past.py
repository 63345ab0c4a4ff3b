"""A request as it was: its envelope and what was sent for it, from the ledger while it lives, else from the journal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import msgspec

from ecs_queue.errors import InvalidRequest, UnknownTask

if TYPE_CHECKING:
    from ecs_queue.client import EcsQueue
    from ecs_queue.core.envelope import TaskRequest
    from ecs_queue.core.plan import Plan
    from ecs_queue.core.record import Record
    from ecs_queue.journal import JournalEvent, JournalReader


@dataclass(frozen=True)
class Sent:
    """What one RunTask call was made with. `at`: seconds since the epoch; `target`: region, cluster ..."""

    launch: int
    at: float
    plan: Plan
    target: Mapping[str, Any]


@dataclass(frozen=True)
class Past:
    """`source`: "ledger" or "journal", where the envelope is from. `sent`: the newest launch's, None without one.

    `hidden`: where the journal has hidden secrets in the request.
    """

    id: str
    request: TaskRequest = field(repr=False)
    source: str
    sent: Sent | None
    hidden: tuple[str, ...] = ()

    def with_secrets(self, environment: Mapping[str, str]) -> tuple[Past, dict[str, str]]:
        """With the variables of `environment` in the places where the journal has hidden theirs; and those left over.

        InvalidRequest names what is still hidden: without it the request would be another one.
        """
        past, left = self.with_some_secrets(environment)
        refuse_hidden(self.id, msgspec.to_builtins(past.request) if past.hidden else {})
        return past, left

    def with_some_secrets(self, environment: Mapping[str, str]) -> tuple[Past, dict[str, str]]:
        """The same, where it does not matter what is still hidden."""
        if not self.hidden:
            return self, dict(environment)
        filled = _Filling(environment)
        request = msgspec.convert(filled.fill(msgspec.to_builtins(self.request)), type(self.request))
        left = {name: value for name, value in environment.items() if name not in filled.used}
        return replace(self, request=request), left


def find_past(queue: EcsQueue, journal: JournalReader, record_id: str) -> Past:
    """The request of this id; UnknownTask says what to do when nobody has its envelope (any more)."""
    record = queue.ledger.get([record_id])[0]
    if record is not None and record.request:
        sent = _sent_of(queue, record) or _last_sent(journal, record_id)
        return Past(record_id, queue.read(record.request), "ledger", sent)
    envelope = journal.request(record_id)
    if envelope is None:
        raise UnknownTask(_why_unknown(record_id, record))
    from ecs_queue.journal.redact import redacted_places

    request = queue.read_journalled(envelope)
    hidden = tuple(redacted_places(msgspec.to_builtins(request)))
    return Past(record_id, request, "journal", _last_sent(journal, record_id), hidden)


def sent_in(event: JournalEvent) -> Sent | None:
    """What a `launch.called` says was sent; None when it does not say, or it is sealed."""
    from ecs_queue.core.plan import Plan

    try:
        plan = msgspec.convert(_json(event.data.get("plan")), Plan)
        target = _json(event.data.get("target") or {})
    except (msgspec.ValidationError, msgspec.DecodeError):
        return None
    return Sent(launch=int(event.data.get("launch") or 0), at=event.at, plan=plan, target=target)


def _sent_of(queue: EcsQueue, record: Record) -> Sent | None:
    plan = queue.frozen_plan(record)
    if plan is None:
        return None
    return Sent(record.launch, record.launched_at or record.last_claim_at, plan, _json(record.target or {}))


def _last_sent(journal: JournalReader, record_id: str) -> Sent | None:
    found = None
    for event in journal.events(record_id):
        if event.name == "launch.called":
            found = sent_in(event) or found
    return found


def _json(value: Any) -> Any:
    """The journal keeps JSON as it was written or as what it says."""
    return msgspec.json.decode(value) if isinstance(value, str | bytes) else value


def _why_unknown(record_id: str, record: Record | None) -> str:
    known = f"no request {record_id} is known: it was never submitted, or its retention time is over"
    if record is not None:
        known = f"{record_id} has ended ({record.state.value}), and what it ran was removed from the ledger"
    return f"{known}; the journal has nothing of it either (is `journal` on?): submit it anew with `ecs-queue submit`"


class _Filling:
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


def refuse_hidden(record_id: str, value: Any) -> None:
    """InvalidRequest, with what to give, when there is a secret in it that the journal has hidden."""
    from ecs_queue.journal.redact import redacted_places

    hidden = redacted_places(value)
    if not hidden:
        return
    names = sorted(set(_hidden_names(value)))
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


def _hidden_names(value: Any) -> Iterator[str]:
    from ecs_queue.journal.redact import is_redacted

    if isinstance(value, list):
        for item in value:
            yield from _hidden_names(item)
    elif isinstance(value, dict):
        if isinstance(value.get("name"), str) and is_redacted(value.get("value")):
            yield value["name"]
        for item in value.values():
            yield from _hidden_names(item)
