"""The installed Airflow's real BaseExecutor on ledgers and brokers in our hands; workers are played by a few words."""

from __future__ import annotations

import base64
import json
import logging
import time
import uuid
from collections import deque
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

from airflow.executors import workloads
from airflow.models.taskinstancekey import TaskInstanceKey

from ecs_queue.airflow.desk import Desk
from ecs_queue.airflow.executor import EcsQueueExecutor
from ecs_queue.airflow.flights import Flight
from ecs_queue.airflow.settings import ANSWER_SECONDS
from ecs_queue.broker import open_broker
from ecs_queue.broker.base import Outgoing
from ecs_queue.config import load_config
from ecs_queue.core import envelope
from ecs_queue.core.protocol import ClaimOffer, Outcome, Word
from ecs_queue.core.record import Record
from ecs_queue.core.states import State
from ecs_queue.errors import BrokerUnavailable, LedgerUnavailable
from ecs_queue.ledger import open_ledger

SETTINGS = {
    "AIRFLOW__AWS_ECS_EXECUTOR__CLUSTER": "jobs",
    "AIRFLOW__AWS_ECS_EXECUTOR__TASK_DEFINITION": "airflow",
    "AIRFLOW__AWS_ECS_EXECUTOR__CONTAINER_NAME": "main",
    "AIRFLOW__AWS_ECS_EXECUTOR__SUBNETS": "subnet-1",
    "AIRFLOW__AWS_ECS_EXECUTOR_GPU__CLUSTER": "gpus",
}
ARN = "arn:aws:ecs:eu-west-1:123456789012:task/jobs/0123456789abcdef"


class Tollgate:
    """Stands before a ledger or broker: counts the calls, and closes on demand.

    `down`: every call fails before it has an effect. `deaf`: the effect is there, the answer is lost.
    """

    def __init__(self, inner: Any, error: type[Exception]) -> None:
        self.inner = inner
        self._error = error
        self.calls: list[str] = []
        self.down = False
        self.deaf = False

    def __getattr__(self, name: str) -> Any:
        method = getattr(self.inner, name)
        if not callable(method):
            return method

        def call(*args: Any, **kwargs: Any) -> Any:
            self.calls.append(name)
            if self.down:
                raise self._error("it is down")
            answer = method(*args, **kwargs)
            if self.deaf:
                raise self._error("the answer was lost")
            return answer

        return call


class MemoryBroker:
    """Keeps what was published; one inbox an owner."""

    def __init__(self) -> None:
        self.requests: list[Outgoing] = []
        self.inboxes: dict[str, deque[bytes]] = {}

    def publish_requests(self, messages: Sequence[Outgoing]) -> None:
        self.requests += messages

    def publish_results(self, messages: Sequence[tuple[str, bytes]]) -> None:
        for owner, body in messages:
            self.inboxes.setdefault(owner, deque()).append(body)

    def results(self, owner: str) -> MemoryInbox:
        return MemoryInbox(self.inboxes.setdefault(owner, deque()))

    def forget_results(self, owner: str) -> None:
        self.inboxes.pop(owner, None)

    def check(self) -> None:
        return None

    def close(self) -> None:
        return None


class MemoryInbox:
    def __init__(self, bodies: deque[bytes]) -> None:
        self._bodies = bodies

    def drain(self, timeout: float) -> list[bytes]:
        return [self._bodies.popleft() for _ in range(len(self._bodies))]

    def close(self) -> None:
        return None


class Stage:
    """One scheduler's executor.

    `waiting`: the requests that "the database" says are not settled. `unwanted`: those that no task waits for.
    """

    def __init__(
        self, ledger: Any, broker: Any, config: Any, job_id: int = 7, executor: EcsQueueExecutor | None = None
    ) -> None:
        self.ledger = Tollgate(ledger, LedgerUnavailable)
        self.broker = Tollgate(broker, BrokerUnavailable)
        self.log = logging.getLogger("tests.airflow.stage")
        self.executor = EcsQueueExecutor(parallelism=2000) if executor is None else executor
        self.executor.job_id = job_id
        owner, count = self.executor._owner(), self.executor.count_failure
        self.executor.__dict__["desk"] = Desk(config, self.broker, self.ledger, owner, self.log, on_failure=count)
        self.waiting: set[str] = set()
        self.unwanted: set[str] = set()
        self.executor.unsettled = self._unsettled
        self.executor.unwanted = self._unwanted
        self.ahead = 0.0
        self.executor._leftovers._clock = self.executor._returns._clock = lambda: time.monotonic() + self.ahead

    @classmethod
    def of(cls, executor: EcsQueueExecutor) -> Stage:
        """By the executor's own configuration."""
        config = executor._config()
        return cls(open_ledger(config), open_broker(config), config, executor.job_id, executor)

    @classmethod
    def in_memory(cls) -> Stage:
        config = load_config(environ={**SETTINGS, "AIRFLOW__ECS_QUEUE__BROKER_URL": "memory://"})
        return cls(open_ledger(config), MemoryBroker(), config)

    @classmethod
    def on_redis(cls, url: str, job_id: int) -> Stage:
        settings = {
            **SETTINGS,
            "AIRFLOW__ECS_QUEUE__BROKER_URL": url,
            "AIRFLOW__ECS_QUEUE__SOCKET_TIMEOUT_SECONDS": str(ANSWER_SECONDS),
        }
        config = load_config(environ=settings)
        return cls(open_ledger(config), open_broker(config), config, job_id)

    def successor(self, job_id: int = 8) -> Stage:
        """Another scheduler on the same ledger and broker."""
        return Stage(self.ledger.inner, self.broker.inner, self.executor.desk.config, job_id)

    def close(self) -> None:
        self.executor.end()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _unsettled(self, flights: Sequence[Flight]) -> set[str]:
        return {flight.id for flight in flights} & self.waiting

    def _unwanted(self, flights: Sequence[Flight]) -> set[str]:
        return {flight.id for flight in flights if {flight.id, flight.task} & self.unwanted}

    def pass_time(self, seconds: float) -> None:
        """For what waits by the monotonic clock, of the leftovers and of results that are held."""
        self.ahead += seconds

    def queue(self, *items: Any) -> None:
        for item in items:
            self.executor.queue_workload(item, session=None)

    def beat(self) -> None:
        """One heartbeat, as if time had passed: nothing rests, everything periodic is due."""
        for outage in (self.executor.desk.ledger_outage, self.executor.desk.broker_outage):
            outage._rests_until = float("-inf")
        self.executor._returns._asked_at = self.executor._returns._verified_at = float("-inf")
        self.executor.heartbeat()

    def events(self) -> dict[Any, tuple[str, Any]]:
        """What the scheduler collects: key -> (state, info)."""
        found = self.executor.get_event_buffer()
        return {key: (str(getattr(state, "value", state)), info) for key, (state, info) in found.items()}

    def event_log(self) -> list[tuple[str, str]]:
        """(event, extra) of the task event log since the last call."""
        logs = [(log.event, log.extra) for log in self.executor._task_event_logs]
        self.executor._task_event_logs.clear()
        return logs

    def record(self, record_id: str) -> Record | None:
        found: Record | None = self.ledger.inner.get([record_id])[0]
        return found

    def id_of(self, item: Any) -> str:
        """The request that the executor has made of a workload."""
        flight = self.executor._flights.of_key(self.executor.key_of(item))
        assert flight is not None
        return flight.id

    def launch(self, record_id: str) -> Record:
        """A worker's part, up to the running task."""
        ledger = self.ledger.inner
        offer = ClaimOffer(claim=uuid.uuid4().hex, worker="w", args='{"container": "main"}', target="{}")
        assert ledger.claim(record_id, offer).word is Word.CALL
        record = ledger.get([record_id])[0]
        assert ledger.launched(record_id, record.nonce, record.launch, f"{ARN}{record_id}", 1.0).word is Word.OK
        found: Record = ledger.get([record_id])[0]
        return found

    def finish(self, record_id: str, state: State = State.SUCCESS, *, announce: bool = True, **seen: Any) -> Record:
        """A worker's part, to the end. `announce`: whether the result message arrives."""
        record = self.record(record_id)
        assert record is not None
        if record.state is State.QUEUED:
            record = self.launch(record_id)
        known = {"exit_code": 0 if state is State.SUCCESS else 1, **seen}
        outcome = Outcome(
            id=record_id,
            launch=record.launch,
            arn=record.arn,
            version=record.version + 1,
            last_status="STOPPED",
            wait=1.0,
            end=state,
            finished_at=time.time(),
            **known,
        )
        answer = self.ledger.inner.outcomes([outcome])[0]
        assert answer.word is Word.ENDED
        ended: Record = answer.record
        if announce:
            self.broker.inner.publish_results([(ended.owner, envelope.encode(envelope.result_of(ended)))])
        return ended


class OrphanTask:
    """What `try_adopt_task_instances` uses of a TaskInstance."""

    def __init__(self, item: Any, external_executor_id: str | None) -> None:
        self.id = item.ti.id
        self.key = key_of(item)
        self.external_executor_id = external_executor_id


def key_of(item: Any) -> TaskInstanceKey:
    ti = item.ti
    return TaskInstanceKey(ti.dag_id, ti.task_id, ti.run_id, ti.try_number, ti.map_index)


def token(expires_in: float = 600.0) -> str:
    """A JWT whose signature nobody looks at."""
    claims = json.dumps({"exp": time.time() + expires_in}).encode()
    return f"e30.{base64.urlsafe_b64encode(claims).decode().rstrip('=')}.c2ln"


def task(name: str = "task", *, assigned: str | None = "new", workload_token: str | None = None, **fields: Any) -> Any:
    """An ExecuteTask workload. `assigned`: the external_executor_id, "new" for a fresh one where Airflow has them."""
    known = {
        "id": uuid.uuid4(),
        "dag_version_id": uuid.uuid4(),
        "task_id": name,
        "dag_id": "dag",
        "run_id": "run",
        "try_number": 1,
        "map_index": -1,
        "pool_slots": 1,
        "queue": "default",
        "priority_weight": 1,
    }
    model = workloads.ExecuteTask.model_fields["ti"].annotation
    assert model is not None
    if "external_executor_id" in model.model_fields:
        known["external_executor_id"] = str(uuid.uuid4()) if assigned == "new" else assigned
    return workloads.ExecuteTask(
        ti=model(**(known | fields)),
        dag_rel_path="dag.py",
        token=token() if workload_token is None else workload_token,
        bundle_info=workloads.BundleInfo(name="dags"),
        log_path="a.log",
    )
