"""The application: routes, pages and their protection."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode

from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from ecs_queue.broker.base import Broker
from ecs_queue.client.client import EcsQueue
from ecs_queue.client.records import RecordFilter
from ecs_queue.errors import BrokerUnavailable, EcsQueueError, JournalUnavailable, LedgerUnavailable, MissingRight
from ecs_queue.protocol.states import State
from ecs_queue.web import reading
from ecs_queue.web.access import COOKIE, SECURITY_HEADERS, Access, is_own_origin
from ecs_queue.web.actions import Action, Commands, build_actions
from ecs_queue.web.event_stream import EventStreams
from ecs_queue.web.presentation import Presentation

#: Paths that a browser needs before it is logged in.
_OPEN_PATHS = ("/login", "/static/", "/healthz")
_MAX_BODY_BYTES = 10_000
_LAST_LINES = 20


class WebApp:
    """The pages of one namespace. Each request reads in a thread of its own; the client is thread-safe."""

    def __init__(
        self, client: EcsQueue, broker: Broker, access: Access, presentation: Presentation, commands: Commands
    ) -> None:
        """Make the pages.

        Args:
            client: Of the namespace; the caller closes it.
            broker: That of the client, for the checks.
            access: Who may see what.
            presentation: How facts are shown.
            commands: What changes something, where `access` allows it.
        """
        self._actions = build_actions(client, commands) if access.allow_changes else {}
        self._client, self._broker, self._access, self._show = client, broker, access, presentation
        self._streams = EventStreams(client, presentation)
        self._templates = Environment(
            loader=PackageLoader("ecs_queue.web"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
        )
        self._templates.filters.update(
            duration=presentation.duration, timestamp=presentation.timestamp, path=lambda text: quote(text, safe="")
        )
        self._templates.globals.update(namespace=client.config.namespace, event_fields=presentation.event_fields)

    def build(self) -> Starlette:
        """Return the ASGI application."""
        pages = {
            "/": self._overview,
            "/tasks": self._tasks,
            "/tasks/{id}": self._request,
            "/dead": self._dead_letters,
            "/journal": self._journal,
        }
        return Starlette(
            routes=[
                *(Route(path, self._in_thread(page), methods=["GET"]) for path, page in pages.items()),
                *(Route(path, self._change(action), methods=["POST"]) for path, action in self._actions.items()),
                Route("/find", self._find, methods=["GET"]),
                Route("/journal/events", self._journal_events, methods=["GET"]),
                Route("/login", self._log_in, methods=["GET", "POST"]),
                Route("/healthz", lambda _: PlainTextResponse("ok\n"), methods=["GET"]),
                Mount("/static", StaticFiles(packages=[("ecs_queue.web", "static")])),
            ],
            middleware=[Middleware(BaseHTTPMiddleware, dispatch=self._protect)],
            exception_handlers={EcsQueueError: self._answer_error, 404: self._answer_not_found},
        )

    async def _protect(self, request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
        """Refuse what comes for another name, or from another origin; add the headers to every answer."""
        response = self._refuse(request) or await call_next(request)
        for name, value in SECURITY_HEADERS.items():
            response.headers.setdefault(name, value)
        return response

    def _refuse(self, request: Request) -> Response | None:
        if not self._access.accepts_host(request.headers.get("host", "")):
            return PlainTextResponse("this server has another name; --allowed-host adds one\n", 421)
        if request.method not in ("GET", "HEAD") and not is_own_origin(request.headers):
            return PlainTextResponse("the request came from a page of another origin\n", 403)
        if request.method == "POST" and not _is_small(request.headers.get("content-length", "")):
            return PlainTextResponse("the request is too large\n", 413)
        is_open = not self._access.needs_login or request.url.path.startswith(_OPEN_PATHS)
        if not is_open and not self._is_logged_in(request):
            return RedirectResponse("/login", 303)
        return None

    def _is_logged_in(self, request: Request) -> bool:
        return self._access.has_session(request.cookies.get(COOKIE))

    def _in_thread(self, page: Callable[[Request], Response]) -> Callable[[Request], Awaitable[Response]]:
        async def answer(request: Request) -> Response:
            return await run_in_threadpool(page, request)

        return answer

    def _change(self, action: Action) -> Callable[[Request], Awaitable[Response]]:
        async def answer(request: Request) -> Response:
            form = await _read_form(request)
            cookie, authorization = request.cookies.get(COOKIE), request.headers.get("authorization", "")
            if not self._access.permits_change(cookie, form.get("form_token", ""), authorization):
                return PlainTextResponse("log in first: nothing was changed\n", 403)
            return RedirectResponse(await run_in_threadpool(action, request.path_params["name"]), 303)

        return answer

    def _render(self, request: Request, name: str, status: int = 200, **values: Any) -> HTMLResponse:
        template = self._templates.get_template(f"{name}.html")
        logged_in = self._is_logged_in(request)
        form_token = self._access.form_token if logged_in and self._access.allow_changes else ""
        return HTMLResponse(template.render(page=name, logged_in=logged_in, form_token=form_token, **values), status)

    def _overview(self, request: Request) -> Response:
        view = reading.read_overview(self._client, self._broker)
        limits = {name: self._client.config.profile(name).max_in_flight for name in view.state.queues}
        warm = {name: self._client.config.profile(name).warm_seconds for name in view.state.queues}
        return self._render(request, "overview", view=view, limits=limits, warm=warm)

    def _tasks(self, request: Request) -> Response:
        given = {name: request.query_params.get(name, "").strip() for name in ("state", "queue", "reason", "after")}
        state = given["state"].upper()
        selection = RecordFilter(
            states=frozenset({state} if state in list(State) else ()),
            queue=given["queue"] or None,
            reason=given["reason"] or None,
        )
        records, cursor = reading.list_page(self._client.ledger, selection, given["after"])
        following = f"/tasks?{urlencode({**given, 'after': cursor})}" if cursor else ""
        now = self._client.ledger.now()
        return self._render(
            request, "tasks", records=records, given=given, following=following, states=list(State), now=now
        )

    def _request(self, request: Request) -> Response:
        record_id = request.path_params["id"]
        view = reading.read_request(self._client, record_id)
        if view is None:
            return self._unknown(request, f"No request {record_id} is known, or its retention time is over.")
        reveal = self._is_logged_in(request)
        shown = reading.revealed_arguments_text if reveal else reading.arguments_text
        fields = self._show.record_fields(view.record, view.now, view.paused) if view.record else []
        lines = self._show.last_lines(self._client, view.record, _LAST_LINES) if reveal and view.record else ()
        return self._render(
            request, "request", id=record_id, view=view, fields=fields, arguments=shown(view.events), lines=lines
        )

    def _dead_letters(self, request: Request) -> Response:
        letters, following = reading.read_dead_letters(self._client.ledger, request.query_params.get("after", ""))
        rows = [(letter, self._show.dead_letter_id(letter)) for letter in letters]
        return self._render(request, "dead", rows=rows, following=following, now=self._client.ledger.now())

    def _journal(self, request: Request) -> Response:
        found = reading.newest_events(self._client)
        note, (events, last) = (found, ([], "")) if isinstance(found, str) else ("", found)
        return self._render(request, "journal", note=note, events=events[::-1], last=last)

    async def _journal_events(self, request: Request) -> Response:
        if not self._streams.has_room:
            return PlainTextResponse("too many pages follow the journal\n", 503)
        after = request.headers.get("last-event-id") or request.query_params.get("after", "")
        return StreamingResponse(self._streams.follow(after), media_type="text/event-stream")

    async def _find(self, request: Request) -> Response:
        """Lead to a request by its id or by the ARN of its task."""
        name = request.query_params.get("id", "").strip()
        if ":" in name:
            found: str | None = await run_in_threadpool(self._client.ledger.find_id_by_arn, name)
            name = found or name
        return RedirectResponse(f"/tasks/{quote(name, safe='')}" if name else "/tasks", 303)

    async def _log_in(self, request: Request) -> Response:
        given = request.query_params.get("token", "")
        if request.method == "POST":
            given = (await _read_form(request)).get("token", "")
        if not given:
            return self._render(request, "login", failed=False)
        if not self._access.knows_token(given):
            return self._render(request, "login", 403, failed=True)
        response = RedirectResponse("/", 303)
        response.set_cookie(COOKIE, self._access.session, httponly=True, samesite="strict")
        return response

    def _unknown(self, request: Request, text: str) -> Response:
        return self._render(request, "error", 404, title="Not found", text=text)

    async def _answer_not_found(self, request: Request, error: Exception) -> Response:
        del error
        return self._unknown(request, "There is no such page.")

    async def _answer_error(self, request: Request, error: Exception) -> Response:
        status, title = 409, "Nothing was done"
        if isinstance(error, MissingRight):
            status, title = 403, "This user of the server may not do this"
        elif isinstance(error, BrokerUnavailable | JournalUnavailable | LedgerUnavailable):
            status, title = 503, "A server cannot be reached"
        return self._render(request, "error", status, title=title, text=str(error))


async def _read_form(request: Request) -> dict[str, str]:
    return dict(parse_qsl((await request.body()).decode(errors="replace")))


def _is_small(content_length: str) -> bool:
    """A body without a stated length is refused, too."""
    return content_length.isdecimal() and int(content_length) < _MAX_BODY_BYTES
