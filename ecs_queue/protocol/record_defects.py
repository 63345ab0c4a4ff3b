"""Whether a stored record can be used: another program, a disk or an older fault may have left anything in its place.

The Lua scripts have the same rules (ledger/lua/10_record.lua).
"""

from __future__ import annotations

from operator import itemgetter
from typing import Any

import msgspec

from ecs_queue.protocol.record import Record
from ecs_queue.protocol.settings import MAX_FIELD_BYTES, MAX_STORED_NUMBER
from ecs_queue.protocol.states import LIVE_STATES, State

#: What no operation on a live record can do without.
_LIVE_TEXTS = ("queue", "nonce")
#: Field name -> the types of its values.
_TYPES: dict[str, tuple[type, ...]] = {
    field.name: {int: (int,), float: (float, int), bool: (bool,), bytes: (bytes,), int | None: (int, type(None))}.get(
        field.type, (str,)
    )
    for field in msgspec.structs.fields(Record)
}
_TEXTS = tuple(name for name, types in _TYPES.items() if types[0] in (str, bytes) and name != "state")
_NUMBERS = tuple(name for name, types in _TYPES.items() if types[0] in (int, float, bool) and name != "exit_code")
_FIELDS = tuple(_TYPES)  # in the order of `astuple`, which is faster than an attrgetter
_get_numbers, _get_texts = itemgetter(*map(_FIELDS.index, _NUMBERS)), itemgetter(*map(_FIELDS.index, _TEXTS))
#: The types of all fields of records that were found sound: a few, since a number may be an int or a float.
_SOUND_TYPES: set[tuple[type, ...]] = set()


def find_record_defect(record: Any) -> str:
    """Return why the record cannot be used, "" if it can. A state of a newer version, a plain text, is no defect."""
    if not isinstance(record, Record):
        return "its key holds no hash"
    # The ledgers check every record that they load: the usual one takes some microseconds.
    values = msgspec.structs.astuple(record)
    types = tuple(map(type, values))
    if types in _SOUND_TYPES:
        numbers = _get_numbers(values)
        longest = max(map(len, _get_texts(values)))
        if min(numbers) >= 0 and sum(numbers) < MAX_STORED_NUMBER and longest <= MAX_FIELD_BYTES:
            return _find_state_defect(record)
    defect = _find_field_defect(record)
    if not defect:
        _SOUND_TYPES.add(types)
    return defect or _find_state_defect(record)


def _find_field_defect(record: Record) -> str:
    for name in _NUMBERS:
        value = getattr(record, name)
        if type(value) not in _TYPES[name] or not 0 <= value < MAX_STORED_NUMBER:
            return f"its field {name} is {_describe_number(value)}"
    for name in _TEXTS:
        value = getattr(record, name)
        if type(value) not in _TYPES[name]:
            return f"its field {name} is no text in UTF-8"
        if len(value) > MAX_FIELD_BYTES:
            return f"its field {name} has {len(value)} bytes"
    return "" if type(record.exit_code) in _TYPES["exit_code"] else "its field exit_code is no number"


def _describe_number(value: Any) -> str:
    return "below zero" if isinstance(value, int | float) and -MAX_STORED_NUMBER < value < 0 else "no number"


def _find_state_defect(record: Record) -> str:
    if not isinstance(record.state, str) or not record.state:
        return "its field state is missing"
    if record.state not in LIVE_STATES:
        return ""
    for name in _LIVE_TEXTS:
        if not getattr(record, name):
            return f"its field {name} is missing"
    if record.state is State.LAUNCHED and not record.arn:
        return "its field arn is missing"
    return "launches and attempts count from 1" if record.launch < 1 or record.attempt < 1 else ""


_BROKEN = "its record in the ledger is broken"


def build_broken_record(record_id: str, reason: str, **fields: str) -> Record:
    """Return what is shown in place of a record that cannot be used: not ended, with the reason.

    `fields` are those of it that could be read.
    """
    advice = f"{_BROKEN}: {reason}. See `ecs-queue broken show record:{record_id}`"
    shown: dict[str, Any] = {**fields, "id": record_id, "state": State.LAUNCHED, "reason": advice}
    return Record(**shown)


def is_broken_record(record: Record) -> bool:
    """Return whether `build_broken_record` made it."""
    return not record.is_terminal and record.reason.startswith(_BROKEN)
