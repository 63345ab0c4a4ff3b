"""A launcher worker: every service in one process. Start more workers on any machine to launch more."""

from __future__ import annotations

import os
import random
import secrets
import socket
import threading
import time
from collections.abc import Sequence
from functools import partial

from ecs_queue.broker.base import Broker
from ecs_queue.config import Config
from ecs_queue.config.keyring import open_keyring
from ecs_queue.ecs.clients import ClientOptions, EcsClients
from ecs_queue.ecs.gateway import BotoEcsGateway, EcsGateway
from ecs_queue.journal import JournalRecorder, JournalStore
from ecs_queue.ledger.base import Ledger, WorkerInfo
from ecs_queue.messages.queue_names import canonical_queue_name
from ecs_queue.telemetry import Telemetry
from ecs_queue.version import package_version
from ecs_queue.worker.consumer import Consumer
from ecs_queue.worker.context import WorkerContext
from ecs_queue.worker.event_listener import build_event_services
from ecs_queue.worker.fair_queue import FairQueue
from ecs_queue.worker.launcher import Launcher
from ecs_queue.worker.metrics import MeteredGateway, WorkerMetrics
from ecs_queue.worker.poller import Poller
from ecs_queue.worker.result_publisher import ResultPublisher
from ecs_queue.worker.service import PeriodicService, Service
from ecs_queue.worker.sweeper import Sweeper
from ecs_queue.worker.thread_pool import LaunchThreadPool

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
        self._recorder = (
            None
            if journal is None
            else JournalRecorder(journal, telemetry, self.name, yield_interval=_JOURNAL_YIELD_INTERVAL)
        )
        self._ledger = ledger
        self._stopping = threading.Event()
        self._started_at = 0.0
        clients = EcsClients(
            ClientOptions(
                connect_timeout=config.connect_timeout_seconds,
                read_timeout=config.read_timeout_seconds,
                max_pool_connections=config.concurrency + 4,
            )
        )
        self._result_publisher = ResultPublisher(broker, telemetry, keyring=open_keyring(config))
        self._metrics = WorkerMetrics(time.monotonic)
        context = self._context = self._build_context(gateway or BotoEcsGateway(clients, time.monotonic), clients)
        fair_queue = FairQueue(lambda queue: config.profile(queue).weight, context.admission)
        pool = self._thread_pool = LaunchThreadPool(config.concurrency, telemetry, context.token_cache, fair_queue)
        context.admission.on_refresh(pool.wake)
        launcher = Launcher(context)
        self._consumer = Consumer(context, broker, launcher, pool)
        sweeper = Sweeper(context, launcher, pool, self._consumer.is_drained)
        poller = Poller(context, pool, launcher.recover)
        poll_broker = self._metrics.count_broker_polls(self._consumer.step)
        shut_down = partial(self._consumer.shut_down, STOP_TIMEOUT - 2)
        self._consumer_service = PeriodicService("consumer", poll_broker, telemetry, finish=shut_down)
        self._services: list[Service] = [
            PeriodicService("poller", poller.step, telemetry),
            PeriodicService("sweeper", sweeper.step, telemetry),
            PeriodicService("admission", context.admission.step, telemetry),
            PeriodicService("heartbeat", self._heartbeat, telemetry),
            *build_event_services(context, poller.reconciler, clients),
        ]

    def check(self) -> None:
        """Check the queues' profiles, their clusters and the ledger's server; findings are reported as health.

        Raises:
            ConfigError: the profile of a queue cannot launch anything.
        """
        for queue in self.queues:
            profile = self._config.profile(queue)
            profile.require_launchable()
            target = self._context.target_for(queue)
            if profile.check_health_on_startup:
                for finding in self._context.gateway.check_cluster(target):
                    self._telemetry.emit("health.degraded", queue=queue, reason=finding)
        for finding in self._ledger.check_server():
            self._telemetry.emit("health.degraded", queue="*", reason=finding)

    def start(self) -> None:
        """Start every service; returns at once."""
        self._started_at = self._ledger.now()
        if self._recorder is not None:
            self._recorder.start()
        for service in (self._result_publisher, *self._services, self._consumer_service):
            service.start()
        self._telemetry.emit("worker.started", worker=self.name, queues=", ".join(self.queues))

    def stop(self) -> None:
        """Begin to stop: calls in progress are finished, other messages are requeued. Returns at once."""
        if not self._stopping.is_set():
            self._telemetry.emit("worker.stopping", worker=self.name, outstanding=self._thread_pool.outstanding)
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
        self._telemetry.emit("worker.stopped", worker=self.name)
        if self._recorder is not None:  # last: it writes the events of all the others
            self._recorder.stop()
            ended = self._recorder.join(max(_JOURNAL_STOP_TIMEOUT, deadline - time.monotonic())) and ended
        return ended

    def _build_context(self, gateway: EcsGateway, clients: EcsClients) -> WorkerContext:
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
            new_id=lambda: secrets.token_hex(8),
            rng=random.Random(),
        )

    def _heartbeat(self) -> float:
        self._ledger.heartbeat(self._worker_info(), min(_HEARTBEAT_TTL, 0.75 * self._config.lease_seconds))
        return _HEARTBEAT_INTERVAL

    def _worker_info(self) -> WorkerInfo:
        return WorkerInfo(
            name=self.name,
            host=socket.gethostname(),
            pid=os.getpid(),
            version=package_version(),
            queues=self.queues,
            concurrency=self._config.concurrency,
            launches_in_progress=self._thread_pool.outstanding,
            launched_total=self._telemetry.count("launch.started"),
            ended_total=self._telemetry.count("request.ended"),
            health=self._context.circuit_breakers.health(),
            started_at=self._started_at,
            launch_rate=self._metrics.launches.rate(),
            start_call_rate=self._metrics.start_calls.rate(),
            start_call_limit=self._config.run_task_rate,
            read_call_rate=self._metrics.read_calls.rate(),
            read_call_limit=self._config.describe_tasks_rate,
            broker_poll_age=self._metrics.broker_polls.age(),
            describe_age=self._metrics.read_calls.age(),
        )
