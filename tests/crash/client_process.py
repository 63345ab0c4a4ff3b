"""A client process: `python -m tests.crash.client_process TASKS RESULTS [--stop]` submits and logs its results."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, TextIO

from ecs_queue.client.client import EcsQueue
from tests.processes import read_json_lines


def main(tasks: str, results: str, *options: str) -> None:
    """Submit and wait. The owner is always the same, so a restarted client continues where the killed one stopped."""
    with open(results, "a") as file, EcsQueue.from_config(owner="elsewhere") as queue:
        _write(file, {"begins": True})
        handles = queue.submit_many(read_json_lines(Path(tasks)))
        if "--stop" in options:
            queue.stop_many([handle.id for handle in handles], by="ann")
        for result in queue.as_completed(handles, timeout=60):
            _write(file, {"id": result.id, "state": result.state, "attempts": result.attempts})


def _write(file: TextIO, line: dict[str, Any]) -> None:
    print(json.dumps(line), file=file, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
