"""botocore's model of run_task's arguments: the keys, their spelling, and the values that they take.

The model is read once from botocore's files and kept as a small tree; the rest of botocore's model is discarded.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import cache
from typing import Any

from ecs_queue.error_text import is_payload_member, key_text
from ecs_queue.errors import InvalidRequest

_NUMBER_KINDS = frozenset({"integer", "long"})
_EXPECTED_TEXT = {
    "structure": "an object",
    "list": "a list",
    "string": "text",
    "boolean": "true or false",
    "integer": "a whole number",
    "long": "a whole number",
}


@dataclass(frozen=True, slots=True)
class Shape:
    """The shape of one argument: a structure with members, a list of elements, or a plain value."""

    kind: str
    members: Mapping[str, Shape] = field(default_factory=dict)
    required: frozenset[str] = frozenset()
    element: Shape | None = None
    choices: tuple[str, ...] = ()
    minimum: int | None = None
    maximum: int | None = None
    is_payload: bool = False
    is_union: bool = False
    member_by_letters: Mapping[str, str] = field(default_factory=dict)

    def find_member(self, key: str) -> str | None:
        """Return the member that `key` names in any spelling (`container_overrides`, `containerOverrides`), or None."""
        return key if key in self.members else self.member_by_letters.get(_letters_only(key))


def _letters_only(key: str) -> str:
    return key.replace("_", "").lower()


@cache
def run_task_shape() -> Shape:
    """Return the shape of run_task's arguments; only the first call reads botocore's files."""
    # Imported here, so that a client without executor_config does not load botocore. The loader works without a
    # session: a client that only submits must not fail because AWS_PROFILE names no profile.
    from botocore.loaders import create_loader
    from botocore.model import ServiceModel

    model = ServiceModel(create_loader().load_service_model("ecs", "service-2"), "ecs")
    return _convert_shape(model.operation_model("RunTask").input_shape)


@cache
def container_override_shape() -> Shape:
    """Return the shape of one entry of `overrides.containerOverrides`."""
    element = run_task_shape().members["overrides"].members["containerOverrides"].element
    if element is None:
        raise TypeError("botocore's model of containerOverrides is no list")
    return element


def _convert_shape(shape: Any, is_payload: bool = False) -> Shape:
    meta = shape.metadata
    members = {
        name: _convert_shape(member, is_payload_member(name)) for name, member in getattr(shape, "members", {}).items()
    }
    return Shape(
        kind=shape.type_name,
        members=members,
        required=frozenset(meta.get("required", ())),
        element=_convert_shape(shape.member) if shape.type_name == "list" else None,
        choices=tuple(meta.get("enum", ())),
        minimum=meta.get("min"),
        maximum=meta.get("max"),
        is_payload=is_payload or bool(meta.get("sensitive")),
        is_union=bool(meta.get("union")),
        member_by_letters={_letters_only(name): name for name in members},
    )


def normalize(value: Any, shape: Shape, path: str) -> Any:
    """Return a copy of `value` with every key in the model's spelling; it shares nothing with `value`.

    Keys may be snake_case, except those below `tags`. A required member may be missing where another layer can still
    add it, that is outside of lists.

    Raises:
        InvalidRequest: Names the key, what was expected and what was found, but no value of or below a payload member
            (environment, command) or what the model marks as sensitive, and no text in place of an object or a list.
    """
    return _normalizer(True, False, False).normalize(value, shape, path)


def validate(value: Mapping[str, Any], shape: Shape, path: str) -> None:
    """Raise InvalidRequest unless all required members are present and every key has the model's spelling."""
    _normalizer(False, True, False).normalize(value, shape, path)


def unknown_key_error(
    path: str, key: object, known: Iterable[str], owner: str, is_shown: bool = True
) -> InvalidRequest:
    """Return the error for a key that `owner` does not have, with the nearest key that it has."""
    names = sorted(known)
    near = get_close_matches(str(key)[:64], names, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    found = f" {key_text(key)}" if is_shown else ""
    return InvalidRequest(f"{path}: unknown key{found}, expected a key of {owner} ({', '.join(names)}){hint}")


@cache
def _normalizer(accepts_any_casing: bool, requires_all: bool, is_payload: bool) -> _Normalizer:
    """Each is built once: a launch needs several."""
    return _Normalizer(accepts_any_casing, requires_all, is_payload)


@dataclass(frozen=True, slots=True)
class _Normalizer:
    accepts_any_casing: bool
    requires_all: bool
    is_payload: bool

    def normalize(self, value: Any, shape: Shape, path: str) -> Any:
        if shape.is_payload and not self.is_payload:
            return _normalizer(self.accepts_any_casing, self.requires_all, True).normalize(value, shape, path)
        if shape.kind == "structure":
            return self._normalize_structure(value, shape, path)
        if shape.kind == "list":
            return self._normalize_list(value, shape, path)
        return self._check_value(value, shape, path)

    def _normalize_structure(self, value: Any, shape: Shape, path: str) -> dict[str, Any]:
        if not isinstance(value, Mapping):
            raise InvalidRequest(f"{path}: expected an object, found {_describe_type(value)}")
        result: dict[str, Any] = {}
        for key, item in value.items():
            name = key if key in shape.members else self._find_in_other_casing(key, shape)
            if name is None:
                raise unknown_key_error(path, key, shape.members, "ECS", is_shown=not self.is_payload)
            if name in result:
                raise InvalidRequest(f"{path}.{name}: expected once, found in two spellings")
            inner = _normalizer(False, True, self.is_payload) if name == "tags" else self
            result[name] = inner.normalize(item, shape.members[name], f"{path}.{name}")
        if self.requires_all and not shape.required <= result.keys():
            missing = min(shape.required - result.keys())
            raise InvalidRequest(f"{path}: expected the key {missing!r}, found {_describe_keys(result)}")
        if shape.is_union and len(result) != 1:
            raise InvalidRequest(f"{path}: expected one of {', '.join(shape.members)}, found {_describe_keys(result)}")
        return result

    def _find_in_other_casing(self, key: object, shape: Shape) -> str | None:
        """The member that a key names in another casing than the model's, where any is accepted."""
        return shape.find_member(key) if self.accepts_any_casing and isinstance(key, str) else None

    def _normalize_list(self, value: Any, shape: Shape, path: str) -> list[Any]:
        if not isinstance(value, list | tuple) or shape.element is None:
            raise InvalidRequest(f"{path}: expected a list, found {_describe_type(value)}")
        self._check_bounds(len(value), shape, path, "{} entries")
        # No layer completes an entry of a list: lists are replaced.
        inner = self if self.requires_all else _normalizer(self.accepts_any_casing, True, self.is_payload)
        return [inner.normalize(item, shape.element, f"{path}[{i}]") for i, item in enumerate(value)]

    def _check_value(self, value: Any, shape: Shape, path: str) -> Any:
        if not _is_of_kind(value, shape.kind):
            raise self._mismatch_error(path, _EXPECTED_TEXT.get(shape.kind, shape.kind), value)
        if shape.choices and value not in shape.choices:
            raise self._mismatch_error(path, f"one of {', '.join(shape.choices)}", value)
        if shape.kind == "string":
            self._check_bounds(len(value), shape, path, "{} characters")
        elif shape.kind in _NUMBER_KINDS:
            self._check_bounds(value, shape, path, "{}")
        return value

    @staticmethod
    def _check_bounds(size: int, shape: Shape, path: str, unit: str) -> None:
        if shape.minimum is not None and size < shape.minimum:
            bound = f"at least {unit.format(shape.minimum)}"
        elif shape.maximum is not None and size > shape.maximum:
            bound = f"at most {unit.format(shape.maximum)}"
        else:
            return
        raise InvalidRequest(f"{path}: expected {bound}, found {unit.format(size)}")

    def _mismatch_error(self, path: str, expected: str, value: Any) -> InvalidRequest:
        found = _describe_type(value) if self.is_payload else f"{_describe_value(value)} ({_describe_type(value)})"
        return InvalidRequest(f"{path}: expected {expected}, found {found}")


def _is_of_kind(value: Any, kind: str) -> bool:
    if kind == "string":
        return isinstance(value, str)
    if kind == "boolean":
        return isinstance(value, bool)
    if kind in _NUMBER_KINDS:
        return isinstance(value, int) and not isinstance(value, bool)
    return True  # ECS has no other kinds today; boto3 checks what a later model adds


def _describe_type(value: object) -> str:
    if value is None:
        return "null"
    names = ((bool, "true/false"), (str, "text"), (int | float, "a number"), (Mapping, "an object"))
    for kind, name in names:
        if isinstance(value, kind):
            return name
    return "a list" if isinstance(value, list | tuple) else type(value).__name__


def _describe_value(value: object) -> str:
    """A value for an error message. Objects and lists are only named, because they may hold an environment."""
    if isinstance(value, Mapping):
        return _describe_keys(value)
    if isinstance(value, list | tuple):
        return f"{len(value)} entries"
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _describe_keys(value: Mapping[Any, Any]) -> str:
    return f"the keys {', '.join(sorted(map(str, value)))}" if value else "no keys"
