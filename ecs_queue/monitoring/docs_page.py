"""Renders docs/metrics.md from the catalogue."""

from __future__ import annotations

from collections.abc import Iterable

from ecs_queue.monitoring.catalogue import MAX_QUEUES, METRICS, OTHER, Metric, Source

_HEAD = f"""\
# Metrics and health of workers

This page is generated from the catalogue of metrics (`ecs_queue/monitoring/catalogue.py`); a test compares them.

```sh
pip install 'ecs-queue[metrics]'
ecs-queue worker --metrics-port 9464         # or metrics_port = 9464 in [ecs_queue]
curl http://127.0.0.1:9464/metrics
```

A worker answers on 127.0.0.1 only; `--metrics-host 0.0.0.0` (`metrics_host`) opens the port to scrapers on other
machines, `::` by IPv6 as well. There is no password: let only these reach it. No answer has a payload or a command;
health names reasons, as `ecs-queue workers` does. Each worker of a machine needs a port of its own.

| path | answer |
|---|---|
| `/metrics` | the metrics below, in Prometheus' text format |
| `/healthz` | 200 while the process and its services run; else 503 and which one ended or hangs |
| `/readyz` | 200 when the worker can work; else 503 and why not |
| `/scale?queue=NAME` | the queue's load and the workers that it needs, as JSON: [scaling.md](scaling.md) |

`/readyz` fails while the worker starts or stops, while the ledger, the broker or a service fails again and again, and
while credentials or a cluster cannot be used. `/healthz` does not fail because a server is away: a restart would not
help. Use `/healthz` for a liveness probe and `/readyz` for a readiness probe. `ecs-queue workers --check` asks the
ledger for the health of all workers at once.

Only GET and HEAD are answered. A request has 5 seconds to arrive and its answer 5 seconds to be taken; 32 connections
may be open at once, and the one that has waited longest for its request gives its place to a new one.

## OpenTelemetry

```sh
pip install 'ecs-queue[otel]'
OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:4318 AIRFLOW__ECS_QUEUE__OTEL_METRICS=True ecs-queue worker
```

`otel_metrics = True` exports the same metrics every `OTEL_METRIC_EXPORT_INTERVAL` milliseconds (60,000) and once more
when the worker stops: by OTLP over HTTP (protobuf), with `OTEL_EXPORTER_OTLP_PROTOCOL=grpc` and the package
`opentelemetry-exporter-otlp-proto-grpc` over gRPC, or by what `OTEL_METRICS_EXPORTER` names. The usual variables set
the endpoint, headers, time-outs and the resource; without them `service.name` is `ecs-queue-worker`, and
`service.instance.id` is always the worker's name. A name has `ecs_queue.` in place of `ecs_queue_`, and no `_total`,
`_seconds` or `_ratio`: `ecs_queue.launch`, unit `s`, is `ecs_queue_launch_seconds`.

[Traces](tracing.md) are another key, `otel_traces`.

## Labels

A queue beyond the first {MAX_QUEUES} counts as `{OTHER}`. States are those of [states.md](states.md), stop codes are
ECS's own (`none` without one). No label has an id, a name of a worker or a free text.
"""
_LEDGER = """\
## Values of the ledger and the broker

Every worker shows the same values, so take `max by (queue, state)` over the workers, never a sum. A worker reads them
when it is scraped, at most every 3 seconds for all its scrapers. A scrape waits a second for them: without an answer it
has `ecs_queue_ledger_up 0` and none of the others of this table.

`ecs_queue_requests_submitted_total` is the sum of `ecs_queue_requests_ended_total` and `ecs_queue_requests` over the
states of a queue, in every scrape: all three come from one read of the ledger's counts. They outlive every worker, and
begin with the namespace. A request counts once it has a record; while it is only a message, it counts in the backlog.
"""
_WORKER = """\
## Values of one worker

Counters and histograms begin at 0 when the worker starts and end with it: `sum(rate(...))` over the workers. What a
worker counted after its last scrape is lost when it is killed, so totals that must add up are those of the ledger.
"""


def render_metrics_page() -> str:
    """Return the page."""
    by_source = {source: [each for each in METRICS.values() if each.source is source] for source in Source}
    parts = [_HEAD, _LEDGER, _table(by_source[Source.LEDGER], with_events=False)]
    parts += [_WORKER, _table(by_source[Source.WORKER], with_events=True)]
    return "\n".join(parts)


def _table(metrics: Iterable[Metric], *, with_events: bool) -> str:
    columns = ["metric", "type", "labels", "meaning", *(["events"] if with_events else [])]
    rows = [columns, ["---"] * len(columns)]
    for metric in metrics:
        row = [f"`{metric.name}`", metric.kind.value, _code(metric.labels), metric.help]
        rows.append([*row, _code(metric.events)] if with_events else row)
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def _code(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)
