"""Worker processes; one is killed every second and replaced at once."""

from __future__ import annotations

import random
import signal
import subprocess
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from ecs_queue.local.reaper import Reaper
from ecs_queue.local.redis_server import find_free_port
from tests.processes import CLI_COMMAND

_POLL_SECONDS = 0.05


@dataclass(frozen=True)
class WorkerKill:
    """The SIGKILL of a worker `at` seconds since the epoch."""

    worker: str
    at: float


class KilledWorkers:
    """A context that kills a worker every `kill_every` seconds until `stop_killing`, but never the last ready one."""

    def __init__(
        self, number: int, environ: Mapping[str, str], folder: Path, rng: random.Random, kill_every: float
    ) -> None:
        self._environ = dict(environ)
        self._folder = folder
        self._rng = rng
        self._kill_every = kill_every
        self._started = 0
        self._running: list[tuple[str, subprocess.Popen[bytes]]] = []
        self._number = number
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="worker-killer")
        self._reaper = Reaper()
        self._ports: dict[str, int] = {}
        self.kills: list[WorkerKill] = []

    def __enter__(self) -> Self:
        self._running = [self._start() for _ in range(self._number)]
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop_killing()
        for _, process in self._running:
            process.send_signal(signal.SIGTERM)
        for _, process in self._running:
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._reaper.close()

    def stop_killing(self) -> None:
        """Stop killing workers."""
        self._over.set()
        self._thread.join()

    def metrics_ports(self) -> dict[str, int]:
        """Return the port of each running worker's /metrics, by its name."""
        return {name: self._ports[name] for name, process in list(self._running) if process.poll() is None}

    def log_files(self) -> list[Path]:
        """Return the log of each process, named like its worker."""
        return sorted(self._folder.glob("w*.log"))

    def _run(self) -> None:
        next_kill = time.monotonic() + self._kill_every
        while not self._over.wait(_POLL_SECONDS):
            # A worker that was started while the server was down has exited.
            self._running = [worker if worker[1].poll() is None else self._replace(worker) for worker in self._running]
            if time.monotonic() >= next_kill:
                next_kill = time.monotonic() + self._kill_every
                self._kill_one()

    def _kill_one(self) -> None:
        """Kill a ready worker if another is left; where a start takes long there would be none otherwise."""
        ready = [worker for worker in self._running if self._log_file(worker[0]).stat().st_size]
        if len(ready) < 2:
            return
        victim = self._rng.choice(ready)
        victim[1].kill()
        self.kills.append(WorkerKill(victim[0], time.time()))
        self._running[self._running.index(victim)] = self._replace(victim)

    def _replace(self, ended: tuple[str, subprocess.Popen[bytes]]) -> tuple[str, subprocess.Popen[bytes]]:
        ended[1].wait()
        self._reaper.unwatch_group(ended[1].pid)
        return self._start()

    def _start(self) -> tuple[str, subprocess.Popen[bytes]]:
        self._started += 1
        name = f"w{self._started:04}"
        port = self._ports[name] = find_free_port()
        command = [*CLI_COMMAND, "worker", "--name", name, "--log-level", "debug", "--log-format", "json"]
        command += ["--metrics-port", str(port)]
        with self._log_file(name).open("wb") as log:
            process = subprocess.Popen(command, env=self._environ, stdout=log, stderr=log, start_new_session=True)
        self._reaper.watch_group(process.pid)
        return name, process

    def _log_file(self, name: str) -> Path:
        return self._folder / f"{name}.log"
