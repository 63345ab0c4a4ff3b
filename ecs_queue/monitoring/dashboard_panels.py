"""The panels of conf/grafana-dashboard.json and their queries.

Values that come from the ledger are the same in every worker, so queries take their maximum; the others are added up.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

#: Every selector of a query has the namespace; those of a queue's metric also the queue.
_N = 'namespace=~"$namespace"'
_Q = f'{_N}, queue=~"$queue"'
_RATE = "$__rate_interval"


class Query(msgspec.Struct, frozen=True):
    """One expression of PromQL, and how its series are called."""

    expression: str
    legend: str = ""


class Panel(msgspec.Struct, frozen=True, kw_only=True):
    """One panel. `kind` is Grafana's; `alarm` colours a value red from there on, or below 1 if it is 0."""

    title: str
    queries: Sequence[Query]
    text: str = ""
    kind: str = "timeseries"
    unit: str = "short"
    columns: int = 3
    alarm: float | None = None
    options: dict[str, Any] = msgspec.field(default_factory=dict)


def _stat(title: str, expression: str, text: str, alarm: float = 1, unit: str = "short") -> Panel:
    return Panel(title=title, queries=[Query(expression)], text=text, kind="stat", alarm=alarm, unit=unit, columns=7)


def _graph(title: str, *queries: tuple[str, str], text: str = "", unit: str = "short", columns: int = 3) -> Panel:
    return Panel(title=title, queries=[Query(*each) for each in queries], text=text, unit=unit, columns=columns)


def _quantiles(title: str, metric: str, text: str, selector: str = _Q) -> Panel:
    rate = f"sum by (le) (rate({metric}_bucket{{{selector}}}[{_RATE}]))"
    queries = [(f"histogram_quantile({share}, {rate})", f"p{share * 100:.0f}") for share in (0.5, 0.9, 0.99)]
    return _graph(title, *queries, text=text, unit="s")


def _heatmap(title: str, metric: str, text: str) -> Panel:
    query = Query(f"sum by (le) (increase({metric}_bucket{{{_Q}}}[{_RATE}]))", "{{le}}")
    options = {"calculate": False, "yAxis": {"unit": "s"}, "legend": {"show": False}}
    return Panel(title=title, queries=[query], text=text, kind="heatmap", unit="s", options=options)


def _timeline(title: str, expression: str, legend: str, text: str) -> Panel:
    options = {"showValue": "never", "legend": {"showLegend": False}}
    queries = [Query(expression, legend)]
    return Panel(title=title, queries=queries, text=text, kind="state-timeline", alarm=1, columns=2, options=options)


def _count(condition: str) -> str:
    return f"count({condition}) or vector(0)"


#: Title -> panels, from the top.
ROWS: dict[str, Sequence[Panel]] = {
    "Problems": [
        _stat(
            "Ledger and broker",
            f"max(ecs_queue_ledger_up{{{_N}}}) or vector(0)",
            "1 while a worker reads both.",
            alarm=0,
        ),
        _stat(
            "Queues without a worker",
            _count(
                f"max by (namespace, queue) (ecs_queue_workers{{{_Q}}}) == 0 and on (namespace, queue) "
                f"sum by (namespace, queue) (max by (namespace, queue, state) (ecs_queue_requests{{{_Q}}})) > 0"
            ),
            "Requests wait or run, and no worker serves their queue.",
        ),
        _stat(
            "Open circuits",
            _count(f"max by (namespace, queue) (ecs_queue_circuit_open{{{_Q}}}) == 1"),
            "Queues of which a worker launches nothing now: `ecs-queue workers` says why.",
        ),
        _stat("Failing workers", f"sum(max by (namespace) (ecs_queue_workers_failing{{{_N}}}))", "Not healthy."),
        _stat(
            "Throttled calls",
            f'sum(rate(ecs_queue_run_task_results_total{{{_Q}, result="throttled"}}[10m])) '
            f"/ sum(rate(ecs_queue_run_task_results_total{{{_Q}}}[10m]))",
            "Share of the RunTask calls of the last ten minutes.",
            alarm=0.2,
            unit="percentunit",
        ),
        _stat("Dead letters", f"sum(max by (namespace) (ecs_queue_dead_letters{{{_N}}}))", "`ecs-queue dead list`"),
        _stat("Broken items", f"sum(max by (namespace) (ecs_queue_broken_items{{{_N}}}))", "`ecs-queue broken list`"),
        _timeline(
            "Firing alerts",
            f'max by (alertname, queue, instance) (ALERTS{{{_N}, alertname=~"EcsQueue.*", alertstate="firing"}})',
            "{{alertname}} {{queue}} {{instance}}",
            "docs/on-call.md has a section for each.",
        ),
        _graph(
            "Oldest waiting request",
            (f"max by (queue) (ecs_queue_oldest_queued_age_seconds{{{_Q}}})", "{{queue}}"),
            unit="s",
            columns=2,
        ),
    ],
    "Backlog": [
        _graph(
            "Waiting requests",
            (f'max by (queue) (ecs_queue_requests{{{_Q}, state="QUEUED"}})', "{{queue}} records"),
            (f"max by (queue) (ecs_queue_backlog_messages{{{_Q}}})", "{{queue}} messages"),
            (f"max by (queue) (ecs_queue_delayed_requests{{{_Q}}})", "{{queue}} delayed"),
            (f"max by (queue) (ecs_queue_key_waiting_requests{{{_Q}}})", "{{queue}} waiting for a key"),
            text="Records of the ledger, and messages in the broker: a request may be both, or only a message yet. "
            "Delayed ones are records whose time has not come; those waiting for a key are held back by max_per_key.",
        ),
        _graph(
            "In flight",
            (f'max by (queue, state) (ecs_queue_requests{{{_Q}, state=~"LAUNCHING|LAUNCHED"}})', "{{queue}} {{state}}"),
        ),
        _graph(
            "Workers, and workers wanted",
            (f"max by (queue) (ecs_queue_workers{{{_Q}}})", "{{queue}}"),
            (f"max by (queue) (ecs_queue_workers_wanted{{{_Q}}})", "{{queue}} wanted"),
        ),
        _graph(
            "Submitted",
            (f"max by (queue) (rate(ecs_queue_requests_submitted_total{{{_Q}}}[{_RATE}]))", "{{queue}}"),
            unit="reqps",
        ),
        _graph(
            "Ended",
            (
                "sum by (state) (max by (namespace, queue, state) "
                f"(rate(ecs_queue_requests_ended_total{{{_Q}}}[{_RATE}])))",
                "{{state}}",
            ),
            unit="reqps",
        ),
        _graph(
            "Ends by stop code",
            (f"sum by (state, stop_code) (rate(ecs_queue_results_total{{{_Q}}}[{_RATE}]))", "{{state}} {{stop_code}}"),
            unit="reqps",
        ),
    ],
    "Launches": [
        _graph(
            "Launches",
            (f"sum by (queue) (rate(ecs_queue_launches_total{{{_Q}}}[{_RATE}]))", "{{queue}}"),
            unit="reqps",
        ),
        _graph(
            "RunTask calls by result",
            (f"sum by (result) (rate(ecs_queue_run_task_results_total{{{_Q}}}[{_RATE}]))", "{{result}}"),
            unit="reqps",
        ),
        _graph(
            "Share of the quota",
            (f"max by (limiter) (ecs_queue_quota_used_ratio{{{_N}}})", "{{limiter}}"),
            (f"sum by (limiter) (increase(ecs_queue_rate_lowered_total{{{_N}}}[{_RATE}]))", "{{limiter}} lowered"),
            unit="percentunit",
            text="Calls of all workers by the configured rate, and how often throttling lowered it.",
        ),
        _graph(
            "Retries and attempts",
            (f"sum(rate(ecs_queue_retries_total{{{_N}}}[{_RATE}]))", "retries"),
            (f"sum(rate(ecs_queue_attempts_total{{{_Q}}}[{_RATE}]))", "attempts of what ended"),
            unit="reqps",
        ),
        _graph(
            "ECS calls, p90",
            (
                "histogram_quantile(0.9, sum by (le, operation) "
                f"(rate(ecs_queue_ecs_call_seconds_bucket{{{_N}}}[{_RATE}])))",
                "{{operation}}",
            ),
            unit="s",
        ),
        _graph(
            "ECS calls that failed",
            (
                f'sum by (operation, result) (rate(ecs_queue_ecs_call_seconds_count{{{_N}, result!="ok"}}[{_RATE}]))',
                "{{operation}} {{result}}",
            ),
            unit="reqps",
        ),
    ],
    "Latencies": [
        _heatmap("Wait", "ecs_queue_wait_seconds", "From the submission to the first RunTask call."),
        _quantiles("Wait", "ecs_queue_wait_seconds", "From the submission to the first RunTask call."),
        _quantiles("Launch", "ecs_queue_launch_seconds", "From the claim to the recorded task."),
        _heatmap("Provisioning", "ecs_queue_provisioning_seconds", "From the recorded task to the pull of its image."),
        _quantiles("Provisioning", "ecs_queue_provisioning_seconds", "From the task to the pull of its image."),
        _quantiles("Pull", "ecs_queue_pull_seconds", "The pull of the image."),
        _heatmap("Run", "ecs_queue_run_seconds", "From the start of the container to its stop."),
        _quantiles("Run", "ecs_queue_run_seconds", "From the start of the container to its stop."),
        _quantiles("Stop to result", "ecs_queue_stop_to_result_seconds", "From the task's end until a worker saw it."),
    ],
    "Circuits and pauses": [
        _timeline(
            "Circuits",
            f"max by (queue, instance) (ecs_queue_circuit_open{{{_Q}}})",
            "{{queue}} {{instance}}",
            "Red while the worker launches nothing of the queue.",
        ),
        _graph(
            "Circuits that opened",
            (f"sum by (queue) (increase(ecs_queue_circuit_opened_total{{{_Q}}}[{_RATE}]))", "{{queue}}"),
            columns=2,
        ),
        _timeline(
            "Pauses",
            f"max by (queue) (ecs_queue_queue_paused{{{_Q}}})",
            "{{queue}}",
            "Red while an operator has paused the queue.",
        ),
    ],
    "Workers": [
        _timeline(
            "Down",
            f'1 - max by (instance) (up{{{_N}, job="ecs-queue"}})',
            "{{instance}}",
            "Red while Prometheus does not reach the worker.",
        ),
        _timeline(
            "Failing services",
            f"max by (instance) (ecs_queue_failing_services{{{_N}}})",
            "{{instance}}",
            "Red while a service of the worker, or its server, fails.",
        ),
        _graph(
            "Busy",
            (
                f"max by (instance) (ecs_queue_launches_in_progress{{{_N}}}) "
                f"/ max by (instance) (ecs_queue_concurrency{{{_N}}})",
                "{{instance}}",
            ),
            (f"max by (instance) (ecs_queue_draining{{{_N}}})", "{{instance}} stops"),
            unit="percentunit",
            text="Launches in progress by concurrency.",
        ),
        _graph(
            "Age of the last poll of the broker",
            (f"max by (instance) (ecs_queue_broker_poll_age_seconds{{{_N}}})", "{{instance}}"),
            unit="s",
        ),
        _graph(
            "Failures",
            (f"sum by (instance) (increase(ecs_queue_service_failures_total{{{_N}}}[{_RATE}]))", "{{instance}}"),
            (f"sum(increase(ecs_queue_collection_errors_total{{{_N}}}[{_RATE}]))", "scrapes"),
            (f"sum by (server) (increase(ecs_queue_server_errors_total{{{_N}}}[{_RATE}]))", "{{server}}"),
        ),
        _quantiles("Round trip to the ledger", "ecs_queue_ledger_round_trip_seconds", "Heartbeats.", _N),
        _quantiles("Round trip to the broker", "ecs_queue_broker_round_trip_seconds", "Batches of results.", _N),
        _graph(
            "Read of ledger and broker",
            (f"max by (instance) (ecs_queue_state_read_seconds{{{_N}}})", "{{instance}}"),
            unit="s",
            text="For the values of this page.",
        ),
        _graph(
            "Age",
            (f"time() - max by (instance) (ecs_queue_start_time_seconds{{{_N}}})", "{{instance}}"),
            unit="s",
            text="Since the start of the worker.",
        ),
        _graph(
            "Versions",
            (f"count by (version) (ecs_queue_build_info{{{_N}}})", "{{version}}"),
            text="Workers of each version.",
        ),
    ],
    "Warm pools": [
        _graph(
            "Runners",
            (f"sum by (state) (max by (namespace, queue, state) (ecs_queue_runners{{{_Q}}}))", "{{state}}"),
        ),
        _graph(
            "Requests that an idle runner took",
            (f"sum(rate(ecs_queue_runner_assignments_total{{{_N}}}[{_RATE}]))", "taken"),
            (f"sum(rate(ecs_queue_launches_total{{{_N}}}[{_RATE}]))", "launched by RunTask"),
            unit="reqps",
        ),
        _graph(
            "Ends of runners with a wrong signature",
            (f"sum(increase(ecs_queue_runner_ends_rejected_total{{{_N}}}[{_RATE}]))", "rejected"),
        ),
    ],
    "Events, results and journal": [
        _quantiles("Event lag", "ecs_queue_event_lag_seconds", "From a task's change to its event's receipt.", _N),
        _graph(
            "Results that wait for the broker",
            (f"sum by (instance) (ecs_queue_results_pending{{{_N}}})", "{{instance}}"),
            (f"sum(increase(ecs_queue_results_unpublished_total{{{_N}}}[{_RATE}]))", "given up"),
        ),
        _graph(
            "Journal, events and dead letters",
            (f"sum(increase(ecs_queue_journal_dropped_events_total{{{_N}}}[{_RATE}]))", "events dropped"),
            (f"sum(increase(ecs_queue_journal_write_failures_total{{{_N}}}[{_RATE}]))", "failed writes"),
            (f"sum(increase(ecs_queue_event_receive_failures_total{{{_N}}}[{_RATE}]))", "failed receipts of events"),
            (f"sum(increase(ecs_queue_dead_lettered_total{{{_Q}}}[{_RATE}]))", "dead letters"),
        ),
        _graph(
            "Dead letters that are kept",
            (f"max by (queue) (ecs_queue_queue_dead_letters{{{_Q}}})", "{{queue}}"),
        ),
    ],
}
