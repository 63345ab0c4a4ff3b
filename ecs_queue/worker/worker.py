"""A launcher worker: every service in one process. Start more workers on any machine to launch more."""

from __future__ import annotations

import os
import random
import secrets
import socket
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

from ecs_queue.broker.base import Broker
from ecs_queue.config import Config
from ecs_queue.config.keyring import open_keyring
from ecs_queue.ecs.clients import ClientOptions, EcsClients
from ecs_queue.ecs.gateway import BotoEcsGateway, EcsGateway
from ecs_queue.errors import EcsQueueError
from ecs_queue.findings import Finding, Severity, require_usable
from ecs_queue.journal import JournalRecorder, JournalStore, open_event_encoder
from ecs_queue.ledger.base import Ledger, WorkerInfo
from ecs_queue.messages.queue_names import canonical_queue_name
from ecs_queue.monitoring.http_server import HttpServer
from ecs_queue.monitoring.monitor import Monitor
from ecs_queue.monitoring.otel_outages import report_outages
from ecs_queue.monitoring.otel_setup import open_span_export
from ecs_queue.outage_log import OutageLine, OutagePhase
from ecs_queue.telemetry import Telemetry
from ecs_queue.version import package_version
from ecs_queue.worker.broken_item_monitor import BrokenItemMonitor
from ecs_queue.worker.cluster_monitor import ClusterMonitor
from ecs_queue.worker.consumer import Consumer
from ecs_queue.worker.context import WorkerContext
from ecs_queue.worker.ended_runners import EndedRunners
from ecs_queue.worker.event_listener import build_event_services
from ecs_queue.worker.fair_queue import FairQueue
from ecs_queue.worker.launcher import Launcher
from ecs_queue.worker.metrics import MeteredGateway, MeteredResultBroker, QueueRates, WorkerMetrics
from ecs_queue.worker.outages import CONSUMER, HEARTBEAT
from ecs_queue.worker.poller import Poller
from ecs_queue.worker.result_publisher import ResultPublisher
from ecs_queue.worker.run_settler import RunSettler
from ecs_queue.worker.service import PeriodicService, Service
from ecs_queue.worker.silent_runners import SilentRunners
from ecs_queue.worker.status_reader import StatusReader
from ecs_queue.worker.sweeper import Sweeper
from ecs_queue.worker.thread_pool import LaunchThreadPool
from ecs_queue.worker.tracing import OtelTracing, Tracing

if TYPE_CHECKING:
    from ecs_queue.monitoring.otel_traces import SpanExport

_HEARTBEAT_INTERVAL = 2.0
#: The longest time for which a worker counts as alive after its last heartbeat; below the lease, since the worker that
#: takes a record over checks whether its former holder is alive. Seconds.
_HEARTBEAT_TTL = 15.0
#: The time that a stop may take: calls in progress end, and messages that were not started are requeued. Seconds.
STOP_TIMEOUT = 8.0
#: After this time the journal's writer yields to launches: switching threads takes longer than an event. Seconds.
_JOURNAL_YIELD_INTERVAL = 0.001
#: The shortest time for which a stop waits until the last events are written. Seconds.
_JOURNAL_STOP_TIMEOUT = 0.2
#: The shortest time for which a stop waits until the metrics are shown for the last time. Seconds.
_EXPORTER_STOP_TIMEOUT = 0.5


class Worker:
    """Owns its threads, not its broker and ledger.

    Call `start`, then `stop` (idempotent, from any thread), then `join`.
    """

    def __init__(
        self,
        config: Config,
        broker: Broker,
        ledger: Ledger,
        *,
        queues: Sequence[str] = ("default",),
        name: str = "",
        telemetry: Telemetry | None = None,
        gateway: EcsGateway | None = None,
        journal: JournalStore | None = None,
    ) -> None:
        """Build every service; `journal` is where events are recorded, None for no journal."""
        self._config = config
        self.name = name or f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(2)}"
        self.queues = list(dict.fromkeys(map(canonical_queue_name, queues)))
        telemetry = self._telemetry = telemetry or Telemetry()
        self._recorder = None if journal is None else self._build_recorder(journal)
        self._ledger = ledger
        self._stopping = threading.Event()
        self._started_at = 0.0
        clients = _open_clients(config)
        self._metrics = WorkerMetrics(time.monotonic)
        self._queue_rates = QueueRates(time.monotonic)
        telemetry.add_sink(self._queue_rates.record_event)
        metered = MeteredResultBroker(broker, self._metrics.counters, time.monotonic)
        self._result_publisher = ResultPublisher(metered, telemetry, keyring=open_keyring(config))
        self._span_export = self._open_span_export()
        context = self._context = self._build_context(gateway or BotoEcsGateway(clients, time.monotonic), clients)
        self._clusters = ClusterMonitor(context)
        fair_queue = FairQueue(lambda queue: config.profile(queue).weight, context.admission)
        pool = LaunchThreadPool(config.concurrency, context.outages, context.token_cache, fair_queue)
        self._thread_pool = pool
        context.admission.on_refresh(pool.wake)
        launcher = Launcher(context)
        consumer = Consumer(context, broker, launcher, pool)
        self._consumer_service = self._build_consumer_service(consumer)
        self._services = self._build_services(launcher, consumer, clients)
        watched = (*self._services, self._consumer_service, self._result_publisher)
        self._status = StatusReader(
            context, self._metrics, watched, self._worker_info, self._result_publisher.count_pending, self._stopping
        )
        self._exporters = self._build_exporters(broker)

    def _build_recorder(self, journal: JournalStore) -> JournalRecorder:
        encoder = open_event_encoder(self._config)
        return JournalRecorder(
            journal, self._telemetry, self.name, encoder=encoder, yield_interval=_JOURNAL_YIELD_INTERVAL
        )

    def _build_consumer_service(self, consumer: Consumer) -> PeriodicService:
        poll_broker = self._metrics.count_broker_polls(consumer.step)
        shut_down = partial(consumer.shut_down, STOP_TIMEOUT - 2)
        return PeriodicService(CONSUMER, poll_broker, self._context.outages, finish=shut_down)

    def _build_services(self, launcher: Launcher, consumer: Consumer, clients: EcsClients) -> list[Service]:
        """Return every service except the consumer, which stops first, and those that publish results and metrics."""
        context, outages = self._context, self._context.outages
        sweeper = Sweeper(context, launcher, self._thread_pool, consumer.is_drained)
        poller = Poller(context, self._thread_pool, launcher.recover)
        return [
            PeriodicService("poller", poller.step, outages, finish=poller.give_back),
            PeriodicService("sweeper", sweeper.step, outages),
            PeriodicService("admission", context.admission.step, outages),
            PeriodicService("broken-items", BrokenItemMonitor(self._ledger, self._telemetry).step, outages),
            PeriodicService("clusters", self._clusters.step, outages),
            PeriodicService(HEARTBEAT, self._heartbeat, outages),
            *build_event_services(context, poller.reconciler, clients),
            *self._runner_services(poller.run_settler),
        ]

    def _runner_services(self, run_settler: RunSettler) -> list[Service]:
        """What warm pools need; nothing where no queue has one."""
        context = self._context
        if not any(map(context.is_warm, self.queues)):
            return []
        return [
            PeriodicService("run-settler", run_settler.step, context.outages),
            PeriodicService("silent-runners", SilentRunners(context).step, context.outages),
            PeriodicService("ended-runners", EndedRunners(context).step, context.outages),
        ]

    def check(self) -> None:
        """Check the queues' profiles, the ledger's server and the clusters, and report what is found.

        Raises:
            ConfigError: the profile of a queue cannot launch anything, or has no Region.
            UnusableServer: nothing could be launched with the ledger's server as it is.
        """
        self._clusters.ask_for_strategies()
        profiles = [self._context.profile(queue) for queue in self.queues]
        for profile in profiles:
            profile.require_launchable()
            self._context.target_for(profile.queue)
        findings = self._ledger.check_server()
        require_usable(findings)
        for finding in findings:
            self._report_finding(finding, finding.sentence)
        for finding in self._clusters.check():
            self._report_finding(finding, f"queue {finding.sentence}")

    def _report_finding(self, finding: Finding, sentence: str) -> None:
        if finding.severity is Severity.ERROR:
            self._telemetry.emit("check.error", reason=sentence)
        elif finding.severity is Severity.WARNING:
            self._telemetry.emit("check.warning", reason=sentence)
        elif finding.severity is Severity.INFO:
            self._telemetry.emit("check.finding", reason=sentence)

    def start(self) -> None:
        """Start every service; returns at once. ConfigError when `metrics_port` cannot be used."""
        self._started_at = self._ledger.now()
        for exporter in self._exporters:
            exporter.start()
        if self._recorder is not None:
            self._recorder.start()
        for service in (self._result_publisher, *self._services, self._consumer_service):
            service.start()
        self._telemetry.emit("worker.started", worker=self.name, queues=", ".join(self.queues))

    def stop(self) -> None:
        """Begin to stop: calls in progress are finished, other messages are requeued. Returns at once."""
        if not self._stopping.is_set():
            self._telemetry.emit("worker.stopping", worker=self.name, outstanding=self._thread_pool.running)
        self._stopping.set()
        self._consumer_service.stop()
        for service in self._services:
            service.stop()  # else they would go on starting launches while calls in progress end

    def join(self, timeout: float = STOP_TIMEOUT) -> bool:
        """Wait for the end after `stop`; return False if something still ran after `timeout` seconds."""
        deadline = time.monotonic() + timeout
        self._stopping.wait()
        ended = self._consumer_service.join(timeout)
        self._thread_pool.close()
        ended = not self._thread_pool.outstanding and ended  # an abandoned call has not ended in order
        for service in self._services:
            ended = service.join(max(0.1, deadline - time.monotonic())) and ended
        self._result_publisher.stop()
        ended = self._result_publisher.join(max(0.5, deadline - time.monotonic())) and ended
        if ended:
            self._deregister()
        self._telemetry.emit("worker.stopped", worker=self.name)
        if self._recorder is not None:  # last: it writes the events of all the others
            self._recorder.stop()
            ended = self._recorder.join(max(_JOURNAL_STOP_TIMEOUT, deadline - time.monotonic())) and ended
        for exporter in self._exporters:  # they show to the end that the worker stops, and have no work to lose
            exporter.stop()
        for exporter in self._exporters:
            exporter.join(max(_EXPORTER_STOP_TIMEOUT, deadline - time.monotonic()))
        return ended

    def _deregister(self) -> None:
        """Leave the list of workers now: otherwise this one counts as alive until its last heartbeat is too old."""
        if self._started_at and not self._context.outages.reasons():  # else it would wait for a server that is away
            with suppress(EcsQueueError):
                self._ledger.heartbeat(self._worker_info(), 0.0)

    def _build_context(self, gateway: EcsGateway, clients: EcsClients) -> WorkerContext:
        ids = random.Random()  # seeded by the system, which would be asked for each id without the interpreter lock
        return WorkerContext(
            config=self._config,
            worker_name=self.name,
            queues=self.queues,
            ledger=self._ledger,
            gateway=MeteredGateway(gateway, self._metrics),
            target_for=lambda queue: clients.target_for(self._config.profile(queue)),
            publish_result=self._result_publisher.publish,
            telemetry=self._telemetry,
            monotonic=time.monotonic,
            wait_for_stop=self._stopping.wait,
            new_id=lambda: f"{ids.getrandbits(64):016x}",
            rng=random.Random(),
            tracing=self._build_tracing(),
        )

    def _open_span_export(self) -> SpanExport | None:
        """Return what exports spans; raises ConfigError when its packages are not installed."""
        if not self._config.otel_traces:
            return None
        return open_span_export("ecs-queue-worker", self.name, partial(self._report_export_outage, "spans"))

    def _report_export_outage(self, what: str, line: OutageLine) -> None:
        if line.phase is OutagePhase.ENDED:
            facts = {"seconds": round(line.seconds), "failures": line.failures}
            self._telemetry.emit("otel.export_recovered", what=what, **facts)
        else:
            self._telemetry.emit("otel.export_failed", what=what, reason=line.reason)

    def _build_tracing(self) -> Tracing:
        if self._span_export is None:
            return Tracing()
        return OtelTracing(self._config.namespace, self._span_export, time.time, self._telemetry)

    def _build_exporters(self, broker: Broker) -> list[Service]:
        """Return what shows metrics and spans: HTTP server and OpenTelemetry. Adds the lines for CloudWatch."""
        config, counters = self._config, self._metrics.counters
        exporters: list[Service] = [self._span_export] if self._span_export is not None else []
        if not (config.metrics_port or config.otel_metrics or config.cloudwatch_metrics):
            return exporters
        self._telemetry.add_sink(counters.record_event)
        monitor = Monitor(config, self._ledger, broker, counters, self._status, self.queues, time.monotonic)
        if config.cloudwatch_metrics:
            step = partial(monitor.write_emf, partial(print, flush=True), time.time)
            self._services.append(PeriodicService("cloudwatch", step, self._context.outages))
        if config.metrics_port:
            exporters.append(HttpServer(config.metrics_host, config.metrics_port, monitor.build_routes()))
        if config.otel_metrics:
            report = report_outages(partial(self._report_export_outage, "metrics"))
            exporters.append(monitor.open_otel(self.name, report))
        return exporters

    def _heartbeat(self) -> float:
        ttl = min(_HEARTBEAT_TTL, 0.75 * self._config.lease_seconds)
        self._status.send_heartbeat(lambda: self._ledger.heartbeat(self._worker_info(), ttl))
        return _HEARTBEAT_INTERVAL

    def _health(self) -> str:
        """Return "ok", or what fails now, which clusters cannot be used and why launches are paused."""
        circuits = self._context.circuit_breakers.health()
        failing = [*self._context.outages.reasons(), *self._clusters.reasons()]
        return "; ".join([*failing, circuits] if circuits != "ok" else failing) or "ok"

    def _worker_info(self) -> WorkerInfo:
        spot_call_rate = self._metrics.spot_calls.rate()
        return WorkerInfo(
            name=self.name,
            host=socket.gethostname(),
            pid=os.getpid(),
            version=package_version(),
            queues=self.queues,
            concurrency=self._config.concurrency,
            launches_in_progress=self._thread_pool.launching,
            launches_waiting=self._thread_pool.waiting_launches,
            launched_total=self._telemetry.count("launch.started") + self._telemetry.count("launch.assigned"),
            ended_total=self._telemetry.count("request.ended"),
            health=self._health(),
            started_at=self._started_at,
            launch_rate=self._metrics.launches.rate(),
            launch_rates=self._queue_rates.read_launches(),
            end_rates=self._queue_rates.read_ends(),
            start_call_rate=self._metrics.start_calls.rate(),
            start_call_limit=self._config.run_task_rate,
            spot_call_rate=spot_call_rate if spot_call_rate or self._context.launches_on_spot else None,
            read_call_rate=self._metrics.read_calls.rate(),
            read_call_limit=self._config.describe_tasks_rate,
            broker_poll_age=self._metrics.broker_polls.age(),
            describe_age=self._metrics.read_calls.age(),
        )


def _open_clients(config: Config) -> EcsClients:
    return EcsClients(
        ClientOptions(
            connect_timeout=config.connect_timeout_seconds,
            read_timeout=config.read_timeout_seconds,
            max_pool_connections=config.concurrency + 4,
            http_client=config.http_client,
        )
    )
