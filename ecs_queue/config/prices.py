"""The price table of `ecs-queue cost`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import msgspec

from ecs_queue.durations import MAX_NUMBER

#: What is billed by the task's vCPU and memory. Elsewhere the instances cost, not their tasks.
PRICED_CAPACITIES = ("FARGATE", "FARGATE_SPOT")
_EXPECTED = 'expected {"FARGATE": {"vcpu_hour": NUMBER, "gb_hour": NUMBER}, "FARGATE_SPOT": {...}}'


class Price(msgspec.Struct, frozen=True):
    """What one capacity costs, in the table's currency: a vCPU for an hour, and a GB of memory for an hour."""

    capacity: str
    vcpu_hour: float
    gb_hour: float


def parse_prices(table: Mapping[str, Any]) -> tuple[Price, ...]:
    """Return the prices of a table `{"FARGATE": {"vcpu_hour": 1, "gb_hour": 1}}`; raise ValueError for another."""
    found = []
    for capacity, members in table.items():
        if capacity not in PRICED_CAPACITIES:
            raise ValueError(f"{_EXPECTED}, found another capacity; expected {' or '.join(PRICED_CAPACITIES)}")
        if not isinstance(members, dict) or set(members) != {"vcpu_hour", "gb_hour"}:
            raise ValueError(f"{_EXPECTED}, found other members of {capacity}")
        if not all(map(_is_price, members.values())):
            raise ValueError(f"{_EXPECTED}, found of {capacity} a value that is no number >= 0")
        found.append(Price(capacity, float(members["vcpu_hour"]), float(members["gb_hour"])))
    return tuple(found)


def _is_price(value: object) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and math.isfinite(value) and 0 <= value <= MAX_NUMBER  # type: ignore[arg-type, operator]
