"""Parameters checked against botocore's own service model of ECS, compiled once into plain functions."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import Any

from botocore.loaders import Loader
from botocore.model import ServiceModel

from ecs_queue.local.ecs.wire import invalid

Check = Callable[[Any], None]

_NUMBERS: dict[str, tuple[int, int]] = {
    "integer": (-(2**31), 2**31 - 1),
    "long": (-(2**63), 2**63 - 1),
}


class Mismatch(Exception):  # noqa: N818 - it names a finding, and never leaves this module
    """A value does not have its shape; ``path`` grows from the inside out on the way up."""

    def __init__(self, expected: str, found: Any) -> None:
        super().__init__(expected)
        self.expected = expected
        self.found = found
        self.path: list[str] = []

    def sentence(self) -> str:
        """Member, expected, found."""
        where = "".join(reversed(self.path)).lstrip(".") or "the request"
        found = repr(self.found)
        return f"{where}: expected {self.expected}, found {found if len(found) <= 80 else found[:77] + '...'}"


class InputShapes:
    """One check an operation: required and unknown members, types, lengths, ranges, enumerations."""

    def __init__(self, operations: Iterable[str]) -> None:
        model = _service_model()
        self._compiled: dict[str, Check] = {}
        self._checks = {name: self._compile(model.operation_model(name).input_shape) for name in sorted(operations)}

    def check(self, operation: str, parameters: dict[str, Any]) -> None:
        """Raise ApiError InvalidParameterException that names member, expectation and finding."""
        try:
            self._checks[operation](parameters)
        except Mismatch as mismatch:
            raise invalid(mismatch.sentence()) from None

    def _compile(self, shape: Any) -> Check:
        if shape.name not in self._compiled:
            # Registered before its members are compiled: a shape may contain itself.
            self._compiled[shape.name] = lambda value: self._compiled[shape.name](value)
            makers = {"structure": self._structure, "list": self._list, "map": self._map}
            self._compiled[shape.name] = makers.get(shape.type_name, _scalar)(shape)
        return self._compiled[shape.name]

    def _structure(self, shape: Any) -> Check:
        members = {name: self._compile(member) for name, member in shape.members.items()}
        required = tuple(shape.required_members)

        def check(value: Any) -> None:
            if type(value) is not dict:
                raise Mismatch("an object", value)
            for name in required:
                if name not in value:
                    raise Mismatch(f"the required member {name}", value)
            for name, item in value.items():
                member = members.get(name)
                if member is None:
                    raise Mismatch("one of " + ", ".join(sorted(members)), name)
                try:
                    member(item)
                except Mismatch as mismatch:
                    mismatch.path.append(f".{name}")
                    raise

        return check

    def _list(self, shape: Any) -> Check:
        member = self._compile(shape.member)
        measure = _measure(shape, "items")

        def check(value: Any) -> None:
            if type(value) is not list:
                raise Mismatch("a list", value)
            measure(value)
            for index, item in enumerate(value):
                try:
                    member(item)
                except Mismatch as mismatch:
                    mismatch.path.append(f"[{index}]")
                    raise

        return check

    def _map(self, shape: Any) -> Check:
        key, member = self._compile(shape.key), self._compile(shape.value)

        def check(value: Any) -> None:
            if type(value) is not dict:
                raise Mismatch("an object", value)
            for name, item in value.items():
                try:
                    key(name)
                    member(item)
                except Mismatch as mismatch:
                    mismatch.path.append(f".{name}")
                    raise

        return check


def _scalar(shape: Any) -> Check:
    kind = shape.type_name
    if kind in _NUMBERS:
        return _whole_number(shape, *_NUMBERS[kind])
    if kind == "string":
        return _string(shape)
    expected, types = {
        "boolean": ("true or false", (bool,)),
        "timestamp": ("seconds since 1970", (int, float)),
    }.get(kind, ("a number", (int, float)))

    def check(value: Any) -> None:
        if type(value) not in types:
            raise Mismatch(expected, value)

    return check


def _whole_number(shape: Any, least: int, most: int) -> Check:
    low, high = shape.metadata.get("min", least), shape.metadata.get("max", most)

    def check(value: Any) -> None:
        if type(value) is not int or not low <= value <= high:
            raise Mismatch(f"a whole number from {low} to {high}", value)

    return check


def _string(shape: Any) -> Check:
    allowed = frozenset(shape.enum)
    measure = _measure(shape, "characters")

    def check(value: Any) -> None:
        if type(value) is not str:
            raise Mismatch("a string", value)
        if allowed and value not in allowed:
            raise Mismatch("one of " + ", ".join(sorted(allowed)), value)
        measure(value)

    return check


def _measure(shape: Any, unit: str) -> Check:
    low, high = shape.metadata.get("min"), shape.metadata.get("max")

    def check(value: Any) -> None:
        if low is not None and len(value) < low:
            raise Mismatch(f"at least {low} {unit}", value)
        if high is not None and len(value) > high:
            raise Mismatch(f"at most {high} {unit}", value)

    return check


@functools.cache
def _service_model() -> Any:
    return ServiceModel(Loader().load_service_model("ecs", "service-2"), "ecs")
