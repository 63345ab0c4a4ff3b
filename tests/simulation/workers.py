"""A launcher worker as a simulated process: the real services, on simulated threads."""

from __future__ import annotations

import math
import queue
from collections.abc import Callable
from typing import Any

from ecs_queue.broker.base import Broker
from ecs_queue.config import Config
from ecs_queue.core.flow import queue_source
from ecs_queue.core.record import Record
from ecs_queue.ecs.clients import Target
from ecs_queue.ecs.gateway import EcsGateway
from ecs_queue.errors import BrokerUnavailable, LedgerUnavailable
from ecs_queue.launcher.announce import Announcer
from ecs_queue.launcher.circuit import Circuits
from ecs_queue.launcher.consume import Consumer
from ecs_queue.launcher.events import EventReader
from ecs_queue.launcher.gates import Gates
from ecs_queue.launcher.inflight import InFlight
from ecs_queue.launcher.lanes import Lanes
from ecs_queue.launcher.launch import Launcher
from ecs_queue.launcher.pace import EventPace, make_pace
from ecs_queue.launcher.parts import Parts
from ecs_queue.launcher.quota import Quota, Tokens, reserve_of
from ecs_queue.launcher.service import PeriodicService
from ecs_queue.launcher.slots import Slots
from ecs_queue.launcher.suspects import Suspects
from ecs_queue.launcher.sweep import Sweeper
from ecs_queue.launcher.track import Tracker
from ecs_queue.ledger.base import Ledger
from ecs_queue.telemetry import Telemetry
from tests.simulation.events import URL, SimEventQueue, Topic
from tests.simulation.process import Process, Stage
from tests.simulation.scheduler import Scheduler, SimEvent

TARGET = Target("us-east-1", None, None, "jobs")
#: Seconds that a worker lets the calls in hand finish when it is told to stop.
_STOP_BUDGET = 7.0
#: Errors that a worker is to meet: it tries again.
_EXPECTED = tuple(f"{kind.__name__}:" for kind in (LedgerUnavailable, BrokerUnavailable)) + tuple(
    str(kind()) for kind in (LedgerUnavailable, BrokerUnavailable)
)


class SimSlots(Slots):
    """Slots whose threads are jobs."""

    def __init__(self, process: Process, number: int, telemetry: Telemetry, tokens: Tokens, lanes: Lanes) -> None:
        super().__init__(number, telemetry, tokens, lanes)
        self._process = process

    def wait_until_idle(self, timeout: float) -> bool:
        """See `Slots.wait_until_idle`."""
        scheduler = self._process.stage.scheduler
        until = scheduler.now + timeout
        while self.in_hand and scheduler.now < until:
            scheduler.sleep(min(0.1, timeout))
        return not self.in_hand

    def _wake_one(self) -> None:
        if self._threads < self._number:
            self._threads += 1
            self._process.stage.scheduler.spawn(self._process, f"slot{self._threads}", self._work)

    def _work(self) -> None:
        """Where a thread would rest until it is woken, the job ends, and another is spawned."""
        step = self._pick()
        while step != math.inf:
            if isinstance(step, float):
                self._process.stage.scheduler.sleep(step)
            else:
                self._carry_out(step)
            step = self._pick()
        self._threads -= 1


class SimService(PeriodicService):
    """A periodic service whose thread is a job; with nothing to do it rests as `idle` says."""

    def __init__(
        self,
        name: str,
        step: Callable[[], float],
        worker: SimWorker,
        finish: Callable[[], None] | None = None,
    ) -> None:
        super().__init__(name, step, worker.telemetry, finish=finish)
        self._worker = worker
        self._stopping = SimEvent(worker.stage.scheduler, worker.idle)
        self.ended = False

    def start(self) -> None:
        """See `PeriodicService.start`."""
        scheduler = self._worker.stage.scheduler
        scheduler.spawn(self._worker, self._name, self._serve, self._worker.stage.rng.random())

    def _serve(self) -> None:
        self._run()
        self.ended = True


class _Mailbox(queue.SimpleQueue[Record | None]):
    """A queue whose reader waits in simulated time."""

    def __init__(self, scheduler: Scheduler) -> None:
        super().__init__()
        self._something = SimEvent(scheduler)

    def put(self, item: Record | None, block: bool = True, timeout: float | None = None) -> None:
        super().put(item)
        self._something.set()

    def get(self, block: bool = True, timeout: float | None = None) -> Record | None:
        while super().empty():
            self._something.clear()
            self._something.wait()
        return super().get_nowait()


class SimAnnouncer(Announcer):
    """An announcer whose thread is a job."""

    def __init__(self, process: Process, broker: Broker, telemetry: Telemetry) -> None:
        super().__init__(broker, telemetry)
        self._process = process
        self._stopping = SimEvent(process.stage.scheduler)
        self._waiting = _Mailbox(process.stage.scheduler)

    def start(self) -> None:
        """See `Announcer.start`."""
        self._process.stage.scheduler.spawn(self._process, "announcer", self._run)


class SimWorker(Process):
    """One incarnation of a worker. `idle`: how its services rest."""

    def __init__(
        self,
        stage: Stage,
        name: str,
        died: Callable[[Process], None],
        config: Config,
        connect: Callable[[Process], tuple[Ledger, Broker, EcsGateway]],
        idle: Callable[[float], None],
        unexpected: Callable[[str], None],
        topic: Topic | None = None,
    ) -> None:
        super().__init__(stage, name, died)
        self.idle = idle
        self._unexpected = unexpected
        self.telemetry = Telemetry(self._told)
        ledger, broker, gateway = connect(self)
        self._stopping = SimEvent(self.stage.scheduler)
        self._announcer = SimAnnouncer(self, broker, self.telemetry)
        self._tokens = Tokens(ledger, stage.scheduler.clock, self.telemetry)
        self._ids = 0
        parts = self._make_parts(config, ledger, gateway)
        self._slots = SimSlots(
            self, config.concurrency, self.telemetry, self._tokens, Lanes(lambda queue: 1.0, parts.gates)
        )
        parts.gates.when_asked(self._slots.kick)
        launcher = Launcher(parts)
        self._consumer = Consumer(parts, broker, launcher, self._slots, ["default"])
        sweeper = Sweeper(parts, launcher, self._slots, ["default"], self._consumer.idle)
        tracker = Tracker(parts, self._slots, launcher.recover)
        self._consuming = SimService("consumer", lambda: self._consumer.step(), self, self._give_back)
        self._services = [
            self._consuming,
            SimService("tracker", lambda: tracker.step(), self),
            SimService("sweeper", lambda: sweeper.step(), self),
            SimService("gates", lambda: parts.gates.step(), self),
            *self._read_events(parts, tracker, topic),
        ]

    def start(self) -> None:
        """Start every service."""
        self._announcer.start()
        for service in self._services:
            service.start()

    def terminate(self) -> None:
        """SIGTERM: it ends by itself."""
        self.stage.tell(f"{self.name} is told to stop")
        self.stage.scheduler.spawn(self, "stop", self._terminate)

    def _terminate(self) -> None:
        self._stopping.set()
        for service in self._services:
            service.stop()
        until = self.stage.now + _STOP_BUDGET + 2.0
        while not self._consuming.ended and self.stage.now < until:
            self.stage.scheduler.sleep(0.2)
        self._slots.close()
        self._announcer.stop()
        self.stage.scheduler.sleep(0.5)
        self.kill("nothing more, it has stopped")

    def _give_back(self) -> None:
        self._consumer.settle(_STOP_BUDGET)
        self._consumer.close()

    def _read_events(self, parts: Parts, tracker: Tracker, topic: Topic | None) -> list[SimService]:
        pace = parts.pace
        if topic is None or not isinstance(pace, EventPace):
            return []
        source = queue_source(URL)
        readers = [EventReader(parts, tracker.judge, pace, SimEventQueue(self, topic), source) for _ in range(2)]
        services = [SimService("events", reader.step, self) for reader in readers]
        return [*services, SimService("pace", pace.step, self)]

    def _make_parts(self, config: Config, ledger: Ledger, gateway: EcsGateway) -> Parts:
        clock, tokens = self.stage.scheduler.clock, self._tokens
        launch, read = config.run_task_burst, config.describe_tasks_burst
        circuits = Circuits(clock, self.telemetry)
        return Parts(
            config=config,
            worker=self.name,
            ledger=ledger,
            gateway=gateway,
            target_for=lambda queue: TARGET,
            run_quota=Quota(tokens, "run_task", config.run_task_rate, launch, reserve_of(launch)),
            stop_quota=Quota(tokens, "run_task", config.run_task_rate, launch),
            read_quota=Quota(tokens, "describe", config.describe_tasks_rate, read),
            suspects=Suspects(ledger, config.max_deliveries),
            circuits=circuits,
            gates=Gates(ledger, config, circuits, ["default"]),
            in_flight=InFlight(clock),
            pace=make_pace(ledger, config, clock, self.telemetry),
            publish=self._announcer.publish,
            telemetry=self.telemetry,
            monotonic=clock,
            rest=self._stopping.wait,
            new_id=self._new_id,
            rng=self.stage.rng,
        )

    def _new_id(self) -> str:
        self._ids += 1
        return f"{self.name}:{self._ids}"

    def _told(self, event: str, fields: dict[str, Any]) -> None:
        if event == "service.failed" and not fields["reason"].startswith(_EXPECTED):
            self._unexpected(f"{self.name}/{fields['service']}: {fields['reason']}")
        elif self.stage.traced:
            self.stage.tell(f"* {event} {' '.join(f'{key}={value}' for key, value in fields.items())}")
