"""Obsolete tasks against Airflow's real API server, supervisor and database.

The command is that of the request, run as a container would run it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
import uuid
from collections import defaultdict
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from airflow import settings
from airflow.executors import workloads
from airflow.models.dag import DagModel
from airflow.models.dagrun import DagRun
from airflow.models.taskinstance import TaskInstance, clear_task_instances
from airflow.utils.session import create_session
from airflow.utils.state import TaskInstanceState
from sqlalchemy import insert, select, update

from ecs_queue.airflow.task_instances import TaskStanding, _to_stored_id, find_obsolete, find_other_ids, query_standings
from ecs_queue.airflow.tracked_workloads import TrackedWorkload
from ecs_queue.protocol.states import State
from tests.airflow.harness import AirflowHarness, make_task_workload

pytestmark = [pytest.mark.airflow, pytest.mark.slow]

DAG = """
import os
from airflow.sdk import dag, task

@dag(schedule=None)
def recorded():
    for name in ("waiting", "cleared", "marked", "elsewhere"):
        @task(task_id=name)
        def record(name):
            with open(os.environ["EXECUTIONS"], "a") as executions:
                executions.write(name + "\\n")
        record(name)

recorded()
"""


@pytest.fixture(scope="module")
def database() -> Iterator[None]:
    """Airflow's tables, with a DAG run."""
    from airflow.models import import_all_models
    from airflow.models.base import Base
    from airflow.models.dagbundle import DagBundleModel

    settings.initialize()
    import_all_models()
    Base.metadata.create_all(settings.engine)
    now = datetime.now(UTC)
    run = {"dag_id": "recorded", "run_id": "r1", "run_type": "manual", "state": "running"}
    with create_session() as session:
        session.execute(insert(DagBundleModel).values(name="dags-folder"))
        session.add(DagModel(dag_id="recorded", bundle_name="dags-folder", relative_fileloc="recorded.py"))
        session.flush()
        session.execute(insert(DagRun).values(logical_date=now, run_after=now, start_date=now, **run))
    yield
    Base.metadata.drop_all(settings.engine)


class RecordingApi:
    """The execution API as an ASGI application that records its responses: path -> status codes."""

    def __init__(self, app: Any) -> None:
        self.url = ""
        self.status_codes: dict[str, list[int]] = defaultdict(list)
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def record(message: Any) -> None:
            if message["type"] == "http.response.start":
                self.status_codes[scope["path"]].append(message["status"])
            await send(message)

        await self._app(scope, receive, record)


@pytest.fixture
def api(database: None) -> Iterator[RecordingApi]:
    """The execution API on a real port, with real tokens."""
    import uvicorn
    from airflow.api_fastapi.common.dagbag import create_dag_bag
    from airflow.api_fastapi.execution_api.app import create_task_execution_api_app  # importing it emits warnings

    app = create_task_execution_api_app()
    app.state.dag_bag = create_dag_bag()
    recording = RecordingApi(app)
    server = uvicorn.Server(uvicorn.Config(recording, host="127.0.0.1", port=0, log_level="warning"))
    thread = threading.Thread(target=server.run)
    thread.start()
    deadline = time.monotonic() + 120
    while not server.started:
        assert time.monotonic() < deadline, "the API server did not start"
        assert thread.is_alive()
        time.sleep(0.02)
    recording.url = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/"
    yield recording
    server.should_exit = True
    thread.join(30)
    assert not thread.is_alive()


def insert_queued_task(harness: AirflowHarness, name: str) -> Any:
    """Insert a queued task into the database; return its workload with a real token."""
    assigned = str(uuid.uuid4())
    item = make_task_workload(name, dag_id="recorded", run_id="r1", assigned=assigned)
    item = item.model_copy(
        update={
            "token": generate_token(str(item.ti.id), harness.executor.jwt_generator),
            "dag_rel_path": Path("recorded.py"),
            "bundle_info": workloads.BundleInfo(name="dags-folder"),
        }
    )
    with create_session() as session:
        session.execute(
            insert(TaskInstance).values(
                id=_to_stored_id(item.ti.id),
                task_id=name,
                dag_id="recorded",
                run_id="r1",
                map_index=-1,
                try_number=1,
                max_tries=1,
                pool="default_pool",
                pool_slots=1,
                queue="default",
                state="queued",
                external_executor_id=assigned,
            )
        )
    return item


def generate_token(task_id: str, generator: Any) -> str:
    """Return a token as `ExecuteTask.make` makes it."""
    generate = getattr(workloads.ExecuteTask, "generate_token", None)
    token: str = generator.generate({"sub": task_id}) if generate is None else generate(task_id, generator)
    return token


def update_task(name: str, **values: Any) -> None:
    with create_session() as session:
        session.execute(update(TaskInstance).where(TaskInstance.task_id == name).values(**values))


def clear_task(name: str) -> None:
    """Clear the task as the UI does."""
    with create_session() as session:
        found = session.scalars(select(TaskInstance).where(TaskInstance.task_id == name)).all()
        clear_task_instances(list(found), session, dag_run_state=False)


def read_task_state(name: str) -> str | None:
    with create_session() as session:
        state: str | None = session.scalar(select(TaskInstance.state).where(TaskInstance.task_id == name))
    return state


@pytest.mark.timeout(300)  # an API server and four containers, each of which imports all of Airflow
def test_airflow_refuses_an_obsolete_container_and_the_executor_withdraws_it(
    harness: AirflowHarness, api: RecordingApi, tmp_path: Path
) -> None:
    (tmp_path / "recorded.py").write_text(DAG)
    items = {name: insert_queued_task(harness, name) for name in ("waiting", "cleared", "marked", "elsewhere")}
    harness.executor._obsolete_request_stopper._find_obsolete = find_obsolete
    harness.queue(*items.values())
    harness.heartbeat()
    bodies = [json.loads(message.body) for message in harness.broker.inner.requests]
    commands = {name: body["command"] for name, body in zip(items, bodies, strict=True)}
    ids = {name: harness.request_id_of(item) for name, item in items.items()}
    clear_task("cleared")
    update_task("marked", state=TaskInstanceState.FAILED)
    update_task("elsewhere", state=TaskInstanceState.RUNNING, hostname="another", pid=1, unixname="another")

    environ = {
        **os.environ,
        "AIRFLOW__CORE__DAGS_FOLDER": str(tmp_path),
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": api.url,
        "AIRFLOW__LOGGING__BASE_LOG_FOLDER": str(tmp_path / "logs"),
        "AIRFLOW_IS_EXECUTOR_CONTAINER": "true",
        "EXECUTIONS": str(tmp_path / "executions"),
    }
    running = [
        subprocess.Popen([sys.executable, *command[1:]], env=environ, stdout=log, stderr=subprocess.STDOUT)
        for name, command in commands.items()
        for log in [(tmp_path / f"{name}.log").open("wb")]
    ]
    for process in running:
        process.wait(200)
    outputs = {name: (tmp_path / f"{name}.log").read_text() for name in commands}
    executions = tmp_path / "executions"
    assert (executions.read_text() if executions.exists() else "") == "waiting\n", outputs
    assert read_task_state("waiting") == "success"
    assert read_task_state("cleared") is None
    assert read_task_state("marked") == "failed"
    assert read_task_state("elsewhere") == "running"
    # A set: on a busy machine the client asks again.
    status_codes = {name: set(api.status_codes[f"/task-instances/{item.ti.id}/run"]) for name, item in items.items()}
    assert status_codes == {"waiting": {200}, "cleared": {404}, "marked": {409}, "elsewhere": {409}}

    # The executor withdraws what has not started, because Airflow's database shows it.
    for _ in range(2):
        harness.clock.advance(5)
        harness.heartbeat()
    harness.heartbeat()
    records = {name: harness.record(request_id) for name, request_id in ids.items()}
    assert {name for name, record in records.items() if record and record.state is State.REVOKED} >= {
        "cleared",
        "marked",
    }


def test_the_database_shows_which_requests_are_obsolete(harness: AirflowHarness, database: None) -> None:
    with closing(harness):
        tracked = {}
        for state in ("queued", "running", "restarting", "scheduled", "success", "failed", "deferred", None):
            item = insert_queued_task(harness, f"is-{state}")
            tracked[state] = TrackedWorkload(state, f"id-{state}", task_instance_id=str(item.ti.id), id_generated=True)
            update_task(f"is-{state}", state=state)
        tracked["unknown"] = TrackedWorkload("unknown", "unknown", task_instance_id=str(uuid.uuid4()))
        needed = {one.request_id for one in tracked.values()} - find_obsolete(list(tracked.values()))
        assert needed == {tracked[state].request_id for state in ("queued", "running", "restarting", "scheduled")}
        standings = {one.key: query_standings([one])[one.request_id].value for one in tracked.values()}
        assert standings == {
            "queued": "not_started",
            "running": "running",
            "restarting": "running",
            "success": "ended",
            "failed": "ended",
            "scheduled": "moved_on",
            "deferred": "moved_on",
            None: "moved_on",
            "unknown": "moved_on",
        }


def test_a_request_whose_task_was_queued_again_elsewhere_is_obsolete(harness: AirflowHarness, database: None) -> None:
    item = insert_queued_task(harness, "again")
    tracked = TrackedWorkload("again", "mine", task_instance_id=str(item.ti.id))
    update_task("again", external_executor_id=tracked.request_id)
    assert find_obsolete([tracked]) == set()
    assert find_other_ids([tracked]) == {}
    update_task("again", external_executor_id="another")
    assert find_other_ids([tracked]) == {tracked.request_id: "another"}
    assert find_obsolete([tracked]) == {tracked.request_id}
    assert query_standings([tracked]) == {tracked.request_id: TaskStanding.MOVED_ON}
    update_task("again", external_executor_id=None)  # the scheduler has not processed its QUEUED event yet
    assert find_obsolete([tracked]) == set()
