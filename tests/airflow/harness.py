"""The executor on the installed Airflow's real BaseExecutor, with ledgers and brokers that a test controls."""

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

import pytest
from airflow.executors import workloads

from ecs_queue.airflow.config import MAX_SOCKET_TIMEOUT_SECONDS, build_owner_name
from ecs_queue.airflow.executor import EcsQueueExecutor
from ecs_queue.airflow.ledger_access import LedgerAccess
from ecs_queue.airflow.task_instances import TaskStanding
from ecs_queue.airflow.tracked_workloads import TrackedWorkload
from ecs_queue.broker import open_broker
from ecs_queue.broker.base import RequestMessage
from ecs_queue.config import load_config
from ecs_queue.errors import BrokerUnavailable, LedgerUnavailable
from ecs_queue.ledger import open_ledger
from ecs_queue.messages import envelope
from ecs_queue.messages.result import build_result
from ecs_queue.protocol.operations import ClaimRequest, ResultCode, TaskUpdate
from ecs_queue.protocol.record import Record
from ecs_queue.protocol.states import State
from tests.fake_clock import FakeClock

SETTINGS = {
    "AIRFLOW__AWS_ECS_EXECUTOR__CLUSTER": "jobs",
    "AIRFLOW__AWS_ECS_EXECUTOR__TASK_DEFINITION": "airflow",
    "AIRFLOW__AWS_ECS_EXECUTOR__CONTAINER_NAME": "main",
    "AIRFLOW__AWS_ECS_EXECUTOR__SUBNETS": "subnet-1",
    "AIRFLOW__AWS_ECS_EXECUTOR_GPU__CLUSTER": "gpus",
}
ARN = "arn:aws:ecs:eu-west-1:123456789012:task/jobs/0123456789abcdef"


class FlakyProxy:
    """Passes calls on to a ledger or a broker, records their names, and fails on demand.

    Attributes:
        is_unavailable: Every call fails before it has an effect.
        loses_answers: Every call has its effect and then fails.
    """

    def __init__(self, inner: Any, error: type[Exception]) -> None:
        self.inner = inner
        self._error = error
        self.calls: list[str] = []
        self.is_unavailable = False
        self.loses_answers = False

    def __getattr__(self, name: str) -> Any:
        method = getattr(self.inner, name)
        if not callable(method):
            return method

        def call(*args: Any, **kwargs: Any) -> Any:
            self.calls.append(name)
            if self.is_unavailable:
                raise self._error("the server is unavailable")
            result = method(*args, **kwargs)
            if self.loses_answers:
                raise self._error("the answer was lost")
            return result

        return call


class MemoryBroker:
    """Keeps the published requests, and the results of each owner."""

    def __init__(self) -> None:
        self.requests: list[RequestMessage] = []
        self.inboxes: dict[str, deque[bytes]] = {}

    def publish_requests(self, messages: Sequence[RequestMessage]) -> None:
        self.requests += messages

    def publish_results(self, messages: Sequence[tuple[str, bytes]]) -> None:
        for owner, body in messages:
            self.inboxes.setdefault(owner, deque()).append(body)

    def consume_results(self, owner: str) -> MemoryInbox:
        return MemoryInbox(self.inboxes.setdefault(owner, deque()))

    def delete_result_queue(self, owner: str) -> None:
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


class AirflowHarness:
    """One scheduler's executor; the methods play its scheduler, its workers and Airflow's database.

    Attributes:
        unprocessed: The requests whose results the scheduler has collected but not processed.
        standings: What the results mean to the tasks, according to the database; by default the task runs until the
            scheduler has collected its result, and has ended then.
        obsolete: The requests, or the task instances, for which no task waits, according to the database.
        other_ids: What the database has in place of these request ids; by default the ids themselves.
        clock: The monotonic clock of the result processor and the obsolete request stopper; it stands still.
    """

    def __init__(
        self, ledger: Any, broker: Any, config: Any, job_id: int = 7, executor: EcsQueueExecutor | None = None
    ) -> None:
        self.ledger = FlakyProxy(ledger, LedgerUnavailable)
        self.broker = FlakyProxy(broker, BrokerUnavailable)
        self.log = logging.getLogger("tests.airflow.harness")
        self.executor = EcsQueueExecutor(parallelism=2000) if executor is None else executor
        self.executor.job_id = job_id
        self.executor.__dict__["ledger_access"] = LedgerAccess(
            config,
            self.broker,
            self.ledger,
            build_owner_name(self.executor),
            self.log,
            on_failure=lambda server: self.executor.metrics.incr(f"{server}_unavailable"),
        )
        self.unprocessed: set[str] = set()
        self.standings: dict[str, TaskStanding] = {}
        self._ended_keys: set[Any] = set()
        self.obsolete: set[str] = set()
        self.other_ids: dict[str, str | None] = {}
        self.clock = FakeClock(time.monotonic())
        processor, stopper = self.executor._result_processor, self.executor._obsolete_request_stopper
        processor._clock = stopper._clock = self.clock
        processor._query_standings, stopper._find_obsolete = self._query_standings, self._find_obsolete
        stopper._find_other_ids = lambda tracked_workloads: {
            one.request_id: self.other_ids[one.request_id]
            for one in tracked_workloads
            if one.request_id in self.other_ids
        }
        stopper._checked_at = self.clock()

    @classmethod
    def from_executor(cls, executor: EcsQueueExecutor) -> AirflowHarness:
        """Use the servers in the executor's own configuration."""
        config = executor._load_config()
        return cls(open_ledger(config), open_broker(config), config, executor.job_id, executor)

    @classmethod
    def in_memory(cls) -> AirflowHarness:
        config = load_config(environ={**SETTINGS, "AIRFLOW__ECS_QUEUE__BROKER_URL": "memory://"})
        return cls(open_ledger(config), MemoryBroker(), config)

    @classmethod
    def on_redis(cls, url: str, job_id: int) -> AirflowHarness:
        settings = {
            **SETTINGS,
            "AIRFLOW__ECS_QUEUE__BROKER_URL": url,
            "AIRFLOW__ECS_QUEUE__SOCKET_TIMEOUT_SECONDS": str(MAX_SOCKET_TIMEOUT_SECONDS),
        }
        config = load_config(environ=settings)
        return cls(open_ledger(config), open_broker(config), config, job_id)

    def another_scheduler(self, job_id: int = 8) -> AirflowHarness:
        """Return another scheduler on the same ledger and broker."""
        return AirflowHarness(self.ledger.inner, self.broker.inner, self.executor.ledger_access.config, job_id)

    def close(self) -> None:
        self.executor.end()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _query_standings(self, tracked_workloads: Sequence[TrackedWorkload]) -> dict[str, TaskStanding]:
        standings = {}
        for tracked in tracked_workloads:
            has_ended = tracked.key in self._ended_keys and tracked.request_id not in self.unprocessed
            default = TaskStanding.ENDED if has_ended else TaskStanding.RUNNING
            standings[tracked.request_id] = self.standings.get(tracked.request_id, default)
        return standings

    def _find_obsolete(self, tracked_workloads: Sequence[TrackedWorkload]) -> set[str]:
        return {one.request_id for one in tracked_workloads if {one.request_id, one.task_instance_id} & self.obsolete}

    def queue(self, *workloads: Any) -> None:
        for workload in workloads:
            self.executor.queue_workload(workload, session=None)
            self._ended_keys.discard(self.executor.workload_key(workload))

    def send_tasks(self, count: int = 1) -> list[Any]:
        """Queue new tasks and send them in one heartbeat; return their workloads."""
        sent = [make_task_workload(f"task{number}") for number in range(count)]
        self.queue(*sent)
        self.heartbeat()
        self.collect_events()
        return sent

    def heartbeat(self) -> None:
        """Make one heartbeat in which no server is backing off and all periodic work is due."""
        for guard in (self.executor.ledger_access.ledger_guard, self.executor.ledger_access.broker_guard):
            guard._backs_off_until = float("-inf")
        self.executor._result_processor._ledger_checked_at = self.executor._result_processor._database_checked_at = (
            float("-inf")
        )
        self.executor.heartbeat()

    def collect_events(self) -> dict[Any, tuple[str, Any]]:
        """Return the events that the scheduler collects: key -> (state, info)."""
        events = self.executor.get_event_buffer()
        self._ended_keys.update(key for key, (state, _) in events.items() if state in ("success", "failed"))
        return {key: (str(getattr(state, "value", state)), info) for key, (state, info) in events.items()}

    def take_event_log(self) -> list[tuple[str, str]]:
        """Return (event, extra) of the entries in the task event log since the last call."""
        logs = [(log.event, log.extra) for log in self.executor._task_event_logs]
        self.executor._task_event_logs.clear()
        return logs

    def record(self, record_id: str) -> Record | None:
        record: Record | None = self.ledger.inner.get([record_id])[0]
        return record

    def request_id_of(self, workload: Any) -> str:
        """Return the id of the request that the executor has made from a workload."""
        tracked = self.executor._tracked_workloads.get_by_key(self.executor.workload_key(workload))
        assert tracked is not None
        return tracked.request_id

    def launch_request(self, record_id: str) -> Record:
        """Launch the request's task, as a worker does."""
        ledger = self.ledger.inner
        claim = ClaimRequest(claim=uuid.uuid4().hex, worker="w", args='{"container_name": "main"}', target="{}")
        assert ledger.claim(record_id, claim).code is ResultCode.RUN_TASK
        record = ledger.get([record_id])[0]
        assert ledger.launched(record_id, record.nonce, record.launch, f"{ARN}{record_id}", 1.0).code is ResultCode.OK
        launched: Record = ledger.get([record_id])[0]
        return launched

    def finish_request(
        self, record_id: str, state: State = State.SUCCESS, *, publish_result: bool = True, **observation: Any
    ) -> Record:
        """End the request, as a worker does; launch it first if needed. `publish_result`: a result message arrives."""
        record = self.record(record_id)
        assert record is not None
        if record.state is State.QUEUED:
            record = self.launch_request(record_id)
        observed = {"exit_code": 0 if state is State.SUCCESS else 1, **observation}
        update = TaskUpdate(
            id=record_id,
            launch=record.launch,
            arn=record.arn,
            version=record.version + 1,
            last_status="STOPPED",
            wait=1.0,
            end_state=state,
            finished_at=time.time(),
            **observed,
        )
        result = self.ledger.inner.update_tasks([update])[0]
        assert result.code is ResultCode.ENDED
        ended: Record = result.record
        if publish_result:
            self.broker.inner.publish_results([(ended.owner, envelope.encode(build_result(ended)))])
        return ended


class FakeTaskInstance:
    """The part of a TaskInstance that `try_adopt_task_instances` uses."""

    def __init__(self, workload: Any, external_executor_id: str | None) -> None:
        self.id = workload.ti.id
        self.key = workload.ti.key
        self.external_executor_id = external_executor_id


def task_key(workload: Any) -> Any:
    """Return the key under which the installed Airflow queues a task for the executor."""
    return EcsQueueExecutor(parallelism=1).workload_key(workload)


def make_token(expires_in: float = 600.0) -> str:
    """Return a JWT without a valid signature."""
    claims = json.dumps({"exp": time.time() + expires_in}).encode()
    return f"e30.{base64.urlsafe_b64encode(claims).decode().rstrip('=')}.c2ln"


def make_task_workload(
    name: str = "task", *, assigned: str | None = "new", workload_token: str | None = None, **fields: Any
) -> Any:
    """Return an ExecuteTask workload. `assigned`: its external_executor_id; "new" makes one, if Airflow assigns any."""
    defaults = {
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
        defaults["external_executor_id"] = str(uuid.uuid4()) if assigned == "new" else assigned
    return workloads.ExecuteTask(
        ti=model(**(defaults | fields)),
        dag_rel_path="dag.py",
        token=make_token() if workload_token is None else workload_token,
        bundle_info=workloads.BundleInfo(name="dags"),
        log_path="a.log",
    )


def make_callback(callback_id: str = "", **data: Any) -> Any:
    """Return an ExecuteCallback workload; skip the test if this Airflow sends none to executors."""
    if not hasattr(workloads, "ExecuteCallback"):
        pytest.skip("this Airflow sends no callbacks to executors")
    from airflow.executors.workloads.callback import CallbackDTO, CallbackFetchMethod

    return workloads.ExecuteCallback(
        callback=CallbackDTO(
            id=callback_id or str(uuid.uuid4()),
            fetch_method=CallbackFetchMethod.IMPORT_PATH,
            data=data or {"path": "a.b"},
        ),
        dag_rel_path="dag.py",
        token=make_token(),
        bundle_info=workloads.BundleInfo(name="dags"),
        log_path="a.log",
    )


def make_connection_test() -> Any:
    """Return a TestConnection workload; skip the test if this Airflow sends none to executors."""
    if not hasattr(workloads, "TestConnection"):
        pytest.skip("this Airflow sends no connection tests to executors")
    return workloads.TestConnection(
        connection_test_id=uuid.uuid4(), connection_id="db", timeout=60, queue=None, token=make_token()
    )
