"""What metrics and spans cost: the share of a worker's processor time that it spends on them.

The worker measures itself, on each thread that works for them (`bench.metered_worker`), while it launches a backlog
and follows every task to its end. Both sides of the share are processor time of the same run, so the load of the
machine does not change it. Metrics are scraped every second, which is more often than usual; spans go to a collector
that takes them.
"""

from __future__ import annotations

import json
import tempfile
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

from bench.launches import ECS_LATENCY, THREADS
from bench.measurement import Measurement, median_and_range
from bench.stack import Stack, running_stack, wait_until
from ecs_queue.local.redis_server import find_free_port
from ecs_queue.protocol.states import State

#: Rounds; the median counts.
_ROUNDS = 3
_SCRAPE_SECONDS = 1.0
_COMMAND = ["sleep", "0"]


class Figures(NamedTuple):
    """Seconds of the worker's processor time in one round: all of it, and what it spent on metrics and on spans."""

    total: float
    metrics: float
    spans: float


def run(tasks: int) -> list[Measurement]:
    """Measure rounds of `tasks` tasks."""
    rounds = [_run_round(tasks) for _ in range(_ROUNDS)]
    # Of what the worker would take without the other one.
    metrics = [100 * each.metrics / (each.total - each.spans) for each in rounds]
    spans = [100 * each.spans / (each.total - each.metrics) for each in rounds]
    cpu = [1000 * each.total / tasks for each in rounds]
    return [
        Measurement("worker CPU per request, from its launch to its result", f"{median_and_range(cpu)} ms"),
        Measurement("  share of metrics, scraped every second", f"{median_and_range(metrics)} %", "<= 3 %"),
        Measurement("  share of spans, all sampled", f"{median_and_range(spans)} %"),
    ]


def _run_round(tasks: int) -> Figures:
    port = find_free_port()
    with tempfile.TemporaryDirectory() as folder, _collector() as collector_url:
        meter_file = Path(folder) / "spent.json"
        variables = {
            "BENCH_METER_FILE": str(meter_file),
            "OTEL_EXPORTER_OTLP_ENDPOINT": collector_url,
            "AIRFLOW__ECS_QUEUE__OTEL_TRACES": "True",
            "AIRFLOW__ECS_QUEUE__METRICS_PORT": str(port),
        }
        stack = running_stack(ECS_LATENCY, workers=0, paused=True, concurrency=str(THREADS))
        with stack as parts, ExitStack() as exit_stack:
            parts.start_worker(exit_stack, "bench.metered_worker", variables)
            total = _run_tasks(parts, tasks, port)
        spent = json.loads(meter_file.read_text())
    return Figures(total, spent["metrics"], spent["spans"])


def _run_tasks(parts: Stack, tasks: int, port: int) -> float:
    """Launch a backlog, wait until all has ended, and return the worker's CPU seconds for it."""
    with parts.client() as client:
        client.submit_many({"command": _COMMAND} for _ in range(tasks))
        wait_until(lambda: bool(client.ledger.list_workers()), 30)
        over = threading.Event()
        threading.Thread(target=_scrape, args=(port, over), daemon=True).start()
        before = parts.cpu_seconds()["workers"]
        client.ledger.resume_queues(["default"])
        count = client.ledger.count_by_state
        wait_until(lambda: count().get("default", {}).get(State.SUCCESS, 0) >= tasks, 300, interval=0.25)
        over.set()
        return parts.cpu_seconds()["workers"] - before


def _scrape(port: int, over: threading.Event) -> None:
    while not over.wait(_SCRAPE_SECONDS):
        with suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as response:
            response.read()


@contextmanager
def _collector() -> Iterator[str]:
    """The URL of a collector that takes everything."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            """Log nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
