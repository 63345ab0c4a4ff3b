"""Makes an event of the catalogue into the JSON that the journal keeps."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from ecs_queue.journal.base import EVENT_VERSION
from ecs_queue.journal.redact import redact_json
from ecs_queue.protocol.decisions import PollInput
from ecs_queue.protocol.ecs_results import RunTaskResult
from ecs_queue.protocol.record import Record
from ecs_queue.telemetry import EVENTS, EventType

#: What a record carries besides the facts that decisions are made of: payloads, secrets of the protocol, the rest.
_EXCLUDED_RECORD_FIELDS = frozenset({"request", "args", "target", "claim", "digest", "owner", "worker", "accept_until"})
#: What a task has that no decision needs, and that may hold payloads.
_EXCLUDED_TASK_FIELDS = frozenset({"overrides", "attachments", "attributes", "tags", "inferenceAccelerators"})


def encode_event(at: float, name: str, fields: Mapping[str, Any]) -> bytes:
    """One event as JSON, secrets redacted. `at`: seconds since the epoch. TypeError or ValueError when there is no
    JSON for it."""
    kind = EVENTS[name]
    data = {key: value for key, value in fields.items() if key != "id"}
    for key in kind.journal_only:
        convert = _CONVERTERS.get(key)
        if convert is not None:
            data[key] = convert(data[key])
    event = {"v": EVENT_VERSION, "at": round(at, 6), "name": name, "id": fields.get("id", ""), "data": data}
    encoded = msgspec.json.encode(event, enc_hook=str)
    return redact_json(encoded) if _may_hold_secrets(kind, fields) else encoded


def decision_facts(record: Record) -> dict[str, Any]:
    """The record's fields that a decision may depend on, without those that are at their default."""
    return {
        name: value
        for name, default in _FACT_DEFAULTS
        if (value := getattr(record, name)) != default or name == "id"  # an exit code of 0 is no None
    }


def _may_hold_secrets(kind: EventType, fields: Mapping[str, Any]) -> bool:
    """Payloads, and sentences of ECS's or of an error. All else are ids and words of our own: most events."""
    look, answer = fields.get("poll_input"), fields.get("result")
    if isinstance(look, PollInput):
        said = look.task.get("stoppedReason") or look.record.reason
        return bool(said) or any(container.get("reason") for container in look.task.get("containers") or ())
    if isinstance(answer, RunTaskResult):
        return bool(answer.reason or fields["record"].reason)
    return bool(kind.journal_only) or bool(fields.get("reason"))


def _convert_poll_input(look: PollInput) -> dict[str, Any]:
    facts = msgspec.structs.asdict(look)
    return {**facts, "record": decision_facts(look.record), "task": _convert_task(look.task)}


def _convert_task(task: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in task.items() if key not in _EXCLUDED_TASK_FIELDS}


def _convert_payload(payload: bytes | str) -> Any:
    """As JSON if it is JSON; what is sealed as the text that it is."""
    try:
        return msgspec.json.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return payload.decode("utf-8", "replace") if isinstance(payload, bytes) else payload


_FACT_DEFAULTS = [
    (field.name, None if field.default is msgspec.NODEFAULT else field.default)
    for field in msgspec.structs.fields(Record)
    if field.name not in _EXCLUDED_RECORD_FIELDS
]
_CONVERTERS: dict[str, Callable[[Any], Any]] = {
    "record": decision_facts,
    "poll_input": _convert_poll_input,
    "tasks": lambda tasks: [_convert_task(task) for task in tasks],
    "envelope": _convert_payload,
    "launch_spec": _convert_payload,
    "target": _convert_payload,
}
