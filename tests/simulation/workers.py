"""A worker as a simulated process: the real services on simulated threads."""

from __future__ import annotations

import math
import queue
from collections.abc import Callable
from typing import Any

from ecs_queue.broker.base import Broker
from ecs_queue.config import Config
from ecs_queue.ecs.clients import Target
from ecs_queue.ecs.gateway import EcsGateway
from ecs_queue.errors import BrokerUnavailable, LedgerUnavailable
from ecs_queue.ledger.base import Ledger
from ecs_queue.protocol.event_health import queue_source
from ecs_queue.protocol.record import Record
from ecs_queue.telemetry import Telemetry
from ecs_queue.worker.consumer import Consumer
from ecs_queue.worker.context import WorkerContext
from ecs_queue.worker.ended_runners import EndedRunners
from ecs_queue.worker.event_listener import EventListener
from ecs_queue.worker.fair_queue import FairQueue
from ecs_queue.worker.launcher import Launcher
from ecs_queue.worker.outages import Outages
from ecs_queue.worker.poll_schedule import EventAwareSchedule
from ecs_queue.worker.poller import Poller
from ecs_queue.worker.rate_limiter import TokenCache
from ecs_queue.worker.result_publisher import ResultPublisher
from ecs_queue.worker.service import PeriodicService
from ecs_queue.worker.silent_runners import SilentRunners
from ecs_queue.worker.sweeper import Sweeper
from ecs_queue.worker.thread_pool import LaunchThreadPool
from tests.simulation.events import EVENT_QUEUE_URL, SimEventQueue, SimEventQueueServer
from tests.simulation.gateway import WRONG_CLUSTER
from tests.simulation.process import SimProcess, SimulationContext
from tests.simulation.scheduler import SimEvent, SimScheduler

TARGET = Target("us-east-1", None, None, "jobs")
WRONG_TARGET = Target("us-east-1", None, None, WRONG_CLUSTER)
#: Seconds that calls in progress get when a worker stops.
_STOP_BUDGET = 7.0
#: Errors that a worker must expect; it retries.
_EXPECTED_ERRORS = tuple(f"{kind.__name__}:" for kind in (LedgerUnavailable, BrokerUnavailable)) + tuple(
    str(kind()) for kind in (LedgerUnavailable, BrokerUnavailable)
)


class SimThreadPool(LaunchThreadPool):
    """A thread pool of simulated threads."""

    def __init__(
        self, process: SimProcess, size: int, outages: Outages, token_cache: TokenCache, fair_queue: FairQueue
    ) -> None:
        super().__init__(size, outages, token_cache, fair_queue)
        self._process = process

    def wait_until_idle(self, timeout: float) -> bool:
        """See `LaunchThreadPool.wait_until_idle`."""
        scheduler = self._process.context.scheduler
        deadline = scheduler.now + timeout
        while self.outstanding and scheduler.now < deadline:
            scheduler.sleep(min(0.1, timeout))
        return not self.outstanding

    def _wake_one(self) -> None:
        if self._threads < self._size:
            self._threads += 1
            self._process.context.scheduler.spawn(self._process, f"launch{self._threads}", self._run_thread)

    def _run_thread(self) -> None:
        """Work until nothing is left; where a real thread would wait, this one ends and another is spawned."""
        next_step = self._next_work()
        while next_step != math.inf:
            if isinstance(next_step, float):
                self._process.context.scheduler.sleep(next_step)
            else:
                self._perform(next_step)
            next_step = self._next_work()
        self._threads -= 1


class SimPeriodicService(PeriodicService):
    """A periodic service on a simulated thread. Without work it waits by the worker's `idle`."""

    def __init__(
        self,
        name: str,
        step: Callable[[], float],
        worker: SimWorker,
        finish: Callable[[], None] | None = None,
    ) -> None:
        super().__init__(name, step, worker.outages, finish=finish)
        self._worker = worker
        self._stopping = SimEvent(worker.context.scheduler, worker.idle)
        self.has_ended = False

    def start(self) -> None:
        """See `PeriodicService.start`."""
        scheduler = self._worker.context.scheduler
        scheduler.spawn(self._worker, self._name, self._serve, self._worker.context.rng.random())

    def _serve(self) -> None:
        self._run()
        self.has_ended = True


class _SimQueue(queue.SimpleQueue[Record | None]):
    """A queue whose listener waits in simulated time."""

    def __init__(self, scheduler: SimScheduler) -> None:
        super().__init__()
        self._not_empty = SimEvent(scheduler)

    def put(self, item: Record | None, block: bool = True, timeout: float | None = None) -> None:
        super().put(item)
        self._not_empty.set()

    def get(self, block: bool = True, timeout: float | None = None) -> Record | None:
        while super().empty():
            self._not_empty.clear()
            self._not_empty.wait()
        return super().get_nowait()


class SimResultPublisher(ResultPublisher):
    """A result publisher on a simulated thread."""

    def __init__(self, process: SimProcess, broker: Broker, telemetry: Telemetry) -> None:
        super().__init__(broker, telemetry)
        self._process = process
        self._stopping = SimEvent(process.context.scheduler)
        self._pending = _SimQueue(process.context.scheduler)

    def start(self) -> None:
        """See `ResultPublisher.start`."""
        self._process.context.scheduler.spawn(self._process, "result-publisher", self._run)


class SimWorker(SimProcess):
    """One run of a worker. Its services wait by `idle`."""

    def __init__(
        self,
        context: SimulationContext,
        name: str,
        on_death: Callable[[SimProcess], None],
        config: Config,
        connect: Callable[[SimProcess], tuple[Ledger, Broker, EcsGateway]],
        idle: Callable[[float], None],
        report_violation: Callable[[str], None],
        event_server: SimEventQueueServer | None = None,
        on_reported: Callable[[Record], None] = lambda record: None,
    ) -> None:
        super().__init__(context, name, on_death)
        self.idle = idle
        self._on_reported = on_reported
        self._report_violation = report_violation
        self.telemetry = Telemetry(self._on_event)
        self.outages = Outages(self.telemetry, context.scheduler.clock)
        ledger, broker, gateway = connect(self)
        self._stopping = SimEvent(self.context.scheduler)
        self._result_publisher = SimResultPublisher(self, broker, self.telemetry)
        self._ids = 0
        self._has_wrong_profile = context.happens(context.faults.wrong_profile)
        worker_context = WorkerContext(
            config=config,
            worker_name=self.name,
            queues=[profile.queue for profile in config.profiles()],
            ledger=ledger,
            gateway=gateway,
            target_for=self._target_for,
            publish_result=self._publish_result,
            telemetry=self.telemetry,
            monotonic=context.scheduler.clock,
            wait_for_stop=self._stopping.wait,
            new_id=self._new_id,
            rng=context.rng,
        )
        admission = worker_context.admission
        fair_queue = FairQueue(lambda queue: 1.0, admission)
        self._thread_pool = SimThreadPool(
            self, config.concurrency, self.outages, worker_context.token_cache, fair_queue
        )
        admission.on_refresh(self._thread_pool.wake)
        launcher = Launcher(worker_context)
        self._consumer = Consumer(worker_context, broker, launcher, self._thread_pool)
        sweeper = Sweeper(worker_context, launcher, self._thread_pool, self._consumer.is_drained)
        poller = Poller(worker_context, self._thread_pool, launcher.recover)
        self._consumer_service = SimPeriodicService(
            "consumer", lambda: self._consumer.step(), self, self._release_messages
        )
        self._services = [
            self._consumer_service,
            SimPeriodicService("poller", lambda: poller.step(), self, finish=poller.give_back),
            SimPeriodicService("sweeper", lambda: sweeper.step(), self),
            SimPeriodicService("admission", lambda: admission.step(), self),
            *self._event_services(worker_context, poller, event_server),
            *self._runner_services(worker_context, poller),
        ]

    def start(self) -> None:
        """Start every service."""
        self._result_publisher.start()
        for service in self._services:
            service.start()

    def terminate(self) -> None:
        """Send SIGTERM: the worker stops by itself."""
        self.context.trace(f"{self.name} gets SIGTERM")
        self.context.scheduler.spawn(self, "stop", self._terminate)

    def _terminate(self) -> None:
        self._stopping.set()
        for service in self._services:
            service.stop()
        deadline = self.context.now + _STOP_BUDGET + 2.0
        while not self._consumer_service.has_ended and self.context.now < deadline:
            self.context.scheduler.sleep(0.2)
        self._thread_pool.close()
        self._result_publisher.stop()
        self.context.scheduler.sleep(0.5)
        self.kill("nothing: it has stopped")

    def _release_messages(self) -> None:
        self._consumer.shut_down(_STOP_BUDGET)

    def _event_services(
        self, worker_context: WorkerContext, poller: Poller, event_server: SimEventQueueServer | None
    ) -> list[SimPeriodicService]:
        schedule = worker_context.poll_schedule
        if event_server is None or not isinstance(schedule, EventAwareSchedule):
            return []
        source = queue_source(EVENT_QUEUE_URL)
        listeners = [
            EventListener(worker_context, poller.reconciler, schedule, SimEventQueue(self, event_server), source)
            for _ in range(2)
        ]
        services = [SimPeriodicService("event-listener", listener.step, self) for listener in listeners]
        return [*services, SimPeriodicService("poll-schedule", schedule.step, self)]

    def _runner_services(self, worker_context: WorkerContext, poller: Poller) -> list[SimPeriodicService]:
        if not any(map(worker_context.is_warm, worker_context.queues)):
            return []
        silent_runners, ended_runners = SilentRunners(worker_context), EndedRunners(worker_context)
        return [
            SimPeriodicService("run-settler", lambda: poller.run_settler.step(), self),
            SimPeriodicService("silent-runners", lambda: silent_runners.step(), self),
            SimPeriodicService("ended-runners", lambda: ended_runners.step(), self),
        ]

    def _publish_result(self, record: Record) -> None:
        self._on_reported(record)
        self._result_publisher.publish(record)

    def _target_for(self, queue: str) -> Target:
        """The target of the worker's profile, which is mended when the faults end."""
        return WRONG_TARGET if self._has_wrong_profile and self.context.faults.wrong_profile else TARGET

    def _new_id(self) -> str:
        self._ids += 1
        return f"{self.name}:{self._ids}"

    def _on_event(self, event: str, fields: dict[str, Any]) -> None:
        if event in ("service.failed", "service.retried") and not fields["reason"].startswith(_EXPECTED_ERRORS):
            self._report_violation(f"{self.name}/{fields['service']}: {fields['reason']}")
        elif self.context.is_traced:
            self.context.trace(f"* {event} {' '.join(f'{key}={value}' for key, value in fields.items())}")
