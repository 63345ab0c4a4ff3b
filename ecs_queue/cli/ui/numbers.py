"""The types of options that take a number: each has an upper bound, so that a mistyped number has no effect."""

from __future__ import annotations

import math
from typing import Any

import click

from ecs_queue.durations import MAX_NUMBER


class WholeNumber(click.IntRange):
    """The type of a whole number within bounds, called so in errors; click calls it an integer range."""

    name = "whole number"

    def get_metavar(self, param: click.Parameter, ctx: click.Context | None = None) -> str:  # noqa: ARG002 - click's
        """See click."""
        return "N"


def count(minimum: int, maximum: int = int(MAX_NUMBER)) -> WholeNumber:
    """Return the type of a whole number within bounds."""
    return WholeNumber(minimum, maximum)


class Rate(click.FloatRange):
    """The type of a finite number from 0 to MAX_NUMBER."""

    def __init__(self) -> None:
        super().__init__(0, MAX_NUMBER)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """See click."""
        found = super().convert(value, param, ctx)
        if math.isnan(found):
            self.fail(f"expected a number, found {value!r}", param, ctx)
        return found


RATE = Rate()
