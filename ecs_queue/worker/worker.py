"""A launcher worker: every service in one process. Start more of them, anywhere, to launch more."""

from __future__ import annotations

import os
import random
import secrets
import socket
import threading
import time
from collections.abc import Sequence

from ecs_queue.broker.base import Broker
from ecs_queue.config import Config
from ecs_queue.config.keyring import open_keyring
from ecs_queue.ecs.clients import ClientOptions, EcsClients, Target
from ecs_queue.ecs.gateway import BotoEcsGateway, EcsGateway
from ecs_queue.journal import JournalRecorder, JournalStore
from ecs_queue.ledger.base import Ledger, WorkerInfo
from ecs_queue.telemetry import Telemetry
from ecs_queue.version import package_version
from ecs_queue.worker.admission import Admission
from ecs_queue.worker.circuit_breaker import CircuitBreakers
from ecs_queue.worker.consumer import Consumer
from ecs_queue.worker.context import WorkerContext
from ecs_queue.worker.event_listener import build_event_services
from ecs_queue.worker.fair_queue import FairQueue
from ecs_queue.worker.in_flight import InFlightTasks
from ecs_queue.worker.launcher import Launcher
from ecs_queue.worker.metrics import MeteredGateway, WorkerMetrics
from ecs_queue.worker.poison import PoisonGuard
from ecs_queue.worker.poll_schedule import build_poll_schedule
from ecs_queue.worker.poller import Poller
from ecs_queue.worker.rate_limiter import RateLimiter, TokenCache, stop_task_reserve
from ecs_queue.worker.result_publisher import ResultPublisher
from ecs_queue.worker.service import PeriodicService, Service
from ecs_queue.worker.sweeper import Sweeper
from ecs_queue.worker.thread_pool import LaunchThreadPool

_HEARTBEAT_INTERVAL = 2.0
#: How long a worker counts as alive after its last word, at most; below the lease, for who takes a record over asks.
_HEARTBEAT_TTL = 15.0
#: What a stop may take: the calls in hand end, what was not started is given back. Seconds.
STOP_TIMEOUT = 8.0
#: After so long the journal's writer lets launches go first: to change threads takes longer than an event. Seconds.
_JOURNAL_YIELD_INTERVAL = 0.001
#: Tokens to launch are fetched for slots that are free. Not used at once they have lost their launches, to a pause say,
#: and meanwhile their bucket may have filled up to a whole burst. Seconds.
_LAUNCH_TOKEN_TTL = 0.25
#: What the last events may take at least to be written. Seconds.
_JOURNAL_STOP_TIMEOUT = 0.2


class Worker:
    """Owns its threads, not its broker and ledger. `start`, then `stop` (idempotent, from anywhere), then `join`."""

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
        """`journal`: where it is written, none without."""
        self._config = config
        self.name = name or f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(2)}"
        self.queues = list(queues)
        self._telemetry = telemetry or Telemetry()
        self._recorder = (
            None
            if journal is None
            else JournalRecorder(journal, self._telemetry, self.name, yield_interval=_JOURNAL_YIELD_INTERVAL)
        )
        self._ledger = ledger
        self._stopping = threading.Event()
        self._started_at = 0.0
        self._version = package_version()
        self._clients = EcsClients(
            ClientOptions(
                connect_timeout=config.connect_timeout_seconds,
                read_timeout=config.read_timeout_seconds,
                max_pool_connections=config.concurrency + 4,
            )
        )
        self._result_publisher = ResultPublisher(broker, self._telemetry, keyring=open_keyring(config))
        self._token_cache = TokenCache(ledger, time.monotonic, self._telemetry)
        self._metrics = WorkerMetrics(time.monotonic)
        self._context = self._build_context(gateway or BotoEcsGateway(self._clients, time.monotonic))
        gates = self._context.admission
        lanes = FairQueue(lambda queue: config.profile(queue).weight, gates)
        self._thread_pool = LaunchThreadPool(config.concurrency, self._telemetry, self._token_cache, lanes)
        gates.on_refresh(self._thread_pool.wake)
        launcher = Launcher(self._context)
        self._consumer = Consumer(self._context, broker, launcher, self._thread_pool, self.queues)
        sweeper = Sweeper(self._context, launcher, self._thread_pool, self.queues, self._consumer.is_drained)
        tracker = Poller(self._context, self._thread_pool, launcher.recover)
        polling = self._metrics.count_broker_polls(self._consumer.step)
        self._consumer_service = PeriodicService("consumer", polling, self._telemetry, finish=self._shut_down_consumer)
        self._services: list[Service] = [
            PeriodicService("poller", tracker.step, self._telemetry),
            PeriodicService("sweeper", sweeper.step, self._telemetry),
            PeriodicService("admission", gates.step, self._telemetry),
            PeriodicService("heartbeat", self._heartbeat, self._telemetry),
            *build_event_services(self._context, tracker.reconciler, self._clients, self.queues),
        ]

    def check(self) -> None:
        """ConfigError when a queue's profile cannot launch anything; findings of AWS are told as health."""
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
        self._result_publisher.start()
        for service in self._services:
            service.start()
        self._consumer_service.start()
        self._telemetry.emit("worker.started", worker=self.name, queues=", ".join(self.queues))

    def stop(self) -> None:
        """Ask for the end: the calls in hand are finished, the rest is given back. Returns at once."""
        if not self._stopping.is_set():
            self._telemetry.emit("worker.stopping", worker=self.name, outstanding=self._thread_pool.outstanding)
        self._stopping.set()
        self._consumer_service.stop()
        for service in self._services:
            service.stop()  # or they would go on starting launches while the calls in hand come to their end

    def join(self, timeout: float = STOP_TIMEOUT) -> bool:
        """Wait for the end after `stop`; False when something still ran after `timeout` seconds."""
        deadline = time.monotonic() + timeout
        self._stopping.wait()
        ended = self._consumer_service.join(timeout)
        self._thread_pool.close()
        ended = not self._thread_pool.outstanding and ended  # who gave up on a call has not ended in order
        for service in self._services:
            ended = service.join(max(0.1, deadline - time.monotonic())) and ended
        self._result_publisher.stop()
        ended = self._result_publisher.join(max(0.5, deadline - time.monotonic())) and ended
        self._telemetry.emit("worker.stopped", worker=self.name)
        if self._recorder is not None:  # last: it writes what all the others had to tell
            self._recorder.stop()
            ended = self._recorder.join(max(_JOURNAL_STOP_TIMEOUT, deadline - time.monotonic())) and ended
        return ended

    def _shut_down_consumer(self) -> None:
        """On the consumer's thread, at the end: let the calls in hand finish, give the rest back."""
        self._consumer.shut_down(STOP_TIMEOUT - 2)
        self._consumer.close()

    def _build_context(self, gateway: EcsGateway) -> WorkerContext:
        config, ledger, tokens = self._config, self._ledger, self._token_cache
        launch, read = config.run_task_burst, config.describe_tasks_burst
        circuits = CircuitBreakers(time.monotonic, self._telemetry)
        return WorkerContext(
            config=config,
            worker_name=self.name,
            ledger=ledger,
            gateway=MeteredGateway(gateway, self._metrics),
            target_for=self._target_for,
            run_task_limiter=RateLimiter(
                tokens, "run_task", config.run_task_rate, launch, stop_task_reserve(launch), _LAUNCH_TOKEN_TTL
            ),
            stop_task_limiter=RateLimiter(tokens, "run_task", config.run_task_rate, launch),
            read_limiter=RateLimiter(tokens, "describe_tasks", config.describe_tasks_rate, read),
            poison_guard=PoisonGuard(ledger, config.max_deliveries),
            circuit_breakers=circuits,
            admission=Admission(ledger, config, circuits, self.queues),
            in_flight=InFlightTasks(time.monotonic),
            poll_schedule=build_poll_schedule(ledger, config, time.monotonic, self._telemetry),
            publish_result=self._result_publisher.publish,
            telemetry=self._telemetry,
            monotonic=time.monotonic,
            wait_for_stop=self._stopping.wait,
            new_id=lambda: secrets.token_hex(8),
            rng=random.Random(),
        )

    def _target_for(self, queue: str) -> Target:
        return self._clients.target_for(self._config.profile(queue))

    def _heartbeat(self) -> float:
        self._ledger.heartbeat(self._worker_info(), min(_HEARTBEAT_TTL, 0.75 * self._config.lease_seconds))
        return _HEARTBEAT_INTERVAL

    def _worker_info(self) -> WorkerInfo:
        return WorkerInfo(
            name=self.name,
            host=socket.gethostname(),
            pid=os.getpid(),
            version=self._version,
            queues=self.queues,
            concurrency=self._config.concurrency,
            launches_in_progress=self._thread_pool.outstanding,
            tasks_followed=len(self._context.in_flight),
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
