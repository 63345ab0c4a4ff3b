"""Runs the examples of one target until the time is over, each within bounds of CPU time and memory."""

from __future__ import annotations

import signal
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any

from hypothesis import HealthCheck, Phase, Verbosity, given, seed, settings
from hypothesis import strategies as st

#: The longest that one example may take. Seconds of this process's CPU, so that a loaded machine is no hang.
MAX_CPU_SECONDS = 2.0
_EXAMPLES_PER_ROUND = 100


class TooSlowError(AssertionError):
    """An example took longer than MAX_CPU_SECONDS."""


class TooLargeError(AssertionError):
    """An example took more memory than its target allows."""


@dataclass(frozen=True)
class Target:
    """What is fuzzed.

    Attributes:
        inputs: The examples.
        check: Runs one; raises AssertionError for a broken property, and anything that is no documented error.
        max_bytes: The memory that one example may take at its peak, beside what it is itself.
        max_cpu_seconds: The CPU time that one example may take.
    """

    inputs: st.SearchStrategy[Any]
    check: Callable[[Any], None]
    max_bytes: int
    max_cpu_seconds: float = MAX_CPU_SECONDS


@contextmanager
def bounded(max_bytes: int, max_cpu_seconds: float = MAX_CPU_SECONDS) -> Iterator[None]:
    """Raise TooSlowError when the time is over, and TooLargeError at the end when the peak was too high."""

    def end(_signal: int, _frame: FrameType | None) -> None:
        raise TooSlowError(f"it takes longer than {max_cpu_seconds:g} s")

    previous = signal.signal(signal.SIGPROF, end)
    signal.setitimer(signal.ITIMER_PROF, max_cpu_seconds)
    tracemalloc.start()
    try:
        yield
        _, peak = tracemalloc.get_traced_memory()
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, previous)
        tracemalloc.stop()
    if peak > max_bytes:
        raise TooLargeError(f"it takes {peak} bytes, more than {max_bytes}")


def run(target: Target, *, examples: int, first_seed: int) -> int:
    """Run this number of examples and return how many ran; an example that fails is shrunk, printed and raised."""
    ran = 0

    @seed(first_seed)
    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
        verbosity=Verbosity.normal,
        print_blob=False,
    )
    @given(target.inputs)
    def check(example: Any) -> None:
        nonlocal ran
        ran += 1
        with bounded(target.max_bytes, target.max_cpu_seconds):
            target.check(example)

    check()
    return ran


def run_for(target: Target, *, seconds: float, first_seed: int) -> tuple[int, float]:
    """Run rounds of examples, each with the next seed; return how many ran and the seconds that they took."""
    began, ran = time.monotonic(), 0
    for number in range(first_seed, 2**63):
        ran += run(target, examples=_EXAMPLES_PER_ROUND, first_seed=number)
        if time.monotonic() - began >= seconds:
            break
    return ran, time.monotonic() - began
