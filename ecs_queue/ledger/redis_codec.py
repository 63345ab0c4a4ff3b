"""Encodes the arguments of the ledger's script and decodes its replies. Field names are those of `Record`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from ecs_queue.ledger.base import DeadLetter
from ecs_queue.protocol.operations import OperationResult, ResultCode
from ecs_queue.protocol.record import Record
from ecs_queue.protocol.states import State


def format_seconds(value: float) -> str:
    """Format a time or duration to the millisecond, as the script stores times."""
    return f"{value:.3f}"


def encode_fields(struct: msgspec.Struct) -> list[str | bytes | int]:
    """Return the fields of a struct in its order, as the script reads them: the arguments of an operation."""
    return [_encode_value(value) for value in msgspec.structs.astuple(struct)]


def _encode_value(value: Any) -> str | bytes | int:
    if isinstance(value, float):
        return format_seconds(value)
    if isinstance(value, bool):
        return "1" if value else ""
    return "" if value is None else value


def decode_operation_result(reply: Sequence[Any]) -> OperationResult:
    """Decode {result code} or {result code, {id, field, value, ...}}."""
    return OperationResult(_RESULT_CODES[reply[0]], decode_record(reply[1]) if len(reply) > 1 else None)


def decode_record(flat: Sequence[bytes]) -> Record:
    """Decode {id, field, value, ...}; unknown fields are dropped, so that a newer version may add some.

    A record in a state of a newer version is shown as LAUNCHED, with a reason that says so. This version must not
    change it, and `lease_due` leaves it out.
    """
    fields: dict[str, Any] = {}
    for position in range(1, len(flat), 2):
        if decoder := _FIELD_DECODERS.get(flat[position]):
            name, decode = decoder
            fields[name] = decode(flat[position + 1])
    if isinstance(fields.get("state"), str) and fields["state"] not in _STATES:
        reason = f"its state {fields['state']} is of a newer version than this one: update ecs-queue here"
        fields.update(state=State.LAUNCHED, reason=reason)
    return Record(id=flat[0].decode(), **fields)


def decode_dead_letter(added_at: bytes, encoded: bytes) -> DeadLetter:
    """Decode a dead letter from its JSON and the time at which it was added."""
    return msgspec.structs.replace(msgspec.json.decode(encoded, type=DeadLetter), added_at=float(added_at))


def _decode_state(value: bytes) -> State | str:
    name = value.decode()
    return State(name) if name in _STATES else name


def _decode_integer(value: bytes) -> int:
    return int(float(value))


_STATES = frozenset(State)
_DECODERS_BY_TYPE: dict[Any, Callable[[bytes], Any]] = {
    str: bytes.decode,
    bytes: bytes,
    int: _decode_integer,
    float: float,
    bool: b"1".__eq__,
    State: _decode_state,
    int | None: _decode_integer,
}
#: Field name in Redis -> field name of `Record` and its decoder.
_FIELD_DECODERS = {
    field.name.encode(): (field.name, _DECODERS_BY_TYPE[field.type])
    for field in msgspec.structs.fields(Record)
    if field.name != "id"
}
_RESULT_CODES = {code.value.encode(): code for code in ResultCode}
