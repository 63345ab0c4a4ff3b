"""A client process: `python -m tests.crash.client_process TASKS GIVEN [--stop]` submits and logs what it is given."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, TextIO

from ecs_queue.client.client import EcsQueue
from tests.processes import read_json_lines


def main(tasks: str, results: str, *options: str) -> None:
    """Its owner's name is always the same: started again, it goes on where the one before it was killed."""
    with open(results, "a") as file, EcsQueue.from_config(owner="elsewhere") as queue:
        _write(file, {"begins": True})
        handles = queue.submit_many(read_json_lines(Path(tasks)))
        if "--stop" in options:
            queue.stop_many([handle.id for handle in handles], by="somebody")
        for result in queue.as_completed(handles, timeout=60):
            _write(file, {"id": result.id, "state": result.state, "attempts": result.attempts})


def _write(file: TextIO, line: dict[str, Any]) -> None:
    print(json.dumps(line), file=file, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
