"""Counts the instructions that Redis executes for a request: `python -m bench.redis_instructions [COMMIT]`.

callgrind counts them: the speed of the machine does not matter, but for what the worker does while it waits. One worker
launches requests at AWS's quota and follows each to its end, `_TASK_SECONDS` later: some four polls. Counted is from
the first launch to the last result, in user mode, with everything that the worker does meanwhile. Needs valgrind.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from bench import launches
from bench.revision_tree import HERE, checked_out, package_of, run_command, submit_lines
from bench.stack import Stack, running_stack, wait_until

#: AWS's quota of launches per second; the burst is as many, so that the rate is even.
_LAUNCH_RATE = 20
_TASK_SECONDS = 3
#: Time for the last polls and results after the last task has ended. Seconds.
_REST_SECONDS = 3.0
#: Under callgrind the server is fifty times slower.
_TIMEOUT_SECONDS = 600.0


def is_possible() -> bool:
    """Return whether valgrind is installed."""
    return shutil.which("valgrind") is not None and shutil.which("callgrind_control") is not None


def count_instructions(tree: Path, requests: int) -> float:
    """Return Redis's instructions for a request with one worker of the revision in `tree`."""
    with tempfile.TemporaryDirectory(prefix="ecs-queue-callgrind-") as folder, ExitStack() as exit_stack:
        counts = Path(folder) / "counts"
        exit_stack.enter_context(_counting_redis(Path(folder), counts))
        with running_stack(0.05, workers=0, run_task_rate=str(_LAUNCH_RATE), run_task_burst=str(_LAUNCH_RATE)) as parts:
            _run_requests(parts, tree, requests, exit_stack)
        total = re.search(r"^totals: (\d+)$", counts.read_text(), re.MULTILINE)
    assert total is not None
    return int(total[1]) / requests


def _run_requests(parts: Stack, tree: Path, requests: int, exit_stack: ExitStack) -> None:
    """Launch the requests, and count until all have ended."""
    parts.environ.update(package_of(tree))
    run_command(parts, "queues", "pause", "default")
    submit_lines(parts, json.dumps({"command": ["sleep", str(_TASK_SECONDS)]}), requests)
    with ExitStack() as workers:
        parts.start_worker(workers)
        wait_until(lambda: bool(run_command(parts, "workers", "--json").strip()), _TIMEOUT_SECONDS, interval=0.5)
        _switch_counting(parts.redis.pid, "on")
        run_command(parts, "queues", "resume", "default")
        wait_until(lambda: _have_ended(parts, requests), _TIMEOUT_SECONDS, interval=0.5)
        time.sleep(_REST_SECONDS)
        _switch_counting(parts.redis.pid, "off")


@contextmanager
def _counting_redis(folder: Path, counts: Path) -> Iterator[None]:
    """Let the stack's Redis run in callgrind, which writes the file `counts` at its end."""
    server = shutil.which("redis-server") or shutil.which("valkey-server")
    if server is None:
        raise SystemExit("neither redis-server nor valkey-server is installed")
    program = folder / "redis-server"
    options = f"--tool=callgrind --instr-atstart=no --callgrind-out-file={shlex.quote(str(counts))}"
    program.write_text(f'#!/bin/sh\nexec valgrind {options} {shlex.quote(server)} "$@"\n')
    program.chmod(0o700)
    path = os.environ["PATH"]
    os.environ["PATH"] = f"{folder}{os.pathsep}{path}"
    try:
        yield
    finally:
        os.environ["PATH"] = path


def _switch_counting(pid: int, state: str) -> None:
    subprocess.run(["callgrind_control", f"--instr={state}", str(pid)], check=True, stdout=subprocess.DEVNULL)


def _have_ended(parts: Stack, requests: int) -> bool:
    """Whether the task of each request has been launched and has ended."""
    cluster = launches.ecs_client().describe_clusters(clusters=["local"])["clusters"][0]
    is_idle = cluster["runningTasksCount"] == cluster["pendingTasksCount"] == 0
    return is_idle and parts.call_counts()[0]["RunTask"] >= requests


def main() -> None:
    """Print the instructions of each side, and their ratio."""
    parser = argparse.ArgumentParser(prog="python -m bench.redis_instructions", description=__doc__)
    parser.add_argument("revision", nargs="?", help="a commit of this repository to compare with")
    parser.add_argument("--size", type=int, default=200, help="requests (%(default)s)")
    arguments = parser.parse_args()
    if not is_possible():
        parser.error("valgrind is not installed")
    own = count_instructions(HERE, arguments.size)
    print(f"this tree: {own / 1e6:.3f} million instructions of Redis for a request", flush=True)
    if arguments.revision:
        with checked_out(arguments.revision) as tree:
            other = count_instructions(tree, arguments.size)
        print(f"{arguments.revision}: {other / 1e6:.3f} million; this tree / {arguments.revision}: {own / other:.2f}")


if __name__ == "__main__":
    main()
