"""The executor with a log of its heartbeats: how long each took, and whether it raised."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

from ecs_queue.airflow.executor import EcsQueueExecutor

#: The environment variable with the path of the log; each line is a JSON object.
HEARTBEAT_LOG_VARIABLE = "TEST_HEARTBEAT_LOG"


class TimedExecutor(EcsQueueExecutor):
    """An executor for `[core] executor`."""

    def heartbeat(self) -> None:
        """Make a heartbeat and log it."""
        at, started, waited_before = time.time(), time.monotonic(), _read_cpu_wait_seconds()
        raised = ""
        try:
            super().heartbeat()
        except BaseException as error:
            raised = repr(error)
            raise
        finally:
            seconds = time.monotonic() - started
            waited = _read_cpu_wait_seconds() - waited_before
            with Path(os.environ[HEARTBEAT_LOG_VARIABLE]).open("a") as log:
                print(json.dumps({"at": at, "seconds": seconds, "waited": waited, "raised": raised}), file=log)


def _read_cpu_wait_seconds() -> float:
    """Return for how many seconds this thread was ready to run while others ran, which is no cost of a heartbeat.

    0.0 where the kernel does not count it.
    """
    try:
        return int(Path("/proc/thread-self/schedstat").read_text().split()[1]) / 1e9
    except (OSError, IndexError, ValueError):
        return 0.0
