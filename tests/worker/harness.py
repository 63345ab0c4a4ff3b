"""A launcher, poller and sweeper over an in-memory ledger, a fake ECS and a clock that tests move."""

from __future__ import annotations

import random
import threading
from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any

from ecs_queue.config import Config, load_config
from ecs_queue.config.keyring import open_keyring
from ecs_queue.ecs.clients import Target
from ecs_queue.errors import LedgerUnavailable
from ecs_queue.ledger import MemoryLedger
from ecs_queue.messages import envelope
from ecs_queue.messages.request import new_request
from ecs_queue.protocol.ecs_results import RunTaskResult, RunTaskResultKind
from ecs_queue.protocol.record import Record
from ecs_queue.protocol.settings import ProtocolSettings
from ecs_queue.protocol.states import State
from ecs_queue.runtask.launch_spec import build_submission
from ecs_queue.telemetry import Telemetry
from ecs_queue.worker.context import WorkerContext
from ecs_queue.worker.fair_queue import FairQueue, Job
from ecs_queue.worker.launcher import Launcher
from ecs_queue.worker.poller import Poller
from ecs_queue.worker.sweeper import Sweeper
from ecs_queue.worker.thread_pool import LaunchThreadPool
from tests.fake_clock import FakeClock
from tests.fake_ecs import FakeEcs

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


def make_config(environ: Mapping[str, str] | None = None, **keys: object) -> Config:
    """A configuration that can launch; `keys` of [ecs_queue], `environ` for all else."""
    overrides = {name: str(value) for name, value in keys.items()}
    return load_config(environ={**_ENVIRON, **(environ or {})}, overrides=overrides)


class WorkerKilled(BaseException):
    """The worker is dead: nothing after it runs, not even cleanup."""


def failed_result(kind: RunTaskResultKind, **fields: Any) -> RunTaskResult:
    """A result of RunTask that is not STARTED."""
    return RunTaskResult(kind, reason=f"ECS returned {kind.value}", **fields)


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
            result = operation(*arguments, **named)
            self.on_call(name, "after")
            if fault == "after":
                raise LedgerUnavailable
            return result

        return call


class InlineThreadPool(LaunchThreadPool):
    """Runs jobs at once on the caller's thread; while `is_full`, they wait for `resume`."""

    is_full = False
    #: Where jobs that have begun are kept in place of being run; None: they are run.
    started_jobs: list[Job] | None = None

    @property
    def waiting_jobs(self) -> int:
        """How many jobs wait."""
        return len(self._fair_queue)

    def _wake_one(self) -> None:
        if self._running:  # called by the thread that looks for work
            return
        while not self.is_full and not isinstance(work := self._next_work(), float):
            if isinstance(work, Job) and self.started_jobs is not None:
                self.started_jobs.append(work)
                self._running -= 1
            else:
                self._perform(work)
        if self.started_jobs is not None:
            self._running = len(self.started_jobs)

    def finish_started(self) -> None:
        """Run the jobs that have started."""
        begun, self.started_jobs = self.started_jobs or [], None
        for job in begun:
            self._run_job(job)

    def resume(self) -> None:
        """The threads are free again."""
        self.is_full = False
        self._wake_one()


class FakeDelivery:
    """A `Delivery` that records what happened to it."""

    def __init__(self, body: bytes, queue: str = "default", redelivered: bool = False) -> None:
        self.queue = queue
        self.redelivered = redelivered
        self.body = body
        self.acked = False
        self.released = False
        self.was_put_back = False

    def ack(self) -> None:
        self.acked = True

    def requeue(self) -> None:
        self.released = True

    def requeue_at_front(self) -> None:
        self.was_put_back = True


class SteppedWorker:
    """The services of one worker, stepped by the test."""

    def __init__(self, harness: WorkerHarness, config: Config) -> None:
        self.events: list[tuple[str, dict[str, Any]]] = []
        telemetry = Telemetry(lambda name, fields: self.events.append((name, fields)))
        self.stopping = threading.Event()
        self.waits: list[float] = []
        self.target_for: Callable[[str], Target] = lambda queue: TARGET
        context = self.context = WorkerContext(
            config=config,
            worker_name="w",
            queues=harness.queues,
            ledger=harness.ledger,
            gateway=harness.ecs,
            target_for=lambda queue: self.target_for(queue),
            publish_result=harness.published_results.append,
            telemetry=telemetry,
            monotonic=harness.clock,
            wait_for_stop=self._wait_for_stop,
            new_id=harness.new_id,
            rng=harness.rng,
        )
        self.circuit_breakers, self.admission = context.circuit_breakers, context.admission
        self.poll_schedule = context.poll_schedule
        fair_queue = FairQueue(lambda queue: config.profile(queue).weight, context.admission)
        self.thread_pool = InlineThreadPool(config.concurrency, context.outages, context.token_cache, fair_queue)
        self.admission.on_refresh(self.thread_pool.wake)
        self.launcher = Launcher(context)
        self.poller = Poller(context, self.thread_pool, self.launcher.recover)
        self.sweeper = Sweeper(context, self.launcher, self.thread_pool, lambda queue: True)

    def emitted(self, name: str) -> list[dict[str, Any]]:
        """The fields of the events of one type, in order."""
        return [fields for event, fields in self.events if event == name]

    def handle_message(self, body: bytes) -> bool:
        """Deliver a message; return whether it is to be acknowledged."""
        return bool(self.launcher.handle_message(FakeDelivery(body)))

    def poll(self) -> None:
        """One round of the poller."""
        self.poller.step()

    def sweep(self) -> None:
        """One round of the sweeper, after admission is refreshed."""
        self.admission.step()
        self.sweeper.step()

    def _wait_for_stop(self, seconds: float) -> bool:
        self.waits.append(seconds)
        return self.stopping.is_set()


class WorkerHarness:
    """One namespace: a ledger, an ECS, a clock, and workers made on demand."""

    queues: tuple[str, ...] = ("default",)

    def __init__(self, environ: Mapping[str, str] | None = None, seed: int = 1, **keys: object) -> None:
        self.config = make_config(environ, **keys)
        self.keyring = open_keyring(self.config)
        self.clock = FakeClock()
        self.rng = random.Random(seed)
        self.memory_ledger = MemoryLedger(self.clock, ProtocolSettings.from_config(self.config))
        self.ledger = FlakyLedger(self.memory_ledger)
        self.ecs = FakeEcs(self.clock)
        self.published_results: list[Record] = []
        self._ids = 0
        self.worker = self.new_worker()

    def new_id(self) -> str:
        self._ids += 1
        return f"n{self._ids}"

    def new_worker(self, environ: Mapping[str, str] | None = None, **keys: object) -> SteppedWorker:
        """Another worker; with `environ` or `keys` it has its own configuration."""
        own = environ is not None or keys
        return SteppedWorker(self, make_config(environ, **keys) if own else self.config)

    def new_envelope(self, record_id: str = "a", command: list[str] | None = None, **fields: Any) -> bytes:
        """An envelope."""
        fields.setdefault("owner", "me")
        request = new_request(
            id=record_id, command=command or ["true"], now=self.clock(), accept_seconds=86400.0, **fields
        )
        return envelope.encode(request, self.keyring)

    def put_request(self, record_id: str = "a", **fields: Any) -> bytes:
        """A request in the ledger, and its message's body."""
        body = self.new_envelope(record_id, **fields)
        request = envelope.decode_request(body, self.keyring)
        nonce = envelope.compute_nonce(self.config.namespace, body)
        self.memory_ledger.put([build_submission(request, body, nonce, self.config.launch_deadline)])
        return body

    def launch(self, record_id: str = "a", **fields: Any) -> str:
        """A request that has been launched; its task's ARN."""
        assert self.worker.handle_message(self.new_envelope(record_id, **fields))
        return self.record(record_id).arn

    def launch_many(self, number: int) -> None:
        """Launch the requests t0, t1 and so on."""
        for index in range(number):
            self.launch(f"t{index}")

    def record(self, record_id: str = "a") -> Record:
        """The record as it stands."""
        record = self.memory_ledger.get_with_payload([record_id])[0]
        assert record is not None
        return record

    def state(self, record_id: str = "a") -> State:
        return self.record(record_id).state

    def advance(self, seconds: float) -> None:
        """Time passes, and the worker does its rounds."""
        self.clock.advance(seconds)
        self.worker.sweep()
        self.worker.poll()

    def advance_in_steps(self, seconds: float, step: float = 1.0) -> None:
        """Time passes in steps, with rounds in between."""
        end = self.clock() + seconds
        while self.clock() < end:
            self.advance(min(step, end - self.clock()))
