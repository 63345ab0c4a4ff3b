"""What each ledger operation may return, as data: docs/protocol.md and the simulation are checked against it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import msgspec

from ecs_queue.protocol.operations import ResultCode

_Method = TypeVar("_Method", bound=Callable[..., Any])


class OperationContract(msgspec.Struct, frozen=True):
    """The results an operation may return, and whether its write is durable before it returns (the barrier)."""

    results: frozenset[ResultCode] = frozenset()
    has_barrier: bool = False


def contract(results: str = "", *, barrier: bool = False) -> Callable[[_Method], _Method]:
    """Declare the `ResultCode` members that a method may return, by name, and its barrier."""

    def declare(method: _Method) -> _Method:
        method.__dict__["contract"] = OperationContract(
            frozenset(ResultCode[name] for name in results.split()), barrier
        )
        return method

    return declare


def read_contracts(*roles: type) -> dict[str, OperationContract]:
    """Return the contract of each operation of these roles by name, in the order of the class bodies."""
    methods = {name: method for role in roles for name, method in vars(role).items() if not name.startswith("_")}
    return {name: getattr(method, "contract", OperationContract()) for name, method in methods.items()}
