"""Waiting for the end of processes that are not the test's own children."""

from __future__ import annotations

import os
import select
from pathlib import Path

import ecs_queue

TIMEOUT_SECONDS = 20.0
# Where `python -c` finds the package that is under test, installed or not.
IMPORT_ROOT = Path(ecs_queue.__file__).parents[1]


def assert_process_ended(pid: int) -> None:
    """Return when the process has ended (a zombie has); fail when it does not."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        assert select.select([descriptor], [], [], TIMEOUT_SECONDS)[0], f"process {pid} still runs"
    finally:
        os.close(descriptor)
