"""Strategies of bytes: valid ones that are changed, as bytes or as JSON, and made up ones."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Sequence
from typing import Any

from hypothesis import strategies as st

#: What decoders treat specially: ends of text, surrogates, overlong UTF-8, numbers out of range, brackets, a BOM.
_BYTES = (
    *(b"\x00", b"\n", b"\xff", b"\xc0\x80", b"\xed\xa0\x80", b"\xef\xbb\xbf", b'"', b"\\", b"\\ud800", b"\\u0000"),
    *(b"1e999", b"-1", b"NaN", b"1" * 400, b"[" * 200, b'{"a":' * 200, b",", b"}", b"]", b"null", b"x" * 3000),
)
_HUGE = 10**400
_NUMBERS = (
    0,
    -1,
    1,
    2**31,
    2**53 + 1,
    10**13,
    -(2**63),
    2**64,
    _HUGE,
    1e300,
    -0.0,
    1e-320,
    *map(float, ("inf", "nan")),
)
_TEXTS = (
    *("", "\0", "\n", "a\n", "\ud800", "ü", "../x", "a b", "{}", "%s%n", "nan", "-inf", "0x10", "x" * 70, "x" * 5000),
    *("0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59", "2026-11-28T12:00:00Z", "2026-11-28", "STOPPED"),
)
_DEEP: list[Any] = []
for _ in range(60):
    _DEEP = [_DEEP]

scalars: st.SearchStrategy[Any] = st.one_of(
    st.none(),
    st.booleans(),
    st.sampled_from(_NUMBERS),
    st.sampled_from(_TEXTS),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.text(max_size=12),
)
#: Any JSON, with values of a wrong type, size or range.
json_values: st.SearchStrategy[Any] = st.one_of(
    scalars,
    st.just(_DEEP),
    st.recursive(
        scalars,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
        max_leaves=6,
    ),
)


@st.composite
def changed_json(draw: st.DrawFn, value: Any) -> Any:
    """A JSON value with one to three of its members replaced, removed, renamed, repeated or added."""
    changed = json.loads(json.dumps(value))
    for _ in range(draw(st.integers(1, 3))):
        changed = _change_once(draw, changed)
    return changed


def _draw_json(draw: st.DrawFn) -> Any:
    return copy.deepcopy(draw(json_values))  # a sampled value is the same object in every example


def _change_once(draw: st.DrawFn, value: Any) -> Any:
    place, parent = [], value  # from the root to the container that is changed
    while isinstance(parent, dict | list) and parent:
        place.append(parent)
        key = draw(st.sampled_from(sorted(parent) if isinstance(parent, dict) else range(len(parent))))
        inner = parent[key]
        if not isinstance(inner, dict | list) or not inner or draw(st.booleans()):
            break
        parent = inner
    else:
        return _draw_json(draw)
    change = draw(st.sampled_from(("replace", "replace", "remove", "add", "repeat")))
    if change == "replace":
        parent[key] = _draw_json(draw)
    elif change == "remove":
        del parent[key]
    elif isinstance(parent, dict):
        parent[draw(st.text(max_size=8))] = _draw_json(draw) if change == "add" else copy.deepcopy(parent[key])
    else:
        parent.insert(0, _draw_json(draw) if change == "add" else copy.deepcopy(parent[key]))
    return value


def dump(value: Any) -> bytes:
    """The JSON of a value, as another program writes it: with NaN, and with half surrogate pairs as escapes."""
    return json.dumps(value).encode()


@st.composite
def changed_bytes(draw: st.DrawFn, valid: Sequence[bytes]) -> bytes:
    """One of the texts, with one to four changes of its bytes."""
    text = draw(st.sampled_from(valid))
    for _ in range(draw(st.integers(1, 4))):
        change = draw(st.sampled_from(_CHANGES))
        text = change(draw, text, valid)
    return text


def _position(draw: st.DrawFn, text: bytes) -> int:
    return draw(st.integers(0, len(text)))


def _flip(draw: st.DrawFn, text: bytes, valid: Sequence[bytes]) -> bytes:
    if not text:
        return text
    at = draw(st.integers(0, len(text) - 1))
    return text[:at] + bytes([text[at] ^ (1 << draw(st.integers(0, 7)))]) + text[at + 1 :]


def _truncate(draw: st.DrawFn, text: bytes, valid: Sequence[bytes]) -> bytes:
    return text[: _position(draw, text)]


def _cut_out(draw: st.DrawFn, text: bytes, valid: Sequence[bytes]) -> bytes:
    first, last = sorted((_position(draw, text), _position(draw, text)))
    return text[:first] + text[last:]


def _splice(draw: st.DrawFn, text: bytes, valid: Sequence[bytes]) -> bytes:
    other = draw(st.sampled_from(valid))
    return text[: _position(draw, text)] + other[_position(draw, other) :]


def _insert(draw: st.DrawFn, text: bytes, valid: Sequence[bytes]) -> bytes:
    at = _position(draw, text)
    return text[:at] + draw(st.sampled_from(_BYTES) | st.binary(max_size=8)) + text[at:]


_CHANGES: tuple[Callable[[st.DrawFn, bytes, Sequence[bytes]], bytes], ...] = (
    _flip,
    _truncate,
    _cut_out,
    _splice,
    _insert,
)


def inputs(valid: Sequence[bytes], objects: Sequence[Any]) -> st.SearchStrategy[bytes]:
    """Bytes for a decoder: valid ones, their changes as bytes and as JSON, any JSON, any bytes."""
    return st.one_of(
        st.sampled_from(valid),
        changed_bytes(valid),
        st.sampled_from(objects).flatmap(changed_json).map(dump),
        st.sampled_from(objects).flatmap(changed_json).map(dump).flatmap(lambda text: changed_bytes([text])),
        json_values.map(dump),
        st.binary(max_size=64),
    )
