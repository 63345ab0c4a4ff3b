"""Encodes the arguments of the ledger's script and decodes its replies. Field names are those of `Record`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import chain
from types import MappingProxyType
from typing import Any

import msgspec

from ecs_queue.ledger.base import DeadLetter, WorkerInfo
from ecs_queue.protocol.operations import OperationResult, ResultCode
from ecs_queue.protocol.record import Record
from ecs_queue.protocol.record_defects import build_broken_record, find_record_defect
from ecs_queue.protocol.settings import MAX_STORED_NUMBER
from ecs_queue.protocol.states import State


def format_seconds(value: float) -> str:
    """Format a time or duration to the millisecond, as the script stores times."""
    return f"{value:.3f}"


def parse_number(value: str) -> float | None:
    """Return a stored number; None for anything else."""
    try:
        number = float(value)
    except ValueError:
        return None
    return number if -MAX_STORED_NUMBER < number < MAX_STORED_NUMBER else None


def encode_fields(struct: msgspec.Struct) -> list[str | bytes | int]:
    """Return the fields of a struct in its order, as the script reads them: the arguments of an operation."""
    fields = msgspec.structs.astuple(struct)
    return [value if type(value) in _SENT_AS_THEY_ARE else _encode_value(value) for value in fields]


#: The types of most values; not those of their subclasses, such as bool.
_SENT_AS_THEY_ARE = frozenset({str, bytes, int})


def _encode_value(value: Any) -> str | bytes | int:
    if isinstance(value, float):
        return format_seconds(value)
    if isinstance(value, bool):
        return "1" if value else ""
    return "" if value is None else value


def decode_operation_result(reply: Sequence[Any]) -> OperationResult:
    """Decode {result code}, {result code, {id, field, value, ...}} or {result code, nil, time}."""
    code = _RESULT_CODES[reply[0]]
    if len(reply) == 1:
        return OperationResult(code)
    return (
        OperationResult(code, at=float(reply[2]))
        if reply[1] is None
        else OperationResult(code, decode_record(reply[1]))
    )


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


#: The payload of a record that is read without it.
NO_PAYLOAD: Mapping[bytes, bytes] = MappingProxyType({})


def decode_hashes(
    record_id: str, fields: Mapping[bytes, bytes] | None, payload: Mapping[bytes, bytes] | None = NO_PAYLOAD
) -> Record | None:
    """Decode a record from its hash, and with `payload` from the hash of its payload; None when there is no record.

    Without `payload` the record has none, even where its own hash still has it (lua/10_record.lua). None in place of a
    hash: its key holds something else. A record that cannot be used is shown as not ended, with the reason.
    """
    if fields is not None and not fields:
        return None
    if fields is None or payload is None:
        defect = "its key holds no hash" if fields is None else "the key of its payload holds no hash"
        return build_broken_record(record_id, defect, **_decode_texts(fields or {}))
    try:
        record = decode_record([record_id.encode(errors="surrogateescape"), *chain(*{**payload, **fields}.items())])
    except (ValueError, TypeError, OverflowError):
        return build_broken_record(record_id, "a field cannot be decoded", **_decode_texts(fields))
    is_newer = fields.get(b"state", b"QUEUED").decode(errors="replace") not in _STATES
    defect = "" if is_newer else find_record_defect(record)
    defect = defect or ("" if b"state" in fields else "its field state is missing")
    if defect:
        return build_broken_record(record_id, defect, **_decode_texts(fields))
    return msgspec.structs.replace(record, request=b"", args="") if payload is NO_PAYLOAD else record


def _decode_texts(fields: Mapping[bytes, bytes]) -> dict[str, str]:
    """What says whose record it is, as far as it can be decoded."""
    names = ("nonce", "digest", "queue", "owner", "arn")
    return {name: fields.get(name.encode(), b"").decode(errors="replace") for name in names}


def decode_dead_letter(key: bytes, added_at: bytes, encoded: bytes) -> DeadLetter:
    """Decode a dead letter from its JSON and the time at which it was added.

    Raises:
        ValueError: It cannot be decoded, or is not the one of this key.
    """
    found = msgspec.json.decode(encoded, type=DeadLetter)
    if found.key.encode() != key:
        raise ValueError("it has another key than it is stored under")
    return msgspec.structs.replace(found, added_at=float(added_at))


def decode_worker(name: bytes, seen_at: bytes, info: bytes) -> WorkerInfo:
    """Decode a heartbeat from its JSON and the time at which it came.

    Raises:
        ValueError: It cannot be decoded, or is not this worker's.
    """
    found = msgspec.json.decode(info, type=WorkerInfo)
    if found.name.encode() != name:
        raise ValueError("it has another name than it is stored under")
    return msgspec.structs.replace(found, last_seen_at=float(seen_at))


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
# Arguments are verified and decoded where they are used; a reader of the record need not fail for them.
_FIELD_DECODERS[b"args"] = ("args", partial(bytes.decode, errors="replace"))
_RESULT_CODES = {code.value.encode(): code for code in ResultCode}
