"""The application for Airflow's API server, the only process that imports this module.

Airflow mounts it and does not protect it: each request is answered only after Airflow's own dependency has found the
user. The pages are made with the first request, so that a mistake in the configuration does not stop the API server.
"""

from __future__ import annotations

import logging
import secrets
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace

from airflow.api_fastapi.app import get_auth_manager
from airflow.api_fastapi.core_api.security import GetUserDep
from airflow.configuration import AIRFLOW_CONFIG, conf
from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from ecs_queue.airflow.config import AirflowSources
from ecs_queue.airflow.page.access import PageAccess, set_visitor
from ecs_queue.airflow.page.task_instances import TaskInstances
from ecs_queue.airflow.task_log import hide_secrets
from ecs_queue.broker import open_broker
from ecs_queue.broker.base import Broker
from ecs_queue.cli.web import make_commands, make_presentation
from ecs_queue.client.client import EcsQueue
from ecs_queue.config import Config
from ecs_queue.error_text import error_text
from ecs_queue.errors import UsageError
from ecs_queue.journal import open_journal_store
from ecs_queue.ledger import open_ledger
from ecs_queue.protocol.record import Record
from ecs_queue.web.actions import Commands
from ecs_queue.web.app import WebApp
from ecs_queue.web.presentation import Presentation
from ecs_queue.web.threads import Threads

_LOGIN_STATUSES = (401, 403)
#: Returns a client and its broker. They stay open: the application ends with its process.
OpenQueue = Callable[[Config], tuple[EcsQueue, Broker]]
_log = logging.getLogger(__name__)


class PageApp:
    """Finds the user of each request, and passes it on to the pages of the global configuration's namespace."""

    def __init__(self, *, allow_changes: bool, open_queue: OpenQueue | None = None) -> None:
        """Open nothing yet.

        Args:
            allow_changes: Whether users with the rights may change something.
            open_queue: Opens the queue of the configuration.
        """
        self._open_queue = open_queue or _open_queue
        secret = conf.get("api", "secret_key", fallback="") or secrets.token_hex(32)
        base_url = conf.get("api", "base_url", fallback="") or ""
        self._access = PageAccess(allow_changes=allow_changes, base_url=base_url, secret=f"ecs-queue {secret}".encode())
        self._threads, self._lock = Threads(1), threading.Lock()
        self._pages: ASGIApp | None = None
        self._problem = ""

    def build(self) -> FastAPI:
        """Return the application. It opens no connection and reads no configuration of ecs-queue yet."""
        app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None)
        app.add_api_route("/{path:path}", self._answer, methods=["GET", "HEAD", "POST"])
        app.add_exception_handler(HTTPException, self._ask_to_log_in)
        return app

    async def _answer(self, request: Request, user: GetUserDep) -> Response:
        set_visitor(request, user)
        pages = self._pages or await self._threads.run(self._open)
        if pages is None:
            text = "the configuration of ecs-queue cannot be used: the log of Airflow's API server says why\n"
            return PlainTextResponse(text, 503, dict(self._access.security_headers))
        return _Forward(pages)

    async def _ask_to_log_in(self, request: Request, error: HTTPException) -> Response:
        """Lead a browser without a valid token to Airflow's log-in, and from there back."""
        headers = dict(self._access.security_headers)
        is_page = request.method == "GET" and "text/html" in request.headers.get("accept", "")
        if error.status_code in _LOGIN_STATUSES and is_page:
            query = f"?{request.url.query}" if request.url.query else ""
            login = get_auth_manager().get_url_login(next_url=f"{request.url.path}{query}")
            return RedirectResponse(login, 303, headers)
        return PlainTextResponse(f"{error.detail}\n", error.status_code, headers)

    def _open(self) -> ASGIApp | None:
        """Return the pages, None when the configuration cannot be used; the log then says why, once."""
        with self._lock:
            if self._pages is None:
                try:
                    self._pages = self._make_pages(AirflowSources(conf, AIRFLOW_CONFIG).load())
                except Exception as error:  # noqa: BLE001 - whatever a library makes of the settings
                    problem = error_text(error)
                    if problem != self._problem:
                        self._problem = problem
                        _log.error("ecs-queue: the page in Airflow's UI cannot be shown: %s", problem)
            return self._pages

    def _make_pages(self, config: Config) -> ASGIApp:
        client, broker = self._open_queue(config)
        commands, finder = _make_commands(config), TaskInstances(self._access)
        return WebApp(client, broker, self._access, _make_presentation(), commands, finder).build()


class _Forward(Response):
    """Answers with another application, for the same request."""

    def __init__(self, app: ASGIApp) -> None:
        super().__init__()
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app(scope, receive, send)


def _open_queue(config: Config) -> tuple[EcsQueue, Broker]:
    broker = open_broker(config)
    return EcsQueue(config, broker, open_ledger(config), owner="", journal=open_journal_store(config)), broker


def _make_presentation() -> Presentation:
    """Return the command line's functions; containers' lines without secrets, as in Airflow's own log view."""
    presentation = make_presentation()

    def last_lines(client: EcsQueue, record: Record, limit: int) -> Sequence[str] | str:
        found = presentation.last_lines(client, record, limit)
        return found if isinstance(found, str) else [hide_secrets(line) for line in found]

    return replace(presentation, last_lines=last_lines)


def _make_commands(config: Config) -> Commands:
    """Return the command line's functions; a task of Airflow is not replayed, for its token is no longer valid."""
    commands, prefix = make_commands(), f"{config.owner_prefix or 'airflow'}-"

    def may_replay(record: Record | None) -> bool:
        return record is not None and not record.owner.startswith(prefix)

    def replay(client: EcsQueue, record_id: str, suffix: str) -> str:
        if not may_replay(client.ledger.get([record_id])[0]):
            raise UsageError(f"{record_id} is, or may be, a task of Airflow: clear the task there, and it runs again")
        return commands.replay(client, record_id, suffix)

    return replace(commands, replay=replay, may_replay=may_replay)
