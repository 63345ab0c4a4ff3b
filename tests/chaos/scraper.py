"""Scrapes the workers' /metrics while they are killed, and checks that what comes from the ledger's counts adds up."""

from __future__ import annotations

import http.client
import urllib.request
from collections import Counter
from collections.abc import Callable, Mapping

from prometheus_client.parser import text_string_to_metric_families

from tests.chaos.background_thread import BackgroundThread

_INTERVAL_SECONDS = 0.5
_SUBMITTED, _ENDED, _LIVE = (
    "ecs_queue_requests_submitted_total",
    "ecs_queue_requests_ended_total",
    "ecs_queue_requests",
)


class Scraper(BackgroundThread):
    """A context that scrapes each live worker again and again; `violations` says what did not add up."""

    def __init__(self, find_ports: Callable[[], Mapping[str, int]]) -> None:
        """`find_ports` returns the port of each worker that runs now, by name."""
        self._find_ports = find_ports
        super().__init__("scraper")
        self._last: dict[str, tuple[float, float]] = {}  # worker -> submitted, ended
        self.scrapes = 0
        self.violations: list[str] = []

    def read_ended(self) -> Counter[str]:
        """Return state -> number of ended requests, as a worker shows it now; empty when none can be asked."""
        for port in self._find_ports().values():
            values = _scrape(port)
            if values and values.get(("ecs_queue_ledger_up", "")):
                return Counter({state: int(each) for (name, state), each in values.items() if name == _ENDED and each})
        return Counter()

    def pause_seconds(self) -> float:
        """See `BackgroundThread`."""
        return _INTERVAL_SECONDS

    def run_once(self) -> None:
        """Scrape each worker that runs."""
        for worker, port in self._find_ports().items():
            values = _scrape(port)
            if values is not None and values["ecs_queue_ledger_up", ""]:
                self.scrapes += 1
                self._check(worker, values)

    def _check(self, worker: str, values: Mapping[tuple[str, str], float]) -> None:
        """Compare a scrape with itself, and with the worker's last one: no total falls."""
        submitted = values.get((_SUBMITTED, ""), 0.0)
        ended = sum(value for (name, _), value in values.items() if name == _ENDED)
        live = sum(value for (name, _), value in values.items() if name == _LIVE)
        if submitted != ended + live:
            self.violations.append(f"a scrape of {worker}: {submitted:g} submitted, {ended:g} ended and {live:g} live")
        before = self._last.get(worker, (0.0, 0.0))
        if submitted < before[0] or ended < before[1]:
            self.violations.append(f"scrapes of {worker}: {before} submitted and ended, then {submitted, ended}")
        self._last[worker] = submitted, ended


def _scrape(port: int) -> dict[tuple[str, str], float] | None:
    """Return (metric, state) -> value of all queues; None when the worker cannot be asked."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as response:
            page = response.read().decode()
    except (OSError, http.client.HTTPException):  # the second: a worker was killed in the middle of its answer
        return None
    values: dict[tuple[str, str], float] = {}
    for family in text_string_to_metric_families(page):
        for sample in family.samples:
            key = sample.name, sample.labels.get("state", "")
            values[key] = values.get(key, 0.0) + sample.value
    return values
