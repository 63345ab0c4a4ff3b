"""A short run of each target, and that the runner finds what it looks for."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest
from hypothesis import strategies as st

from tests.fuzz.runner import Target, TooLargeError, TooSlowError, bounded, run, run_for
from tests.fuzz.targets import TARGETS
from tests.processes import IMPORT_ROOT, merged_environ


@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.server] * (name == "lua")) for name in TARGETS])
def test_no_example_of_a_short_run_fails(name: str) -> None:
    with TARGETS[name]() as target:
        assert run(target, examples=25, first_seed=1) == 25


def test_what_takes_too_long_is_ended() -> None:
    def work() -> None:
        deadline = time.process_time() + 10
        while time.process_time() < deadline:
            pass

    with pytest.raises(TooSlowError), bounded(2**20, max_cpu_seconds=0.05):
        work()


def test_what_takes_too_much_memory_is_reported() -> None:
    with pytest.raises(TooLargeError), bounded(1_000_000):
        bytearray(2_000_000)
    with bounded(1_000_000):
        bytearray(500_000)


def test_an_example_that_fails_is_shrunk_and_ends_the_run() -> None:
    seen: list[int] = []

    def check(number: int) -> None:
        seen.append(number)
        assert number < 1000

    with pytest.raises(AssertionError):
        run_for(Target(st.integers(0, 10**6), check, max_bytes=2**20), seconds=60, first_seed=1)
    assert seen[-1] == 1000


def test_the_command_prints_how_many_examples_ran() -> None:
    command = [sys.executable, "-m", "tests.fuzz", "result", "--seconds", "0", "--seed", "1"]
    environ = merged_environ({"PYTHONPATH": str(IMPORT_ROOT)})
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == "result: seed 1, 0 s"
    assert "result: 100 examples in " in done.stdout
