"""What the tests call in a container."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from datetime import date
from typing import Any, cast


@dataclass
class Order:
    """An order."""

    number: int
    day: date


class OwnError(Exception):
    """An error with arguments that JSON can hold."""


class OddError(Exception):
    """An error that cannot be made again from its arguments."""

    def __init__(self, first: int, second: int) -> None:
        super().__init__(f"{first}:{second}")


class MissingReportError(Exception):
    """An error whose constructor makes a text of its argument."""

    def __init__(self, number: int) -> None:
        super().__init__(f"report {number} is missing")
        self.number = number


class ServiceError(Exception):
    """An error whose text depends on more than its arguments."""

    def __init__(self, *, status: int = 0) -> None:
        super().__init__()
        self.status = status

    def __str__(self) -> str:
        return f"status {self.status}"


def next_day(order: Order, *, days: int = 1) -> Order:
    """Return the order of another day; its arguments arrive as they are declared."""
    assert isinstance(order, Order)
    return Order(order.number + 1, order.day.replace(day=order.day.day + days))


def repeat(text: str, times: int) -> str:
    """Return a long text."""
    return text * times


def fail(kind: str) -> None:
    """Raise."""
    if kind == "own":
        raise OwnError("no", 7)
    if kind == "odd":
        raise OddError(1, 2)
    raise ValueError(f"expected another kind, found {kind}")


def fail_to_find(what: str) -> None:
    """Raise an error that names what is missing."""
    if what == "report":
        raise MissingReportError(7)
    if what == "service":
        raise ServiceError(status=503)
    raise FileNotFoundError(2, "No such file or directory", what)


async def add_later(a: int, b: int) -> int:
    """Return the sum, when it is awaited."""
    return a + b


def count_up(end: int) -> Iterator[int]:
    """Yield numbers."""
    yield from range(end)


async def count_up_later(end: int) -> AsyncIterator[int]:
    """Yield numbers, when they are awaited."""
    for number in range(end):
        yield number


def add(a: int, b: int) -> int:
    """Return the sum."""
    return a + b


def count_days(first: date, *days: date, **orders: Order) -> list[int]:
    """Return the days from the first to each other one, and the numbers of the orders."""
    return [*((day - first).days for day in days), *(order.number for order in orders.values())]


class UnreadableError(Exception):
    """An error whose text cannot be made."""

    def __str__(self) -> str:
        raise RuntimeError("no text")


def raise_odd(kind: str) -> None:
    """Raise what an exception's usual path does not take."""
    if kind == "unreadable":
        raise UnreadableError
    if kind == "half of a pair":
        raise ValueError("\ud800")
    if kind == "cancelled":
        raise asyncio.CancelledError
    raise BaseExceptionGroup("several", [KeyboardInterrupt()])


def double_keys(numbers: dict[int, float]) -> dict[int, float]:
    """Return the numbers under doubled keys."""
    return {2 * key: value for key, value in numbers.items()}


def same(value: Any) -> Any:
    """Return the argument."""
    return value


def declare_wrongly() -> int:
    """Return something else than declared."""
    return cast("int", None)


def return_set() -> object:
    """Return what JSON has no word for."""
    return object()
