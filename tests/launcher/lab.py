"""A launcher, tracker and sweeper over an in-memory ledger, a fake ECS and a clock that tests move."""

from __future__ import annotations

import random
import threading
from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any

from ecs_queue.config import Config, load_config
from ecs_queue.core import envelope
from ecs_queue.core.plan import submission_of
from ecs_queue.core.protocol import Rules
from ecs_queue.core.record import Record
from ecs_queue.core.states import State
from ecs_queue.ecs.clients import Target
from ecs_queue.errors import LedgerUnavailable
from ecs_queue.keyring import open_keyring
from ecs_queue.launcher.circuit import Circuits
from ecs_queue.launcher.gates import Gates
from ecs_queue.launcher.inflight import InFlight
from ecs_queue.launcher.lanes import Job, Lanes
from ecs_queue.launcher.launch import Launcher
from ecs_queue.launcher.pace import Pace, make_pace
from ecs_queue.launcher.parts import Parts
from ecs_queue.launcher.quota import Quota, Tokens, reserve_of
from ecs_queue.launcher.slots import Slots
from ecs_queue.launcher.suspects import Suspects
from ecs_queue.launcher.sweep import Sweeper
from ecs_queue.launcher.track import Tracker
from ecs_queue.ledger import MemoryLedger
from ecs_queue.ledger.retention import Retention
from ecs_queue.telemetry import Telemetry
from tests.launcher.fake_ecs import FakeEcs

START = 1_800_000_000.0
TARGET = Target("us-east-1", None, None, "jobs")
_ENVIRON = {
    "AIRFLOW__ECS_QUEUE__BROKER_URL": "memory://",
    "AIRFLOW__ECS_QUEUE__RUN_TASK_RATE": "0",
    "AIRFLOW__ECS_QUEUE__DESCRIBE_TASKS_RATE": "0",
    "AIRFLOW__ECS_QUEUE__CONCURRENCY": "4",
    "AIRFLOW__AWS_ECS_EXECUTOR__CLUSTER": "jobs",
    "AIRFLOW__AWS_ECS_EXECUTOR__REGION_NAME": "us-east-1",
    "AIRFLOW__AWS_ECS_EXECUTOR__TASK_DEFINITION": "family:1",
    "AIRFLOW__AWS_ECS_EXECUTOR__CONTAINER_NAME": "main",
    "AIRFLOW__AWS_ECS_EXECUTOR__LAUNCH_TYPE": "FARGATE",
    "AIRFLOW__AWS_ECS_EXECUTOR__SUBNETS": "subnet-1",
    "AIRFLOW__AWS_ECS_EXECUTOR__CHECK_HEALTH_ON_STARTUP": "False",
}


def config_of(environ: Mapping[str, str] | None = None, **keys: object) -> Config:
    """A configuration that can launch; `keys` of [ecs_queue], `environ` for all else."""
    overrides = {name: str(value) for name, value in keys.items()}
    return load_config(environ={**_ENVIRON, **(environ or {})}, overrides=overrides)


class Clock:
    """Seconds since the epoch; moves when told to."""

    def __init__(self, now: float = START) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


class FlakyLedger:
    """A ledger that cannot be reached at chosen calls: before they took effect, or after.

    `on_call(operation, when)` is called at both moments of every call; what it raises is raised.
    """

    def __init__(self, ledger: MemoryLedger) -> None:
        self._ledger = ledger
        self._faults: defaultdict[str, list[str]] = defaultdict(list)
        self.on_call: Callable[[str, str], None] = lambda operation, when: None

    def fail(self, operation: str, when: str) -> None:
        """The next call of the operation fails; `when` is "before" or "after"."""
        self._faults[operation].append(when)

    def __getattr__(self, name: str) -> Any:
        operation = getattr(self._ledger, name)

        def call(*arguments: Any, **named: Any) -> Any:
            fault = self._faults[name].pop(0) if self._faults[name] else ""
            if fault == "before":
                raise LedgerUnavailable
            self.on_call(name, "before")
            answer = operation(*arguments, **named)
            self.on_call(name, "after")
            if fault == "after":
                raise LedgerUnavailable
            return answer

        return call


class InlineSlots(Slots):
    """Runs what may run at once, on the caller's thread; `full` slots keep it until there is room again."""

    full = False
    #: Where jobs that have begun are kept in place of being run; None: they are run.
    begun: list[Job] | None = None

    @property
    def kept(self) -> int:
        """How many jobs wait."""
        return len(self._lanes)

    def _wake_one(self) -> None:
        if self._running:  # called by the one that looks for work
            return
        while not self.full and not isinstance(step := self._pick(), float):
            if isinstance(step, Job) and self.begun is not None:
                self.begun.append(step)
                self._running -= 1
            else:
                self._carry_out(step)
        if self.begun is not None:
            self._running = len(self.begun)

    def finish(self) -> None:
        """What has begun comes to its end."""
        begun, self.begun = self.begun or [], None
        for job in begun:
            self._run(job)

    def run_kept(self) -> None:
        """The slots are free again."""
        self.full = False
        self._wake_one()


class Message:
    """A `Delivery`; remembers what became of it."""

    def __init__(self, body: bytes, queue: str = "default", redelivered: bool = False) -> None:
        self.queue = queue
        self.redelivered = redelivered
        self.body = body
        self.acked = False
        self.released = False
        self.was_put_back = False

    def ack(self) -> None:
        self.acked = True

    def release(self) -> None:
        self.released = True

    def put_back(self) -> None:
        self.was_put_back = True


class Worker:
    """The services of one worker, driven by hand."""

    def __init__(self, lab: Lab, config: Config) -> None:
        self.events: list[tuple[str, dict[str, Any]]] = []
        telemetry = Telemetry(lambda name, fields: self.events.append((name, fields)))
        self.stopping = threading.Event()
        self.rests: list[float] = []
        self.circuits = Circuits(lab.clock, telemetry)
        tokens = Tokens(lab.ledger, lab.clock, telemetry)
        launch, read = config.run_task_burst, config.describe_tasks_burst
        self.gates = Gates(lab.ledger, config, self.circuits, lab.queues)
        self.target_for: Callable[[str], Target] = lambda queue: TARGET
        self.pace: Pace = make_pace(lab.ledger, config, lab.clock, telemetry)
        self.parts = Parts(
            config=config,
            worker="w",
            ledger=lab.ledger,
            gateway=lab.ecs,
            target_for=lambda queue: self.target_for(queue),
            run_quota=Quota(tokens, "run_task", config.run_task_rate, launch, reserve_of(launch)),
            stop_quota=Quota(tokens, "run_task", config.run_task_rate, launch),
            read_quota=Quota(tokens, "describe", config.describe_tasks_rate, read),
            suspects=Suspects(lab.ledger, config.max_deliveries),
            circuits=self.circuits,
            gates=self.gates,
            in_flight=InFlight(lab.clock),
            pace=self.pace,
            publish=lab.published.append,
            telemetry=telemetry,
            monotonic=lab.clock,
            rest=self._rest,
            new_id=lab.new_id,
            rng=lab.rng,
        )
        lanes = Lanes(lambda queue: config.profile(queue).weight, self.gates)
        self.slots = InlineSlots(config.concurrency, telemetry, tokens, lanes)
        self.gates.when_asked(self.slots.kick)
        self.launcher = Launcher(self.parts)
        self.tracker = Tracker(self.parts, self.slots, self.launcher.recover)
        self.sweeper = Sweeper(self.parts, self.launcher, self.slots, lab.queues, lambda queue: True)

    def told(self, name: str) -> list[dict[str, Any]]:
        """The fields of the events of one type, in order."""
        return [fields for event, fields in self.events if event == name]

    def take(self, body: bytes) -> bool:
        """A message arrives; whether it is to be acknowledged."""
        return self.launcher.take(Message(body))

    def track(self) -> None:
        """One round of the tracker."""
        self.tracker.step()

    def sweep(self) -> None:
        """One round of the sweeper, after a look at what may be launched."""
        self.gates.step()
        self.sweeper.step()

    def _rest(self, seconds: float) -> bool:
        self.rests.append(seconds)
        return self.stopping.is_set()


class Lab:
    """One namespace: a ledger, an ECS, a clock, and workers made on demand."""

    queues: tuple[str, ...] = ("default",)

    def __init__(self, environ: Mapping[str, str] | None = None, seed: int = 1, **keys: object) -> None:
        self.config = config_of(environ, **keys)
        self.keyring = open_keyring(self.config)
        self.clock = Clock()
        self.rng = random.Random(seed)
        self.memory = MemoryLedger(self.clock, _rules(self.config), Retention())
        self.ledger = FlakyLedger(self.memory)
        self.ecs = FakeEcs(self.clock)
        self.published: list[Record] = []
        self._ids = 0
        self.worker = self.new_worker()

    def new_id(self) -> str:
        self._ids += 1
        return f"n{self._ids}"

    def new_worker(self, environ: Mapping[str, str] | None = None, **keys: object) -> Worker:
        """Another worker; `environ`, `keys`: with a configuration of its own."""
        own = environ is not None or keys
        return Worker(self, config_of(environ, **keys) if own else self.config)

    def body(self, record_id: str = "a", command: list[str] | None = None, **fields: Any) -> bytes:
        """An envelope."""
        fields.setdefault("owner", "me")
        request = envelope.new_request(
            id=record_id, command=command or ["true"], now=self.clock(), accept_seconds=86400.0, **fields
        )
        return envelope.encode(request, self.keyring)

    def put(self, record_id: str = "a", **fields: Any) -> bytes:
        """A request in the ledger, and its message's body."""
        body = self.body(record_id, **fields)
        request = envelope.decode_request(body, self.keyring)
        nonce = envelope.nonce_of(self.config.namespace, body)
        self.memory.put([submission_of(request, body, nonce, self.config.launch_deadline)])
        return body

    def launched(self, record_id: str = "a", **fields: Any) -> str:
        """A request that has been launched; its task's ARN."""
        assert self.worker.take(self.body(record_id, **fields))
        return self.record(record_id).arn

    def record(self, record_id: str = "a") -> Record:
        """The record as it stands."""
        record = self.memory.get([record_id])[0]
        assert record is not None
        return record

    def state(self, record_id: str = "a") -> State:
        return self.record(record_id).state

    def later(self, seconds: float) -> None:
        """Time passes, and the worker does its rounds."""
        self.clock.advance(seconds)
        self.worker.sweep()
        self.worker.track()

    def pass_time(self, seconds: float, step: float = 1.0) -> None:
        """Time passes in steps, with rounds in between."""
        end = self.clock() + seconds
        while self.clock() < end:
            self.later(min(step, end - self.clock()))


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
