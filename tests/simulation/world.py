"""One simulation: what it is made of, what happens to it, and when it is over."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cache, partial
from typing import Any
from unittest.mock import patch

import ecs_queue.launcher.consume
import ecs_queue.waiting
from ecs_queue.broker.base import Broker
from ecs_queue.config import Config, load_config
from ecs_queue.core.protocol import Rules
from ecs_queue.ecs.gateway import EcsGateway
from ecs_queue.ledger.base import Ledger
from ecs_queue.ledger.retention import Retention
from tests.simulation import events as told
from tests.simulation import faults as faulty
from tests.simulation.broker import SimBroker, Wire
from tests.simulation.ecs import ModelEcs, Task
from tests.simulation.gateway import SimGateway
from tests.simulation.ledger import SimLedger, TrueLedger
from tests.simulation.monitor import Monitor
from tests.simulation.owners import Owner, SimClient, Wish
from tests.simulation.process import Line, Process, Stage
from tests.simulation.scheduler import SimTime
from tests.simulation.workers import SimWorker

#: What one simulation may take. Nearly all seeds need less than a tenth of either.
MOST_STEPS = 400_000
MOST_SECONDS = 43_200.0
_ENVIRON = {
    "AIRFLOW__ECS_QUEUE__BROKER_URL": "memory://",
    "AIRFLOW__ECS_QUEUE__CONCURRENCY": "4",
    "AIRFLOW__ECS_QUEUE__LAUNCH_DEADLINE": "7200",
    "AIRFLOW__AWS_ECS_EXECUTOR__CLUSTER": "jobs",
    "AIRFLOW__AWS_ECS_EXECUTOR__REGION_NAME": "us-east-1",
    "AIRFLOW__AWS_ECS_EXECUTOR__CONTAINER_NAME": "main",
    "AIRFLOW__AWS_ECS_EXECUTOR__LAUNCH_TYPE": "FARGATE",
    "AIRFLOW__AWS_ECS_EXECUTOR__SUBNETS": "subnet-1",
    "AIRFLOW__AWS_ECS_EXECUTOR__MAX_RUN_TASK_ATTEMPTS": "3",
}

#: What the simulations differ in besides their faults.
_SETTINGS = {
    "run_task_rate": ("0", "1", "20"),
    "run_task_burst": ("1", "20"),
    "accept_seconds": ("86400", "86400", "1200"),
    "retention_seconds": ("86400", "60"),
    "max_in_flight": ("0", "0", "2"),
    "startup_allowance": ("0", "0", "5"),
    "queue_limit": ("0", "0", "1"),
}


@dataclass(frozen=True)
class Report:
    """How one seed went. `findings`: what must not have happened; `lines`: the history, if it was kept."""

    seed: int
    findings: list[str]
    lines: list[Line]
    steps: int
    seconds: float
    met: Counter[str]


def simulate(
    seed: int, *, traced: bool = False, mix: faulty.Faults | None = None, most_steps: int = MOST_STEPS
) -> Report:
    """Run one seed; `mix` instead of the seed's own faults. The same seed gives the same report."""
    lines: list[Line] | None = [] if traced else None
    stage = Stage(seed, faulty.Faults(), lines)
    stage.faults = faulty.draw(stage.rng) if mix is None else mix
    event_faults = told.draw(seed) if mix is None else None
    with _simulated_time(stage):
        world = World(stage, event_faults)
        world.run(most_steps)
    return Report(
        seed,
        world.monitor.findings + stage.crashes,
        lines or [],
        stage.scheduler.steps,
        stage.now - world.began,
        world.monitor.met,
    )


@cache
def configuration(task_definition: str, settings: tuple[str, ...], event_queue_url: str = "") -> Config:
    """Workers of one simulation may differ in their task definition: a new one is being rolled out."""
    overrides = {**dict(zip(_SETTINGS, settings, strict=True)), "event_queue_url": event_queue_url}
    # Here no worker is heard of, so that one that has only lost an answer counts as dead, too.
    overrides["max_deliveries"] = "3" if overrides["max_in_flight"] == "2" else "1000"
    limit = overrides.pop("queue_limit")
    profile = {"TASK_DEFINITION": task_definition, "MAX_IN_FLIGHT": limit}
    environ = {**_ENVIRON, **{f"AIRFLOW__AWS_ECS_EXECUTOR__{key}": value for key, value in profile.items()}}
    return load_config(environ=environ, overrides=overrides)


class World:
    """`run` it once. `event_faults` None: ECS's events are not used."""

    def __init__(self, stage: Stage, event_faults: told.EventFaults | None = None) -> None:
        self._stage = stage
        self._topic = None if event_faults is None else told.Topic(stage, event_faults)
        rng = stage.rng
        settings = tuple(rng.choice(values) for values in _SETTINGS.values())
        url = told.URL if self._topic else ""
        self._configs = [configuration(f"family:{number}", settings, url) for number in (1, 2)]
        config = self._configs[0]
        self.monitor = Monitor(stage, config)
        self.ledger = TrueLedger(stage, _rules(config), Retention(seconds=config.retention_seconds))
        self.ledger.queue_limit = config.base_profile.max_in_flight
        self.ecs = ModelEcs(stage.scheduler, rng, stage.present_faults, self._task_created, self._task_changed)
        self.monitor.watch(self.ledger, self.ecs)
        self._wire = Wire(stage)
        self.began = stage.now
        self._healed = False
        self._faults_end = rng.choice((60.0, 300.0, 900.0)) * rng.uniform(0.5, 1.5)
        if rng.random() < 0.08:
            self._faults_end = rng.uniform(3000.0, 8000.0)
        self._workers: dict[str, SimWorker] = {}
        self._clients: dict[str, SimClient] = {}
        self._incarnations: Counter[str] = Counter()
        self._owners = [self._new_owner(number) for number in range(rng.choice((1, 1, 2)))]

    def run(self, most_steps: int) -> None:
        """From the beginning to the end, or to the first finding."""
        scheduler, rng = self._stage.scheduler, self._stage.rng
        self._stage.tell(f"faults: {self._stage.faults}")
        for number in range(rng.choice((2, 3))):
            self._new_worker(f"w{number}")
        for owner in self._owners:
            self._new_client(owner)
        self._wire.post(self._wire.queues.requests, "default", b"\xff this is no envelope")
        if rng.random() < 0.3:
            scheduler.after(rng.uniform(0.0, self._faults_end), self._pause)
        for _ in range(rng.choice((0, 1, 3))):
            scheduler.after(rng.uniform(0.0, self._faults_end), self._disturb)
        scheduler.after(self._faults_end, self._heal)
        scheduler.run(self._is_over, most_steps)
        if not self.monitor.findings and not self._stage.crashes:
            if not self._is_complete():
                self.monitor.found(f"not over after {scheduler.steps} steps and {self._stage.now - self.began:.0f} s")
            self.monitor.finish(self._owners)
        scheduler.close()

    def _is_over(self) -> bool:
        if self.monitor.findings or self._stage.crashes:
            return True
        return self._healed and (self._is_complete() or self._stage.now - self.began > MOST_SECONDS)

    def _is_complete(self) -> bool:
        if self.ledger.look_at or any(not message.gone for message in self._wire.queues.requests):
            return False
        return all(owner.done or owner.abandoned for owner in self._owners) and not any(
            task.alive for task in self.ecs.tasks.values()
        )

    # Who there is.

    def _new_worker(self, name: str) -> None:
        self._incarnations[name] += 1
        worker = SimWorker(
            self._stage,
            f"{name}.{self._incarnations[name]}",
            partial(self._worker_died, name),
            self._stage.rng.choice(self._configs),
            self._connect_worker,
            self._idle,
            self.monitor.found,
            self._topic,
        )
        self._workers[name] = worker
        worker.start()

    def _connect_worker(self, process: Process) -> tuple[Ledger, Broker, EcsGateway]:
        return *self._connect(process), SimGateway(process, self.ecs)

    def _connect(self, process: Process) -> tuple[Ledger, Broker]:
        ledger: Any = SimLedger(process, self.ledger, self._fail_over, self._ledger_changed)
        return ledger, SimBroker(process, self._wire)

    def _worker_died(self, name: str, _process: Process) -> None:
        away = 0.5 if self._healed else self._stage.rng.choice((1.0, 20.0, 100.0)) * self._stage.rng.uniform(0.5, 2)
        self._stage.scheduler.after(away, partial(self._new_worker, name))

    def _new_client(self, owner: Owner) -> None:
        self._incarnations[owner.name] += 1
        client = SimClient(
            self._stage,
            f"{owner.name}.{self._incarnations[owner.name]}",
            partial(self._client_died, owner),
            owner,
            self._configs[0],
            self._connect,
            self.monitor.found,
        )
        self._clients[owner.name] = client
        client.start()

    def _client_died(self, owner: Owner, _process: Process) -> None:
        rng = self._stage.rng
        if not self._healed and rng.random() < 0.3:
            owner.abandoned = True
            if not owner.heir_of and rng.random() < 0.5:
                self._stage.scheduler.after(rng.uniform(1.0, 60.0), partial(self._inherit, owner))
            return
        if not owner.done or owner.stops_left:
            away = rng.choice((1.0, 30.0)) * rng.uniform(0.5, 2.0)
            self._stage.scheduler.after(away, partial(self._new_client, owner))

    def _inherit(self, dead: Owner) -> None:
        wishes = [Wish(wish.line, 0.0, accepted=True, nonce=wish.nonce) for wish in dead.wishes if wish.accepted]
        if wishes:
            heir = Owner(f"heir-of-{dead.name}", wishes, heir_of=dead.name)
            self._owners.append(heir)
            self._new_client(heir)

    def _new_owner(self, number: int) -> Owner:
        rng = self._stage.rng
        wishes = []
        for index in range(rng.choice((1, 2, 3, 4))):
            submit_at = self.began + rng.choice((0.0, 1.0, 0.5 * self._faults_end)) * rng.random()
            line: dict[str, Any] = {"id": f"r{number}-{index}", "command": ["true"]}
            line["relaunch"] = rng.choice(("never_started", "interrupted", "any_failure"))
            if rng.random() < 0.2:
                line["expires_in"] = rng.choice((30.0, 300.0, 2400.0)) * rng.uniform(0.5, 2.0)
            if rng.random() < 0.15:
                line["time_limit"] = rng.uniform(5.0, 60.0)
            stop_at = submit_at + rng.choice((-2.0, 1.0, 10.0, 100.0, 1000.0)) * rng.random()
            wishes.append(Wish(line, submit_at, stop_at if rng.random() < 0.25 else 0.0))
        return Owner(f"c{number}", wishes, clock_is_off_by=rng.choice((0.0, rng.uniform(-200.0, 200.0))))

    # What happens.

    def _disturb(self) -> None:
        """Something that lasts for a while, or strikes all at once."""
        if self._healed:
            return
        rng = self._stage.rng
        workers = list(self._workers.values())
        victim = rng.choice([*workers, *self._clients.values()])
        kind = rng.choice(("ledger", "ecs", "freeze", "kill", "terminate", "terminate"))
        if self._stage.chance(self._stage.faults.lasting):
            kind = "outage"
        if kind in ("ledger", "ecs"):
            self._cut_off(victim, kind, rng.choice((5.0, 60.0, 700.0)) * rng.uniform(0.5, 2.0))
        elif kind == "freeze":
            victim.freeze(rng.choice((10.0, 60.0, 700.0)) * rng.uniform(0.5, 2.0), "anything")
        elif kind == "kill" and not victim.dead:
            victim.kill("anything")
        elif kind == "terminate":
            worker = rng.choice(workers)
            if not worker.dead:
                worker.terminate()
        elif kind == "outage":
            for worker in workers:
                worker.freeze(rng.choice((1000.0, 4000.0)) * rng.uniform(0.5, 1.3), "an outage")

    def _pause(self) -> None:
        """Somebody pauses the queue for a while; what has been claimed goes on."""
        self._stage.tell("the queue is PAUSED")
        self.ledger.pause(["default"])
        self.monitor.paused = True
        self._stage.scheduler.after(self._stage.rng.choice((5.0, 60.0, 1000.0)), self._resume)

    def _resume(self) -> None:
        self._stage.tell("the queue is resumed")
        self.ledger.resume(["default"])
        self.monitor.paused = False
        self._stage.scheduler.rouse()

    def _cut_off(self, process: Process, what: str, seconds: float) -> None:
        self._stage.tell(f"{process.name} does not reach {what} for {seconds:.0f} s")
        process.cut_off.add(what)
        self._stage.scheduler.after(seconds, lambda: process.cut_off.discard(what))

    def _fail_over(self) -> None:
        if self.ledger.remembers:
            self._stage.tell("the ledger FAILS OVER and forgets what was not yet durable")
            self.ledger.fail_over()
            self.monitor.fail_over()
            self._stage.scheduler.rouse(self.ledger.next_due())

    def _heal(self) -> None:
        """No more faults: now everything must come to its end."""
        self._stage.tell("all faults are over")
        self._healed = True
        self._stage.faults = faulty.healed(self._stage.faults)
        if self._topic is not None:
            self._topic.heal()
        for process in [*self._workers.values(), *self._clients.values()]:
            process.cut_off.clear()  # the frozen wake when they wake: the dangerous ones wake late

    def _idle(self, seconds: float) -> None:
        """A service rests: for `seconds`, or, when nothing is due before, until then."""
        scheduler = self._stage.scheduler
        left = self.ledger.next_due() - scheduler.now
        if left <= seconds:
            scheduler.sleep(seconds * self._stage.rng.uniform(0.5, 1.5))
        else:
            scheduler.park(min(left, 600.0) + self._stage.rng.random() * seconds, seconds)

    def _ledger_changed(self, operation: str, answer: Any) -> None:
        self.monitor.changed(operation, answer)
        self.monitor.met["hastened"] += answer if operation == "hasten" else 0
        self._stage.scheduler.rouse(self.ledger.next_due())

    def _task_created(self, task: Task) -> None:
        self._stage.tell(f"ECS has started {task.arn[-2:]} for {task.started_by}")
        self.monitor.task_created(task)
        self._tell(task)

    def _task_changed(self, task: Task, what: str) -> None:
        self._stage.tell(f"ECS: {task.arn[-2:]} {what}")
        self._tell(task)

    def _tell(self, task: Task) -> None:
        if self._topic is not None:
            self._topic.tell(task)


def _rules(config: Config) -> Rules:
    return Rules(
        lease_seconds=config.lease_seconds,
        settle_seconds=config.settle_seconds,
        startup_allowance=config.startup_allowance,
        ring_seconds=config.ring_seconds,
        max_in_flight=config.max_in_flight,
        accept_seconds=config.accept_seconds,
        max_deliveries=config.max_deliveries,
    )


@contextmanager
def _simulated_time(stage: Stage) -> Iterator[None]:
    """The two modules that read the machine's clock read the simulation's; nothing is logged."""
    logger = logging.getLogger("ecs_queue")
    level = logger.level
    time = SimTime(stage.scheduler)
    with ExitStack() as stack:
        for module in (ecs_queue.launcher.consume, ecs_queue.waiting):
            stack.enter_context(patch.object(module, "time", time))
        stack.callback(logger.setLevel, level)
        logger.setLevel(logging.CRITICAL + 1)
        yield
