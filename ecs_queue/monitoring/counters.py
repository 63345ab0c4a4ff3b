"""What one worker counts and measures of itself: a telemetry sink.

A phase of a task counts once the ledger has accepted the observation that ended it, so that an event and a poll that
show the same end do not count twice.
"""

from __future__ import annotations

import bisect
import threading
from collections.abc import Callable, Mapping
from typing import Any

from ecs_queue.monitoring.catalogue import MAX_QUEUES, METRICS, OTHER, HistogramSample, MetricKind, Sample
from ecs_queue.protocol.decisions import PollDecision, PollInput
from ecs_queue.protocol.ecs_results import RunTaskResultKind
from ecs_queue.protocol.phases import build_phases, phase_starts

#: ECS's stop codes; another one counts as `OTHER`, none as "none".
STOP_CODES = frozenset(
    {
        "TaskFailedToStart",
        "EssentialContainerExited",
        "UserInitiated",
        "ServiceSchedulerInitiated",
        "SpotInterruption",
        "TerminationNotice",
    }
)
#: The histogram of each phase. The others are of no use as one.
_PHASE_HISTOGRAMS = {
    "launch": "ecs_queue_launch_seconds",
    "provision": "ecs_queue_provisioning_seconds",
    "pull": "ecs_queue_pull_seconds",
    "run": "ecs_queue_run_seconds",
}
#: Observations that wait for the ledger; one poll or receipt has at most 1,000.
_MAX_UNWRITTEN = 10_000

#: (metric, value, queue)
_Measured = tuple[str, float, str]


class WorkerCounters:
    """Thread-safe. `record_event` is the sink; it costs a few microseconds for the events that count."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._values: dict[tuple[str, tuple[str, ...]], float] = {
            (name, ()): 0.0
            for name, metric in METRICS.items()
            if metric.kind is MetricKind.COUNTER and not metric.labels and (metric.events or "collection" in name)
        }
        self._histograms: dict[tuple[str, tuple[str, ...]], list[float]] = {}  # counts, then the sum
        #: Also gets every value of a histogram: name, seconds, labels.
        self.observer: Callable[[str, float, tuple[str, ...]], object] | None = None
        self._queues: set[str] = set()
        self._unwritten: dict[str, list[_Measured]] = {}  # id -> what counts once the ledger has accepted it
        self._handlers: Mapping[str, Callable[[Mapping[str, Any]], None]] = {
            "decision.run_task": self._on_run_task,
            "launch.assigned": self._count("ecs_queue_runner_assignments_total"),
            "runner.end_rejected": self._count("ecs_queue_runner_ends_rejected_total"),
            "decision.poll": self._on_poll,
            "task.status_changed": self._on_written,
            "request.retry_scheduled": self._on_retry,
            "request.ended": self._on_ended,
            "request.dead_lettered": self._count_by_queue("ecs_queue_dead_lettered_total"),
            "circuit.opened": self._count_by_queue("ecs_queue_circuit_opened_total"),
            "rate_limit.lowered": self._on_rate_lowered,
            "service.failed": self._on_service_failure,
            "service.retried": self._on_service_failure,
            "results.unpublished": self._count("ecs_queue_results_unpublished_total", "results"),
            "ecs_events.received": self._on_events_received,
            "ecs_events.receive_failed": self._count("ecs_queue_event_receive_failures_total"),
            "journal.write_failed": self._count("ecs_queue_journal_write_failures_total"),
            "journal.events_dropped": self._count("ecs_queue_journal_dropped_events_total", "dropped"),
        }

    @property
    def events(self) -> frozenset[str]:
        """The events that are counted."""
        return frozenset(self._handlers)

    def record_event(self, name: str, fields: dict[str, Any]) -> None:
        """Count the event. This is the telemetry sink."""
        handler = self._handlers.get(name)
        if handler is not None:
            handler(fields)

    def increment(self, name: str, labels: tuple[str, ...] = (), by: float = 1.0) -> None:
        """Add to a counter of the catalogue. A queue stands first among the labels."""
        with self._lock:
            key = (name, self._bound_queue(name, labels))
            self._values[key] = self._values.get(key, 0.0) + by

    def observe(self, name: str, seconds: float, labels: tuple[str, ...] = ()) -> None:
        """Add a value to a histogram of the catalogue; what is below 0 counts as 0: two clocks differ a little."""
        seconds = max(0.0, seconds)
        buckets = METRICS[name].buckets
        with self._lock:
            key = (name, self._bound_queue(name, labels))
            numbers = self._histograms.get(key)
            if numbers is None:
                numbers = self._histograms[key] = [0.0] * (len(buckets) + 2)
            numbers[bisect.bisect_left(buckets, seconds)] += 1
            numbers[-1] += seconds
        if self.observer is not None:
            self.observer(name, seconds, key[1])

    def read(self) -> tuple[list[Sample], list[HistogramSample]]:
        """Return every value as of now."""
        with self._lock:
            values = [Sample(name, value, labels) for (name, labels), value in self._values.items()]
            histograms = [
                HistogramSample(name, tuple(map(int, numbers[:-1])), numbers[-1], labels)
                for (name, labels), numbers in self._histograms.items()
            ]
        return values, histograms

    def _bound_queue(self, name: str, labels: tuple[str, ...]) -> tuple[str, ...]:
        if not labels or METRICS[name].labels[0] != "queue" or labels[0] in self._queues:
            return labels
        if len(self._queues) < MAX_QUEUES:
            self._queues.add(labels[0])
            return labels
        return (OTHER, *labels[1:])

    def _count(self, name: str, amount: str = "") -> Callable[[Mapping[str, Any]], None]:
        return lambda fields: self.increment(name, (), fields[amount] if amount else 1.0)

    def _count_by_queue(self, name: str) -> Callable[[Mapping[str, Any]], None]:
        return lambda fields: self.increment(name, (fields["queue"],))

    def _on_rate_lowered(self, fields: Mapping[str, Any]) -> None:
        self.increment("ecs_queue_rate_lowered_total", (fields["limiter"],))

    def _on_service_failure(self, fields: Mapping[str, Any]) -> None:
        self.increment("ecs_queue_service_failures_total")
        if fields["server"]:
            self.increment("ecs_queue_server_errors_total", (fields["server"],))

    def _on_run_task(self, fields: Mapping[str, Any]) -> None:
        record, kind = fields["record"], fields["result"].kind
        self.increment("ecs_queue_run_task_results_total", (record.queue, kind.value))
        if kind is RunTaskResultKind.STARTED:
            self.increment("ecs_queue_launches_total", (record.queue,))
        if record.launch == 1 and record.calls == 1:
            self.observe("ecs_queue_wait_seconds", record.first_called_at - record.created_at, (record.queue,))

    def _on_poll(self, fields: Mapping[str, Any]) -> None:
        measured = _measure_phases(fields["poll_input"], fields["decision"])
        if measured:
            with self._lock:
                if len(self._unwritten) >= _MAX_UNWRITTEN:
                    self._unwritten.pop(next(iter(self._unwritten)))
                self._unwritten[fields["id"]] = measured

    def _on_written(self, fields: Mapping[str, Any]) -> None:
        for name, seconds, queue in self._unwritten.pop(fields["id"], ()):
            self.observe(name, seconds, (queue,))

    def _on_retry(self, fields: Mapping[str, Any]) -> None:
        self._on_written(fields)
        self.increment("ecs_queue_retries_total")

    def _on_ended(self, fields: Mapping[str, Any]) -> None:
        self._on_written(fields)
        queue, stop_code = fields["queue"], fields["stop_code"]
        stop_code = "none" if not stop_code else stop_code if stop_code in STOP_CODES else OTHER
        self.increment("ecs_queue_results_total", (queue, fields["state"], stop_code))
        self.increment("ecs_queue_attempts_total", (queue,), fields["attempts"])

    def _on_events_received(self, fields: Mapping[str, Any]) -> None:
        self.observe("ecs_queue_event_lag_seconds", fields["lag"])


def _measure_phases(poll_input: PollInput, decision: PollDecision) -> list[_Measured]:
    """Return the phases that this observation of a task ended: of a task that ran, those before and after its start."""
    record, observation, task = poll_input.record, decision.observation, poll_input.task
    if decision.update is None or observation.started_at is None:
        return []
    phases = build_phases(phase_starts(0.0, record.first_called_at, record.launched_at, task), None)
    is_start_new = not record.started_at
    found = [
        (_PHASE_HISTOGRAMS[phase.name], phase.end - phase.start, record.queue)
        for phase in phases
        if phase.end is not None and phase.name in _PHASE_HISTOGRAMS and (is_start_new or phase.name == "run")
    ]
    if observation.has_ended and observation.stopped_at is not None:
        found.append(("ecs_queue_stop_to_result_seconds", poll_input.now - observation.stopped_at, record.queue))
    return found
