"""The executor, with a note of each heartbeat: how long it took of the scheduler, and whether it raised."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

from ecs_queue.airflow.executor import EcsQueueExecutor

#: Names the file of the notes; one JSON object a line.
HEARTBEAT_LOG_VARIABLE = "TEST_HEARTBEAT_LOG"


class TimedExecutor(EcsQueueExecutor):
    """For `[core] executor`."""

    def heartbeat(self) -> None:
        """As ever."""
        at, began, queued = time.time(), time.monotonic(), _read_cpu_wait_seconds()
        raised = ""
        try:
            super().heartbeat()
        except BaseException as error:
            raised = repr(error)
            raise
        finally:
            seconds = time.monotonic() - began
            waited = _read_cpu_wait_seconds() - queued
            with Path(os.environ[HEARTBEAT_LOG_VARIABLE]).open("a") as notes:
                print(json.dumps({"at": at, "seconds": seconds, "waited": waited, "raised": raised}), file=notes)


def _read_cpu_wait_seconds() -> float:
    """Seconds that this thread was ready to run while others ran. They say what else the machine has to do, not what
    a heartbeat costs. 0.0 where the kernel does not count them."""
    try:
        return int(Path("/proc/thread-self/schedstat").read_text().split()[1]) / 1e9
    except (OSError, IndexError, ValueError):
        return 0.0
