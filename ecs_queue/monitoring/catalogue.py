"""The catalogue of metrics: the page docs/metrics.md, the HTTP endpoint and every other exporter derive from it.

Names and units follow Prometheus' conventions. The values of a label are bounded: queues (`MAX_QUEUES`, the others
count as `OTHER`), states, ECS's stop codes, operations and results. No label has an id or a free text.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Protocol

import msgspec

#: The largest number of queues with values of their own, and what the others count as: no queue has this name.
MAX_QUEUES = 200
OTHER = "(other)"


class MetricKind(StrEnum):
    """Prometheus' types."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


class Source(StrEnum):
    """Where a value comes from."""

    WORKER = "worker"
    """This process alone: counters begin at 0 when it starts, and end with it. Add them up over the workers."""
    LEDGER = "ledger"
    """The ledger and the broker: every worker shows the same values. Take the maximum over the workers."""


class Metric(msgspec.Struct, frozen=True, kw_only=True):
    """One metric.

    Attributes:
        name: As in the scrape; of a counter it ends with `_total`.
        help: One sentence, for users.
        events: The telemetry events that change it; () when it is read at the scrape or measured.
        buckets: Upper bounds of a histogram, in seconds.
    """

    name: str
    kind: MetricKind
    source: Source
    help: str
    labels: tuple[str, ...] = ()
    events: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()


#: Of one round trip: 1 ms to 10 s.
_CALL_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
#: Of a launch, which takes some 10 to 60 s on Fargate.
_LAUNCH_BUCKETS = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 30.0, 45.0, 60.0, 90.0, 120.0, 300.0, 600.0)
#: Of what may take hours: a wait for capacity, a task.
_LONG_BUCKETS = (0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 1800.0, 3600.0, 10800.0, 21600.0, 43200.0, 86400.0)
_CALL_EVENT = "decision.run_task"
_END_EVENTS = "decision.poll request.ended request.retry_scheduled"
_STATUS_EVENTS = f"{_END_EVENTS} task.status_changed"


def _metric(
    kind: MetricKind, source: Source, name: str, text: str, labels: str, events: str, buckets: tuple[float, ...] = ()
) -> Metric:
    return Metric(
        name=f"ecs_queue_{name}",
        kind=kind,
        source=source,
        help=text,
        labels=tuple(labels.split()),
        events=tuple(events.split()),
        buckets=buckets,
    )


def _counter(name: str, text: str, labels: str = "", events: str = "", source: Source = Source.WORKER) -> Metric:
    return _metric(MetricKind.COUNTER, source, f"{name}_total", text, labels, events)


def _gauge(name: str, text: str, labels: str = "", source: Source = Source.WORKER) -> Metric:
    return _metric(MetricKind.GAUGE, source, name, text, labels, "")


def _histogram(name: str, text: str, events: str, buckets: tuple[float, ...], labels: str = "queue") -> Metric:
    return _metric(MetricKind.HISTOGRAM, Source.WORKER, f"{name}_seconds", text, labels, events, buckets)


_LEDGER = Source.LEDGER
_ALL = (
    _gauge("ledger_up", "1 when ledger and broker answered the last read of this scrape, else 0.", source=_LEDGER),
    _counter("requests_submitted", "Requests that the ledger ever accepted: ended plus live.", "queue", "", _LEDGER),
    _counter("requests_ended", "Requests that reached this terminal state.", "queue state", "", _LEDGER),
    _gauge("requests", "Live requests: QUEUED waits, LAUNCHING and LAUNCHED are in flight.", "queue state", _LEDGER),
    _gauge("backlog_messages", "Request messages that wait in the broker.", "queue", _LEDGER),
    _gauge("delayed_requests", "QUEUED requests that were submitted for a later time.", "queue", _LEDGER),
    _gauge("key_waiting_requests", "QUEUED requests whose concurrency key is full.", "queue", _LEDGER),
    _gauge("oldest_queued_age_seconds", "Age of a request that waits longest for its first launch.", "queue", _LEDGER),
    _gauge("queue_paused", "1 while an operator has paused the queue.", "queue", _LEDGER),
    _gauge(
        "runners",
        "Runners of the queue's warm pools: starting, busy, idle, leaving after their command, silent for runner_ttl.",
        "queue state",
        _LEDGER,
    ),
    _gauge("workers", "Live workers that serve the queue.", "queue", _LEDGER),
    _gauge("workers_wanted", "Workers that launch the backlog in a minute (docs/scaling.md).", "queue", _LEDGER),
    _gauge("workers_failing", "Live workers whose health is not ok.", "", _LEDGER),
    _gauge(
        "quota_used_ratio",
        "Calls a second of all workers by the configured rate: run_task also has StopTask, describe_tasks also "
        "ListTasks.",
        "limiter",
        _LEDGER,
    ),
    _gauge("dead_letters", "Messages that could not be used and are kept.", "", _LEDGER),
    _gauge("queue_dead_letters", "Those of the queue; (other) also has those of earlier versions.", "queue", _LEDGER),
    _gauge("broken_items", "Items of the ledger that cannot be used and are kept apart.", "", _LEDGER),
    _gauge("state_read_seconds", "How long the last read of ledger and broker took.", "", _LEDGER),
    _gauge("build_info", "1; the label has the version of ecs-queue.", "version"),
    _gauge("start_time_seconds", "When the worker started, in seconds since the epoch by the ledger's clock."),
    _gauge("concurrency", "Maximum number of RunTask calls at the same time."),
    _gauge("launches_in_progress", "Requests that the worker launches now; none that waits for a limit or a thread."),
    _gauge("draining", "1 while the worker stops."),
    _gauge("failing_services", "Services of the worker that fail now: the server of the ledger counts as one."),
    _gauge("results_pending", "Result messages that the worker has not published yet; their ends are in the ledger."),
    _gauge("circuit_open", "1 while the worker launches nothing of this queue, because calls cannot work.", "queue"),
    _gauge("broker_poll_age_seconds", "Seconds since the worker last polled the broker."),
    _counter("launches", "RunTask calls that started a task.", "queue", "decision.run_task"),
    _counter("runner_assignments", "Requests that an idle runner took, without a call.", "", "launch.assigned"),
    _counter("runner_ends_rejected", "Ends whose signature is not their queue's.", "", "runner.end_rejected"),
    _counter(
        "run_task_results",
        "RunTask calls by what they proved: started, throttled, capacity, ambiguous ...",
        "queue result",
        "decision.run_task",
    ),
    _counter("results", "Requests whose end this worker found.", "queue state stop_code", "request.ended"),
    _counter("attempts", "Attempts that these requests used.", "queue", "request.ended"),
    _counter("retries", "Attempts after which another one follows.", "", "request.retry_scheduled"),
    _counter("dead_lettered", "Messages that became dead letters.", "queue", "request.dead_lettered"),
    _counter("circuit_opened", "How often the circuit of a queue opened.", "queue", "circuit.opened"),
    _counter("rate_lowered", "How often throttling lowered the rate of all workers.", "limiter", "rate_limit.lowered"),
    _counter("service_failures", "Failures of the worker's services.", "", "service.failed service.retried"),
    _counter(
        "server_errors",
        "Calls of the worker's services that did not reach the server: ledger or broker.",
        "server",
        "service.failed service.retried",
    ),
    _counter("results_unpublished", "Result messages that could not be published.", "", "results.unpublished"),
    _counter("event_receive_failures", "Failed receipts of ECS's events.", "", "ecs_events.receive_failed"),
    _counter("journal_write_failures", "Reported failures to write the journal.", "", "journal.write_failed"),
    _counter("journal_dropped_events", "Events that are missing in the journal.", "", "journal.events_dropped"),
    _counter("collection_errors", "Groups of metrics that a scrape could not read, and left out."),
    _histogram("wait", "From a request's submission to its first RunTask call.", _CALL_EVENT, _LONG_BUCKETS),
    _histogram("launch", "From the claim to the recorded task, of tasks that ran.", _STATUS_EVENTS, _LAUNCH_BUCKETS),
    _histogram("provisioning", "From the recorded task to the pull of its image.", _STATUS_EVENTS, _LAUNCH_BUCKETS),
    _histogram("pull", "The pull of the image, as ECS gives it.", _STATUS_EVENTS, _LAUNCH_BUCKETS),
    _histogram("run", "From the start of the container to its stop.", _END_EVENTS, _LONG_BUCKETS),
    _histogram(
        "stop_to_result", "From the task's end, by ECS's clock, until a worker saw it.", _END_EVENTS, _LAUNCH_BUCKETS
    ),
    _histogram(
        "event_lag", "From a change of a task to the receipt of its event.", "ecs_events.received", _LAUNCH_BUCKETS, ""
    ),
    _histogram(
        "ecs_call",
        "RunTask, DescribeTasks, StopTask and ListTasks calls; the result is ok, throttled or the kind of error.",
        "",
        _CALL_BUCKETS,
        "operation result",
    ),
    _histogram("ledger_round_trip", "Heartbeats: one to the ledger every two seconds.", "", _CALL_BUCKETS, ""),
    _histogram(
        "broker_round_trip", "Publications of results in batches, with those that failed.", "", _CALL_BUCKETS, ""
    ),
)
METRICS: dict[str, Metric] = {metric.name: metric for metric in _ALL}


class Sample(msgspec.Struct, frozen=True):
    """One value of a counter or a gauge; `labels` in the order of the metric's."""

    name: str
    value: float
    labels: tuple[str, ...] = ()


class HistogramSample(msgspec.Struct, frozen=True):
    """The values of one histogram: how many fell into each bucket and above the last one, and their sum in seconds."""

    name: str
    counts: tuple[int, ...]
    total: float
    labels: tuple[str, ...] = ()


class SampleSource(Protocol):
    """Where the values of a scrape come from. It does not raise."""

    def collect(self) -> tuple[Sequence[Sample], Sequence[HistogramSample]]:
        """Return all values as of now."""
        ...
