"""Between the ledger's Lua replies and `Record`: field names are the record's own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from ecs_queue.ledger.base import DeadLetter
from ecs_queue.protocol.operations import OperationResult, ResultCode, TaskUpdate
from ecs_queue.protocol.record import Record
from ecs_queue.protocol.states import State


def format_seconds(value: float) -> str:
    """To the millisecond, as the script stores times."""
    return f"{value:.3f}"


def format_flag(value: object) -> str:
    """A boolean as the script reads it."""
    return "1" if value else ""


def task_update_arguments(update: TaskUpdate) -> tuple[Any, ...]:
    """The arguments of the script's `outcome`, in its order."""
    return (
        update.id,
        update.launch,
        update.arn,
        update.version,
        update.last_status,
        format_seconds(update.wait),
        format_seconds(update.started_at),
        update.end_state.value if update.end_state else "",
        format_flag(update.may_relaunch),
        format_flag(update.stopped_by_user),
        update.max_attempts,
        format_seconds(update.finished_at),
        "" if update.exit_code is None else update.exit_code,
        update.stop_code,
        update.reason,
    )


def decode_operation_result(reply: Sequence[Any]) -> OperationResult:
    """{word} or {word, {id, field, value, ...}}."""
    word = _RESULT_CODES.get(reply[0]) or ResultCode(reply[0].decode())
    return OperationResult(word, decode_record(reply[1]) if len(reply) > 1 else None)


def decode_record(flat: Sequence[bytes]) -> Record:
    """{id, field, value, ...}; unknown fields are left out, so that a newer version may add some.

    A record in a state of a newer version is shown as LAUNCHED, with that as its reason: it is not to be touched here,
    and `due` leaves it out.
    """
    fields: dict[str, Any] = {}
    for position in range(1, len(flat), 2):
        known = _FIELD_DECODERS.get(flat[position])
        if known is not None:
            name, convert = known
            fields[name] = convert(flat[position + 1])
    if isinstance(fields.get("state"), str) and fields["state"] not in _STATES:
        reason = f"its state {fields['state']} is of a newer version than this one: update ecs-queue here"
        fields.update(state=State.LAUNCHED, reason=reason)
    return Record(id=flat[0].decode(), **fields)


def decode_dead_letter(added_at: bytes, encoded: bytes) -> DeadLetter:
    """A dead letter of its JSON, and when it was buried."""
    return msgspec.structs.replace(msgspec.json.decode(encoded, type=DeadLetter), added_at=float(added_at))


def _decode_boolean(value: bytes) -> bool:
    return value == b"1"


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
    bool: _decode_boolean,
    State: _decode_state,
    int | None: _decode_integer,
}
#: By the field's name on the wire.
_FIELD_DECODERS = {
    field.name.encode(): (field.name, _DECODERS_BY_TYPE[field.type])
    for field in msgspec.structs.fields(Record)
    if field.name != "id"
}
_RESULT_CODES = {word.value.encode(): word for word in ResultCode}
