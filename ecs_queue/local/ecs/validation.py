"""Checks parameters against botocore's service model of ECS, compiled once into plain functions."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import Any

from botocore.loaders import Loader
from botocore.model import ServiceModel

from ecs_queue.error_text import is_payload_member, key_text
from ecs_queue.local.ecs.aws_json import invalid_parameter

Checker = Callable[[Any], None]

_INTEGER_RANGES: dict[str, tuple[int, int]] = {
    "integer": (-(2**31), 2**31 - 1),
    "long": (-(2**63), 2**63 - 1),
}


class ShapeMismatch(Exception):  # noqa: N818 - never leaves this module
    """A value does not match its shape. `path` is collected from the inside out: `.name` and `[0]`."""

    def __init__(self, expected: str, found: Any, *, is_key: bool = False) -> None:
        super().__init__(expected)
        self.is_key = is_key
        self.expected = expected
        self.found = found
        self.path: list[str] = []

    def message(self) -> str:
        """Return a message with the member, what was expected and what was found."""
        member = "".join(reversed(self.path)).lstrip(".") or "the request"
        return f"{member}: expected {self.expected}, found {self._describe_found()}"

    def _describe_found(self) -> str:
        """The value, but only its type below a payload member, or where an object or list stands or was expected."""
        is_payload = any(is_payload_member(name.lstrip(".")) for name in self.path)
        is_plain = isinstance(self.found, str | int | float | None) and self.expected not in ("an object", "a list")
        if is_payload or not is_plain:
            return "another key" if self.is_key else type(self.found).__name__
        if self.is_key:
            return key_text(self.found)
        found = repr(self.found)
        return found if len(found) <= 80 else found[:77] + "..."


class ParameterValidator:
    """One check per operation: required and unknown members, types, lengths, ranges, enumerations."""

    def __init__(self, operations: Iterable[str]) -> None:
        model = _service_model()
        self._compiled: dict[str, Checker] = {}
        self._checks = {name: self._compile(model.operation_model(name).input_shape) for name in sorted(operations)}

    def validate(self, operation: str, parameters: dict[str, Any]) -> None:
        """Raise InvalidParameterException (ApiError) with the member, what was expected and what was found."""
        try:
            self._checks[operation](parameters)
        except ShapeMismatch as mismatch:
            raise invalid_parameter(mismatch.message()) from None

    def _compile(self, shape: Any) -> Checker:
        if shape.name not in self._compiled:
            # Registered before its members are compiled: a shape may contain itself.
            self._compiled[shape.name] = lambda value: self._compiled[shape.name](value)
            makers = {"structure": self._structure, "list": self._list, "map": self._map}
            self._compiled[shape.name] = makers.get(shape.type_name, _scalar)(shape)
        return self._compiled[shape.name]

    def _structure(self, shape: Any) -> Checker:
        members = {name: self._compile(member) for name, member in shape.members.items()}
        required = tuple(shape.required_members)

        def validate(value: Any) -> None:
            if type(value) is not dict:
                raise ShapeMismatch("an object", value)
            for name in required:
                if name not in value:
                    raise ShapeMismatch(f"the required member {name}", value)
            for name, item in value.items():
                if name not in members:
                    raise ShapeMismatch("one of " + ", ".join(sorted(members)), name, is_key=True)
                _check_member(members[name], item, f".{name}")

        return validate

    def _list(self, shape: Any) -> Checker:
        member = self._compile(shape.member)
        check_length = _length_checker(shape, "items")

        def validate(value: Any) -> None:
            if type(value) is not list:
                raise ShapeMismatch("a list", value)
            check_length(value)
            for index, item in enumerate(value):
                _check_member(member, item, f"[{index}]")

        return validate

    def _map(self, shape: Any) -> Checker:
        key, member = self._compile(shape.key), self._compile(shape.value)

        def validate(value: Any) -> None:
            if type(value) is not dict:
                raise ShapeMismatch("an object", value)
            for name, item in value.items():
                _check_member(key, name, f".{name}")
                _check_member(member, item, f".{name}")

        return validate


def _check_member(check: Checker, value: Any, path: str) -> None:
    try:
        check(value)
    except ShapeMismatch as mismatch:
        mismatch.path.append(path)
        raise


def _scalar(shape: Any) -> Checker:
    type_name = shape.type_name
    if type_name in _INTEGER_RANGES:
        return _integer(shape, *_INTEGER_RANGES[type_name])
    if type_name == "string":
        return _string(shape)
    expected, types = {
        "boolean": ("true or false", (bool,)),
        "timestamp": ("seconds since 1970", (int, float)),
    }.get(type_name, ("a number", (int, float)))

    def check(value: Any) -> None:
        if type(value) not in types:
            raise ShapeMismatch(expected, value)

    return check


def _integer(shape: Any, minimum: int, maximum: int) -> Checker:
    low, high = shape.metadata.get("min", minimum), shape.metadata.get("max", maximum)

    def check(value: Any) -> None:
        if type(value) is not int or not low <= value <= high:
            raise ShapeMismatch(f"a whole number from {low} to {high}", value)

    return check


def _string(shape: Any) -> Checker:
    allowed = frozenset(shape.enum)
    check_length = _length_checker(shape, "characters")

    def check(value: Any) -> None:
        if type(value) is not str:
            raise ShapeMismatch("a string", value)
        if allowed and value not in allowed:
            raise ShapeMismatch("one of " + ", ".join(sorted(allowed)), value)
        check_length(value)

    return check


def _length_checker(shape: Any, unit: str) -> Checker:
    low, high = shape.metadata.get("min"), shape.metadata.get("max")

    def check(value: Any) -> None:
        if low is not None and len(value) < low:
            raise ShapeMismatch(f"at least {low} {unit}", value)
        if high is not None and len(value) > high:
            raise ShapeMismatch(f"at most {high} {unit}", value)

    return check


@functools.cache
def _service_model() -> Any:
    return ServiceModel(Loader().load_service_model("ecs", "service-2"), "ecs")
