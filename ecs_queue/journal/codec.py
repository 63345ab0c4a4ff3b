"""Encodes an event of the catalogue as JSON, and decodes the events of every version."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from operator import attrgetter
from typing import Any

import msgspec

from ecs_queue.error_text import error_text
from ecs_queue.errors import PermanentError
from ecs_queue.journal.base import EVENT_VERSION, JournalEvent, StoredEvent
from ecs_queue.journal.redact import Redaction, redact_json
from ecs_queue.protocol.decisions import PollInput
from ecs_queue.protocol.ecs_results import RunTaskResult
from ecs_queue.protocol.record import Record
from ecs_queue.telemetry import EVENTS, EventType

#: Fields of a record that no decision depends on: payloads, secrets of the protocol, the rest.
_EXCLUDED_RECORD_FIELDS = frozenset(
    {"request", "args", "target", "claim", "digest", "owner", "worker", "accept_until", "traceparent"}
    | {"labels", "submitted_by", "concurrency_key", "priority", "waits_for_key"}
)
#: Members of a task that no decision depends on and that may hold payloads.
_EXCLUDED_TASK_FIELDS = frozenset({"overrides", "attachments", "attributes", "tags", "inferenceAccelerators"})
#: Version -> a function that upgrades an event of it to the next version. Every new version adds one, and
#: tests/journal/golden keeps a journal of each version.
UPGRADES: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {}


#: An event that nests deeper is not decoded. An executor_config may nest 32 deep, a few levels below its event.
_MAX_DEPTH = 64
_event_decoder = msgspec.json.Decoder(dict[str, Any])
_event_encoder = msgspec.json.Encoder(enc_hook=str)


class UndecodableEvent(PermanentError):  # noqa: N818
    """The JSON is not an event of a journal."""


class NotJson(UndecodableEvent):
    """It is not JSON."""


def encode_event(at: float, name: str, fields: Mapping[str, Any], redaction: Redaction = "environment") -> bytes:
    """Return one event as JSON without what `redaction` hides.

    Args:
        at: seconds since the epoch.
        name: a name of the catalogue.
        fields: the fields that were emitted.
        redaction: what is hidden of payloads and texts.

    Raises:
        TypeError, ValueError: a field cannot be encoded as JSON.
    """
    event_type = EVENTS[name]
    data = dict(fields)
    request_id = data.pop("id", "")
    for key in event_type.journal_only:
        if key in _CONVERTERS:
            data[key] = _CONVERTERS[key](data[key])
    event = {"v": EVENT_VERSION, "at": round(at, 6), "name": name, "id": request_id, "data": data}
    encoded = _event_encoder.encode(event)
    return redact_json(encoded, redaction) if _may_hold_secrets(event_type, fields) else encoded


def parse_event(text: bytes, seq: str, worker: str) -> JournalEvent:
    """Return the event of a batch; `seq` and `worker` are the batch's.

    Raises:
        UndecodableEvent: see `decode_event`.
    """
    raw = decode_members(text)
    return decode_event({**raw, "seq": seq, "worker": raw.get("worker", worker)})


def decode_members(text: bytes) -> dict[str, Any]:
    """Return the JSON object; raise `UndecodableEvent` for anything else, and for one that nests too deep."""
    try:
        members: dict[str, Any] = _event_decoder.decode(text)
    except msgspec.ValidationError:
        raise UndecodableEvent from None
    except (msgspec.DecodeError, ValueError, RecursionError) as error:  # bad UTF-8 is a ValueError
        raise NotJson(f"not JSON ({error_text(error)})") from None
    if text.count(b"{") + text.count(b"[") > _MAX_DEPTH and _is_deeper_than(members, _MAX_DEPTH):
        raise UndecodableEvent(f"nested more than {_MAX_DEPTH} deep")
    return members


def decode_event(raw: Mapping[str, Any]) -> JournalEvent:
    """Return the event in the format of the present version.

    Raises:
        UndecodableEvent: it is not an event, or an event of a later version.
    """
    event = dict(raw)
    version = event.get("v")
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise UndecodableEvent('expected a journal event with its version as "v"')
    if version > EVENT_VERSION:
        raise UndecodableEvent(
            f"event version {version} is unknown, this ecs-queue knows versions up to {EVENT_VERSION}: use a newer one"
        )
    for older in range(version, EVENT_VERSION):
        event = UPGRADES[older](event)
    try:
        stored = msgspec.convert({**event, "v": EVENT_VERSION}, StoredEvent)
    except msgspec.ValidationError as error:
        raise UndecodableEvent(f"not a journal event: {error_text(error)}") from None
    return JournalEvent(**msgspec.structs.asdict(stored))  # only these members: nothing stored says that it is verified


def decision_facts(record: Record) -> dict[str, Any]:
    """Return the record's fields that a decision may depend on, without those at their default."""
    return {
        name: value
        for name, value, default in zip(_FACT_NAMES, _get_facts(record), _FACT_DEFAULTS, strict=True)
        if value != default  # an id differs from None, and so does exit code 0
    }


def _is_deeper_than(value: Any, max_depth: int) -> bool:
    if isinstance(value, dict):
        value = value.values()
    elif not isinstance(value, list):
        return False
    return max_depth == 0 or any(_is_deeper_than(item, max_depth - 1) for item in value)


def _may_hold_secrets(event_type: EventType, fields: Mapping[str, Any]) -> bool:
    """Whether an event has a payload, or text of ECS or of an error. Most have only ids and our own codes."""
    if not event_type.journal_only:
        return bool(fields.get("reason"))
    poll_input, result = fields.get("poll_input"), fields.get("result")
    if isinstance(poll_input, PollInput):
        task = poll_input.task
        reasons = [container.get("reason") for container in task.get("containers") or ()]
        return any((task.get("stoppedReason"), poll_input.record.reason, *reasons))
    if isinstance(result, RunTaskResult):
        return bool(result.reason or fields["record"].reason)
    return True


def _convert_poll_input(poll_input: PollInput) -> dict[str, Any]:
    facts = msgspec.structs.asdict(poll_input)
    record = decision_facts(poll_input.record)
    if poll_input.record.labels and poll_input.task.get("lastStatus") == "STOPPED":
        record["labels"] = poll_input.record.labels  # `ecs-queue cost` adds tasks up by them
    return {**facts, "record": record, "task": _convert_task(poll_input.task)}


def _convert_task(task: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in task.items() if key not in _EXCLUDED_TASK_FIELDS}


def _convert_payload(payload: bytes | str) -> Any:
    """The JSON value; an encrypted payload stays text."""
    try:
        return msgspec.json.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return payload.decode("utf-8", "replace") if isinstance(payload, bytes) else payload


_FACT_FIELDS = [field for field in msgspec.structs.fields(Record) if field.name not in _EXCLUDED_RECORD_FIELDS]
_FACT_NAMES = [field.name for field in _FACT_FIELDS]
_FACT_DEFAULTS = [None if field.default is msgspec.NODEFAULT else field.default for field in _FACT_FIELDS]
_get_facts = attrgetter(*_FACT_NAMES)
_CONVERTERS: dict[str, Callable[[Any], Any]] = {
    "record": decision_facts,
    "poll_input": _convert_poll_input,
    "tasks": lambda tasks: [_convert_task(task) for task in tasks],
    "envelope": _convert_payload,
    "launch_spec": _convert_payload,
    "target": _convert_payload,
}
