"""botocore's own model of run_task's arguments: which keys there are, how they are spelled, what they take.

The model is read once from botocore's files and kept as a small tree; the rest of botocore's model is let go.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import cache
from typing import Any

from ecs_queue.errors import InvalidRequest

_NUMBERS = frozenset({"integer", "long"})
_EXPECTED = {
    "structure": "an object",
    "list": "a list",
    "string": "text",
    "boolean": "true or false",
    "integer": "a whole number",
    "long": "a whole number",
}


@dataclass(frozen=True, slots=True)
class Shape:
    """One argument: a structure with members, a list of elements, or a plain value."""

    kind: str
    members: Mapping[str, Shape] = field(default_factory=dict)
    required: frozenset[str] = frozenset()
    element: Shape | None = None
    choices: tuple[str, ...] = ()
    least: int | None = None
    most: int | None = None
    is_sensitive: bool = False
    is_union: bool = False
    spellings: Mapping[str, str] = field(default_factory=dict)

    def spell(self, key: str) -> str | None:
        """The member that `key` means in any spelling (`container_overrides`.

        `containerOverrides`), or None.
        """
        return key if key in self.members else self.spellings.get(_letters(key))


def _letters(key: str) -> str:
    return key.replace("_", "").lower()


@cache
def run_task_shape() -> Shape:
    """What boto3's run_task takes; reads botocore's files at the first call, then answers from memory."""
    # Here: a client that sends no executor_config need not load botocore. The loader alone, without a session:
    # an AWS_PROFILE that names no profile must not break whoever only submits.
    from botocore.loaders import create_loader
    from botocore.model import ServiceModel

    model = ServiceModel(create_loader().load_service_model("ecs", "service-2"), "ecs")
    return _convert(model.operation_model("RunTask").input_shape)


@cache
def container_override_shape() -> Shape:
    """What one entry of `overrides.containerOverrides` takes."""
    element = run_task_shape().members["overrides"].members["containerOverrides"].element
    if element is None:
        raise TypeError("botocore's model of containerOverrides is no list")
    return element


def _convert(shape: Any) -> Shape:
    meta = shape.metadata
    bounds = (meta.get("min"), meta.get("max"))
    common: dict[str, Any] = {
        "kind": shape.type_name,
        "choices": tuple(meta.get("enum", ())),
        "least": bounds[0],
        "most": bounds[1],
        "is_sensitive": bool(meta.get("sensitive")),
    }
    if shape.type_name == "structure":
        members = {name: _convert(member) for name, member in shape.members.items()}
        common.update(
            members=members,
            required=frozenset(meta.get("required", ())),
            is_union=bool(meta.get("union")),
            spellings={_letters(name): name for name in members},
        )
    elif shape.type_name == "list":
        common["element"] = _convert(shape.member)
    return Shape(**common)


def conform(value: Any, shape: Shape, path: str) -> Any:
    """A copy of `value` with every key as the model spells it; nothing in it is shared with `value`.

    Keys may be snake_case; those below `tags` must be as they are. A required member may be missing only
    where another layer can still add it, that is not inside a list. InvalidRequest names the key, what was
    expected and what was found; what the model marks as sensitive (environment variables) is never shown.
    """
    return _Conformer(loose=True, complete=False, sensitive=False).walk(value, shape, path)


def verify(value: Mapping[str, Any], shape: Shape, path: str) -> None:
    """Check whole arguments, all required members present and keys exactly as the model has them.

    InvalidRequest.
    """
    _Conformer(loose=False, complete=True, sensitive=False).walk(value, shape, path)


def unknown_key(path: str, key: object, known: Mapping[str, Any], what: str) -> InvalidRequest:
    """The error for a key that the model does not have, with the nearest one that it has."""
    near = get_close_matches(str(key), known, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return InvalidRequest(
        f"{path}: unknown key {_shown(key)}, expected a key of {what} ({', '.join(sorted(known))}){hint}"
    )


@dataclass(frozen=True, slots=True)
class _Conformer:
    loose: bool
    complete: bool
    sensitive: bool

    def walk(self, value: Any, shape: Shape, path: str) -> Any:
        if shape.is_sensitive and not self.sensitive:
            return _Conformer(self.loose, self.complete, sensitive=True).walk(value, shape, path)
        if shape.kind == "structure":
            return self._structure(value, shape, path)
        if shape.kind == "list":
            return self._list(value, shape, path)
        return self._plain(value, shape, path)

    def _structure(self, value: Any, shape: Shape, path: str) -> dict[str, Any]:
        if not isinstance(value, Mapping):
            raise self._mismatch(path, "an object", value)
        result: dict[str, Any] = {}
        for key, item in value.items():
            name = self._name(key, shape)
            if name is None:
                raise unknown_key(path, key, shape.members, "ECS")
            if name in result:
                raise InvalidRequest(f"{path}.{name}: expected once, found in two spellings")
            inner = _Conformer(False, True, self.sensitive) if name == "tags" else self
            result[name] = inner.walk(item, shape.members[name], f"{path}.{name}")
        missing = sorted(shape.required - result.keys()) if self.complete else ()
        if missing:
            raise InvalidRequest(f"{path}: expected the key {missing[0]!r}, found {_keys(result)}")
        if shape.is_union and len(result) != 1:
            raise InvalidRequest(f"{path}: expected one of {', '.join(shape.members)}, found {_keys(result)}")
        return result

    def _name(self, key: object, shape: Shape) -> str | None:
        if not isinstance(key, str):
            return None
        return shape.spell(key) if self.loose else key if key in shape.members else None

    def _list(self, value: Any, shape: Shape, path: str) -> list[Any]:
        if not isinstance(value, list | tuple) or shape.element is None:
            raise self._mismatch(path, "a list", value)
        self._bounds(len(value), shape, path, "{} entries")
        # An entry of a list is never completed by another layer: lists are replaced.
        inner = _Conformer(self.loose, True, self.sensitive)
        return [inner.walk(item, shape.element, f"{path}[{i}]") for i, item in enumerate(value)]

    def _plain(self, value: Any, shape: Shape, path: str) -> Any:
        if not _is_a(value, shape.kind):
            raise self._mismatch(path, _EXPECTED.get(shape.kind, shape.kind), value)
        if shape.choices and value not in shape.choices:
            raise self._mismatch(path, f"one of {', '.join(shape.choices)}", value)
        if shape.kind == "string":
            self._bounds(len(value), shape, path, "{} characters")
        elif shape.kind in _NUMBERS:
            self._bounds(value, shape, path, "{}")
        return value

    @staticmethod
    def _bounds(size: int, shape: Shape, path: str, unit: str) -> None:
        if shape.least is not None and size < shape.least:
            bound = f"at least {unit.format(shape.least)}"
        elif shape.most is not None and size > shape.most:
            bound = f"at most {unit.format(shape.most)}"
        else:
            return
        raise InvalidRequest(f"{path}: expected {bound}, found {unit.format(size)}")

    def _mismatch(self, path: str, expected: str, value: Any) -> InvalidRequest:
        found = _kind_of(value) if self.sensitive else f"{_shown(value)} ({_kind_of(value)})"
        return InvalidRequest(f"{path}: expected {expected}, found {found}")


def _is_a(value: Any, kind: str) -> bool:
    if kind == "string":
        return isinstance(value, str)
    if kind == "boolean":
        return isinstance(value, bool)
    if kind in _NUMBERS:
        return isinstance(value, int) and not isinstance(value, bool)
    return True  # ECS has no other kinds today; boto3 checks what a later model adds


def _kind_of(value: object) -> str:
    if value is None:
        return "null"
    names = ((bool, "true/false"), (str, "text"), (int | float, "a number"), (Mapping, "an object"))
    for kind, name in names:
        if isinstance(value, kind):
            return name
    return "a list" if isinstance(value, list | tuple) else type(value).__name__


def _shown(value: object) -> str:
    """A value for a message. Objects and lists are only named: they may hold an environment."""
    if isinstance(value, Mapping):
        return _keys(value)
    if isinstance(value, list | tuple):
        return f"{len(value)} entries"
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _keys(value: Mapping[Any, Any]) -> str:
    return f"the keys {', '.join(sorted(map(str, value)))}" if value else "no keys"
