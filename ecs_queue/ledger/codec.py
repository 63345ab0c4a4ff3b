"""Between the ledger's Lua replies and `Record`: field names are the record's own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from ecs_queue.core.protocol import Answer, Outcome, Word
from ecs_queue.core.record import Record
from ecs_queue.core.states import State
from ecs_queue.ledger.base import DeadLetter


def seconds(value: float) -> str:
    """To the millisecond, as the script stores times."""
    return f"{value:.3f}"


def flag(value: object) -> str:
    """A boolean as the script reads it."""
    return "1" if value else ""


def outcome_arguments(seen: Outcome) -> tuple[Any, ...]:
    """The arguments of the script's `outcome`, in its order."""
    return (
        seen.id,
        seen.launch,
        seen.arn,
        seen.version,
        seen.last_status,
        seconds(seen.wait),
        seconds(seen.started_at),
        seen.end.value if seen.end else "",
        flag(seen.retry),
        flag(seen.by_user),
        seen.max_attempts,
        seconds(seen.finished_at),
        "" if seen.exit_code is None else seen.exit_code,
        seen.stop_code,
        seen.reason,
    )


def answer_of(reply: Sequence[Any]) -> Answer:
    """{word} or {word, {id, field, value, ...}}."""
    word = _WORDS.get(reply[0]) or Word(reply[0].decode())
    return Answer(word, record_of(reply[1]) if len(reply) > 1 else None)


def record_of(flat: Sequence[bytes]) -> Record:
    """{id, field, value, ...}; unknown fields are left out, so that a newer version may add some.

    A record in a state of a newer version is shown as LAUNCHED, with that as its reason: it is not to be touched here,
    and `due` leaves it out.
    """
    fields: dict[str, Any] = {}
    for position in range(1, len(flat), 2):
        known = _CONVERT.get(flat[position])
        if known is not None:
            name, convert = known
            fields[name] = convert(flat[position + 1])
    if isinstance(fields.get("state"), str) and fields["state"] not in _STATES:
        reason = f"its state {fields['state']} is of a newer version than this one: update ecs-queue here"
        fields.update(state=State.LAUNCHED, reason=reason)
    return Record(id=flat[0].decode(), **fields)


def letter_of(at: bytes, letter: bytes) -> DeadLetter:
    """A dead letter of its JSON, and when it was buried."""
    return msgspec.structs.replace(msgspec.json.decode(letter, type=DeadLetter), at=float(at))


def _boolean(value: bytes) -> bool:
    return value == b"1"


def _state(value: bytes) -> State | str:
    name = value.decode()
    return State(name) if name in _STATES else name


def _integer(value: bytes) -> int:
    return int(float(value))


_STATES = frozenset(State)
_BY_TYPE: dict[Any, Callable[[bytes], Any]] = {
    str: bytes.decode,
    bytes: bytes,
    int: _integer,
    float: float,
    bool: _boolean,
    State: _state,
    int | None: _integer,
}
#: By the field's name on the wire.
_CONVERT = {
    field.name.encode(): (field.name, _BY_TYPE[field.type])
    for field in msgspec.structs.fields(Record)
    if field.name != "id"
}
_WORDS = {word.value.encode(): word for word in Word}
