"""Runs a worker of another revision beside one of this tree on a warm queue: `python -m tests.mixed_fleet REVISION`.

The revision is checked out into a temporary folder and runs with the packages that are installed here. It has no
`warm_seconds`, so that what it launches gets tasks of its own. Commands append to a file of their own: each must be
started once and end in success, also while only the other worker runs, which must end and stop nothing. The newest
revision without warm launches that finds its keys where this tree has them is 0abef9a; 173010b moved them.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path

from ecs_queue.client.client import EcsQueue
from ecs_queue.local.ecs import LocalEcs, LocalEcsOptions, local_environment
from ecs_queue.local.redis_server import RedisServer
from ecs_queue.protocol.states import State
from ecs_queue.runs.runner_options import URL_VARIABLE
from tests.processes import IMPORT_ROOT, QUICK_SETTINGS, merged_environ, run_worker
from tests.wait import wait_until

_WARM = {"AIRFLOW__AWS_ECS_EXECUTOR__WARM_SECONDS": "60", "AIRFLOW__ECS_QUEUE__RUNNER_TTL": "3"}
#: How long the other worker is alone, with requests that runners have. Several polls and sweeps of it.
_ALONE_SECONDS = 50.0
_SCRIPT = 'echo start >> "$1"; sleep "$2"'


def main() -> int:
    """Print what happened; return 1 if the other worker broke something."""
    parser = argparse.ArgumentParser(prog="python -m tests.mixed_fleet", description=__doc__)
    parser.add_argument("revision", help="a commit of this repository")
    parser.add_argument("--tasks", type=int, default=40)
    arguments = parser.parse_args()
    with ExitStack() as stack:
        tree = stack.enter_context(_checked_out(arguments.revision))
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ecs-queue-fleet-")))
        server = stack.enter_context(RedisServer())
        ecs = stack.enter_context(LocalEcs(LocalEcsOptions(runner_environment=_runner_environment(server.url))))
        environ = merged_environ(local_environment(ecs.endpoint_url, server.url), QUICK_SETTINGS)
        return _Fleet(tree, folder, ecs, environ).run(arguments.tasks)


class _Fleet:
    def __init__(self, tree: Path, folder: Path, ecs: LocalEcs, environ: Mapping[str, str]) -> None:
        self._tree = tree
        self._folder = folder
        self._ecs = ecs
        self._environ = dict(environ)
        self._failures: list[str] = []

    def run(self, tasks: int) -> int:
        with ExitStack() as stack:
            queue = stack.enter_context(EcsQueue.from_config(environ=self._environ | _WARM))
            with self._new_worker():
                held = queue.submit_many([self._line(f"held-{n}", 400.0 if n else 40.0) for n in range(3)])
                ids = [handle.id for handle in held]
                wait_until(lambda: all(map(self._starts, ids)), "runners have taken three commands", 60)
            stack.enter_context(self._old_worker())
            before = self._ecs.stats()["calls"]
            time.sleep(_ALONE_SECONDS)
            ended = [record for record in queue.ledger.get(ids) if record and record.state is not State.LAUNCHED]
            self._check(not ended, f"alone, it has ended {[(each.id, each.state, each.reason) for each in ended]}")
            self._check(self._ecs.stats()["calls"].get("StopTask") == before.get("StopTask"), "it has stopped a task")
            with self._new_worker():
                handles = queue.submit_many([self._line(f"both-{n}", 0.1) for n in range(tasks)])
                self._run_cli(self._tree, "stop", ids[1])
                queue.stop_many(ids[2:], by="this tree")
                results = {result.id: result.state for result in queue.as_completed([*held, *handles], timeout=360)}
                started = {name: self._starts(name) for name in results}
        return self._report(results, started, ids)

    def _report(self, results: Mapping[str, str], started: Mapping[str, int], ids: list[str]) -> int:
        expected = dict.fromkeys(results, "SUCCESS") | dict.fromkeys(ids[1:], "REVOKED")
        wrong = {name: state for name, state in results.items() if state != expected[name]}
        self._check(not wrong, f"unexpected ends: {wrong}")
        twice = {name: number for name, number in started.items() if number != 1}
        self._check(not twice, f"not started once: {twice}")
        tasks = sum(self._ecs.stats()["tasks"].values())
        print(f"{len(results)} requests, {dict(Counter(results.values()))}, {tasks} ECS tasks")
        for failure in self._failures:
            print(f"FAILURE: {failure}")
        return 1 if self._failures else 0

    def _line(self, name: str, seconds: float) -> dict[str, object]:
        return {"id": name, "command": ["sh", "-c", _SCRIPT, "sh", str(self._folder / name), str(seconds)]}

    def _starts(self, name: str) -> int:
        path = self._folder / name
        return len(path.read_text().split()) if path.exists() else 0

    def _check(self, holds: bool, failure: str) -> None:
        if not holds:
            self._failures.append(failure)

    def _new_worker(self) -> AbstractContextManager[object]:
        return run_worker(self._environ | _WARM, self._folder / "new.log", "--name", "new")

    def _old_worker(self) -> AbstractContextManager[object]:
        environ = self._environ | {"PYTHONPATH": str(self._tree)}
        # -P: else Python would find the package of the present directory first.
        command = (sys.executable, "-P", "-m", "ecs_queue", "worker")
        return run_worker(environ, self._folder / "old.log", "--name", "old", command=command)

    def _run_cli(self, tree: Path, *arguments: str) -> None:
        environ = self._environ | {"PYTHONPATH": str(tree)}
        subprocess.run([sys.executable, "-m", "ecs_queue", *arguments], env=environ, cwd=tree, check=True, timeout=60)


def _runner_environment(server_url: str) -> dict[str, str]:
    return {
        URL_VARIABLE: server_url,
        "PATH": f"{os.path.dirname(sys.executable)}:{os.environ['PATH']}",
        "PYTHONPATH": str(IMPORT_ROOT),
    }


@contextmanager
def _checked_out(revision: str) -> Iterator[Path]:
    """Yield a temporary folder with the files of a revision."""
    with tempfile.TemporaryDirectory(prefix="ecs-queue-revision-") as folder:
        archive = subprocess.run(
            ["git", "-C", str(IMPORT_ROOT), "archive", revision], check=True, capture_output=True
        ).stdout
        subprocess.run(["tar", "-x", "-C", folder], input=archive, check=True)
        yield Path(folder)


if __name__ == "__main__":
    sys.exit(main())
