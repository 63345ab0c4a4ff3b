"""Airflow's real API server in this process, with the page on a queue in memory."""

from __future__ import annotations

import itertools
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest
from airflow.api_fastapi.app import create_app, get_auth_manager, purge_cached_app
from airflow.api_fastapi.auth.managers.simple.user import SimpleAuthManagerUser
from airflow.models.dag import DagModel
from airflow.models.dagbundle import DagBundleModel
from airflow.models.dagrun import DagRun
from airflow.models.taskinstance import TaskInstance
from airflow.models.taskinstancehistory import TaskInstanceHistory
from airflow.utils.db import initdb
from airflow.utils.session import create_session
from sqlalchemy import delete, insert, select
from starlette.routing import Mount
from starlette.testclient import TestClient

from ecs_queue.airflow.page.app import PageApp
from ecs_queue.airflow.plugin import URL_PREFIX
from ecs_queue.testing import MemoryQueue

NAME = "airflow.example.com"
ADDRESS = f"https://{NAME}"
AUTH_MANAGER = "tests.airflow.dag_auth_manager.DagAuthManager"
RUN = "manual__2026-01-01T00:00:00+00:00"
_BUNDLE = "dags"
_numbers = itertools.count(1)


class PageSite:
    """The API server; `mount` puts a page on a queue."""

    def __init__(self, root: Any) -> None:
        self._root = root
        self._routes = list(root.router.routes)

    def mount(self, queue: MemoryQueue, *, allow_changes: bool = False) -> None:
        """Put a page in place of the last one, as Airflow does for a plugin."""
        page = PageApp(allow_changes=allow_changes, open_queue=lambda _: (queue, queue._broker)).build()
        self._root.router.routes[:] = [Mount(URL_PREFIX, page), *self._routes]

    def browser(self, user: str | None, **headers: str) -> TestClient:
        """Return a browser in which the user is logged in."""
        browser = TestClient(self._root, base_url=ADDRESS, headers=headers, follow_redirects=False)
        if user:
            token = get_auth_manager().generate_jwt(SimpleAuthManagerUser(username=user, role="VIEWER"))
            browser.cookies.set("_token", token)
        return browser


@contextmanager
def run_site(environ: Mapping[str, str]) -> Iterator[PageSite]:
    """Yield the API server, with these variables."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environ.items():
            patch.setenv(name, value)
        initdb()
        purge_cached_app()
        yield PageSite(create_app(apps="core"))
        purge_cached_app()


def add_dags(*dag_ids: str) -> None:
    """Let Airflow's database have these DAGs, and no others; forget all runs."""
    with create_session() as session:
        for model in (TaskInstanceHistory, TaskInstance, DagRun, DagModel):
            session.execute(delete(model))
        if session.scalar(select(DagBundleModel.name)) is None:
            session.add(DagBundleModel(name=_BUNDLE))
            session.flush()
        for dag_id in dag_ids:
            session.add(DagModel(dag_id=dag_id, bundle_name=_BUNDLE, fileloc="dag.py"))


def add_task_instance(
    dag_id: str,
    task_id: str = "task",
    *tries: tuple[str | None, str | None],
    run_id: str = RUN,
    map_index: int = -1,
) -> None:
    """Add a task instance.

    Args:
        tries: The state and the external_executor_id of each, oldest first.
    """
    with create_session() as session:
        known = session.scalar(select(DagRun.run_id).where(DagRun.dag_id == dag_id, DagRun.run_id == run_id))
        if known is None:
            session.add(DagRun(dag_id=dag_id, run_id=run_id, run_type="manual", state="running"))
            session.flush()
        key = {"dag_id": dag_id, "task_id": task_id, "run_id": run_id, "map_index": map_index, "pool": "default_pool"}
        *earlier, last = list(enumerate(tries, 1)) or [(0, (None, None))]
        _insert(session, TaskInstance, "id", last, key)
        for each in earlier:
            _insert(session, TaskInstanceHistory, "task_instance_id", each, key)


def _insert(
    session: Any, model: Any, id_column: str, each: tuple[int, tuple[Any, Any]], key: Mapping[str, Any]
) -> None:
    number, (state, external_id) = each
    try:
        is_uuid = model.__table__.c[id_column].type.python_type is uuid.UUID
    except NotImplementedError:
        is_uuid = False
    new_id = uuid.UUID(int=next(_numbers))
    values = {id_column: new_id if is_uuid else str(new_id), "pool_slots": 1, "try_number": number, "state": state}
    session.execute(insert(model.__table__).values(**key, **values, external_executor_id=external_id))
