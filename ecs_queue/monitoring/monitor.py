"""What a worker answers over HTTP: /metrics, /healthz, /readyz and /scale, and the lines for CloudWatch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Protocol

import msgspec

from ecs_queue.broker.base import Broker
from ecs_queue.config import Config
from ecs_queue.durations import parse_duration
from ecs_queue.errors import ConfigError
from ecs_queue.ledger.base import Ledger
from ecs_queue.messages.queue_names import QUEUE_NAME_RULE, canonical_queue_name, is_queue_name
from ecs_queue.monitoring.catalogue import MAX_QUEUES, HistogramSample, Sample
from ecs_queue.monitoring.counters import WorkerCounters
from ecs_queue.monitoring.emf import build_emf_line
from ecs_queue.monitoring.http_server import HttpResponse, Route, text_response
from ecs_queue.monitoring.namespace_state import StateCache, namespace_samples, read_namespace_state, scale_signal
from ecs_queue.monitoring.otel_outages import Report
from ecs_queue.monitoring.otel_setup import missing_packages_error
from ecs_queue.monitoring.scaling import DRAIN_SECONDS

if TYPE_CHECKING:
    from ecs_queue.monitoring.otel import OtelMetrics

#: How often a line for CloudWatch is written. Seconds.
_EMF_INTERVAL = 60.0


class WorkerStatus(Protocol):
    """What the worker itself knows. None of the methods waits for a server."""

    def read_gauges(self) -> list[Sample]:
        """Return the gauges of the catalogue whose source is the worker."""
        ...

    def find_stopped_services(self) -> list[str]:
        """Return which services have ended or hang, with the reason: only a restart of the process helps."""
        ...

    def find_obstacles(self) -> list[str]:
        """Return why the worker cannot work now."""
        ...


class Monitor:
    """Thread-safe. A ledger that fails or hangs costs a caller a second, and no counter of the worker is left out."""

    def __init__(
        self,
        config: Config,
        ledger: Ledger,
        broker: Broker,
        counters: WorkerCounters,
        status: WorkerStatus,
        queues: Sequence[str],
        monotonic: Callable[[], float],
    ) -> None:
        self._config = config
        self._counters = counters
        self._status = status
        self._queues = queues
        self._monotonic = monotonic
        ttl = config.runner_ttl
        # A queue without a worker is known before its first record: messages of other producers may wait in it.
        known = [*queues, *sorted(config.named_profiles)]
        read = partial(read_namespace_state, ledger, broker.backlog, known, runner_ttl=ttl, with_items=True)
        self._cache = StateCache(read, monotonic)

    def build_routes(self) -> dict[str, Route]:
        """Return what each path answers; ConfigError when prometheus_client is not installed."""
        try:
            from ecs_queue.monitoring.exposition import CONTENT_TYPE, open_exposition
        except ImportError:
            raise ConfigError(
                "metrics_port: expected the package prometheus_client to be installed, found that it is not; "
                "pip install 'ecs-queue[metrics]', or set metrics_port = 0"
            ) from None
        render = open_exposition(self)
        return {
            "/metrics": lambda _: HttpResponse(200, CONTENT_TYPE, render()),
            "/healthz": lambda _: _answer_health(self._status.find_stopped_services()),
            "/readyz": lambda _: _answer_health(self._status.find_obstacles()),
            "/scale": self.answer_scale,
        }

    def open_otel(self, worker: str, report: Report) -> OtelMetrics:
        """Return what exports the metrics by OpenTelemetry; ConfigError when its packages are not installed.

        `report` is called after each export with whether it succeeded.
        """
        try:
            from ecs_queue.monitoring.otel import OtelMetrics
        except ImportError:
            raise missing_packages_error("otel_metrics") from None
        return OtelMetrics(self, self._counters, worker, self._monotonic, report)

    def collect(self) -> tuple[list[Sample], list[HistogramSample]]:
        """Return every value of the catalogue that can be read now. Does not raise."""
        samples = self._collect_group(self._status.read_gauges) + self._collect_group(self._collect_ledger)
        counted, histograms = self._counters.read()
        return samples + counted, histograms

    def _collect_group(self, read: Callable[[], list[Sample]]) -> list[Sample]:
        try:
            return read()
        except Exception:  # noqa: BLE001 - one group that cannot be read must not hide the others; it is counted
            self._counters.increment("ecs_queue_collection_errors_total")
            return []

    def _collect_ledger(self) -> list[Sample]:
        state = self._cache.get()
        if isinstance(state, str):
            return [Sample("ecs_queue_ledger_up", 0)]
        return [Sample("ecs_queue_ledger_up", 1), *namespace_samples(self._config, state)]

    def answer_scale(self, query: Mapping[str, str]) -> HttpResponse:
        """Answer /scale?queue=Q&within=60s: the queue's `ScaleSignal` as JSON."""
        queue = query.get("queue", "")
        if not is_queue_name(queue):
            return text_response(400, f"expected /scale?queue=NAME, a name of {QUEUE_NAME_RULE}")
        within = _parse_within(query.get("within", ""))
        if within is None:
            return text_response(400, "within: expected a duration of 1 s or more, such as 60s")
        state = self._cache.get()
        if isinstance(state, str):
            return text_response(503, state)
        queue = canonical_queue_name(queue)
        if queue in state.others:
            return text_response(
                503, f"{queue} is beyond the {MAX_QUEUES} queues that are read here: ask a worker of its own"
            )
        signal = scale_signal(self._config, state, queue, within)
        return HttpResponse(200, "application/json", msgspec.json.encode(signal.to_dict()) + b"\n")

    def write_emf(self, write: Callable[[str], object], wall_clock: Callable[[], float]) -> float:
        """Write a line for each queue of the worker; return the seconds until the next ones."""
        state = self._cache.get()
        if not isinstance(state, str):
            for queue in self._queues:
                signal = scale_signal(self._config, state, queue)
                write(build_emf_line(self._config.namespace, signal, wall_clock()))
        return _EMF_INTERVAL


def _answer_health(reasons: Sequence[str]) -> HttpResponse:
    return text_response(503, "\n".join(reasons)) if reasons else text_response(200, "ok")


def _parse_within(text: str) -> float | None:
    if not text:
        return DRAIN_SECONDS
    seconds = parse_duration(text)
    return seconds if seconds is not None and seconds >= 1 else None
