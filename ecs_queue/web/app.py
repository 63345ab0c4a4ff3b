"""The application: routes, pages and their protection."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode

from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from ecs_queue.broker.base import Broker
from ecs_queue.client.client import EcsQueue
from ecs_queue.client.records import RecordFilter
from ecs_queue.errors import (
    BrokerUnavailable,
    EcsQueueError,
    JournalUnavailable,
    LedgerUnavailable,
    MissingRight,
    UnknownTask,
)
from ecs_queue.messages.queue_names import canonical_queue_name
from ecs_queue.protocol.states import State
from ecs_queue.web import reading
from ecs_queue.web.actions import (
    Action,
    AlreadyDone,
    Change,
    Commands,
    Place,
    build_actions,
    find_form_place,
    make_once,
)
from ecs_queue.web.charts import build_hour_view, format_rate
from ecs_queue.web.event_stream import EventStreams
from ecs_queue.web.groups import GroupFinder, RequestGroup
from ecs_queue.web.hour_reader import HourReader
from ecs_queue.web.paths import base_path, keep_base_path, login_path, login_path_to, own_path, path_without_last_slash
from ecs_queue.web.presentation import Presentation
from ecs_queue.web.rights import AccessRules, LogIn, Rights
from ecs_queue.web.threads import Threads

_MAX_BODY_BYTES = 10_000
_LAST_LINES = 20
#: Pages that are read at the same time.
_MAX_READS = 16

Answer = Callable[[Request], Awaitable[Response]]


class WebApp:
    """The pages of one namespace. Each request reads in a thread; the client is thread-safe.

    All links are below the path under which another application has mounted this one.

    Attributes:
        streams: The live events; they take as long as a browser shows them.
    """

    def __init__(
        self,
        client: EcsQueue,
        broker: Broker,
        access: AccessRules,
        presentation: Presentation,
        commands: Commands,
        groups: GroupFinder | None = None,
    ) -> None:
        """Make the pages.

        Args:
            client: Of the namespace; the caller closes it.
            broker: That of the client, for the checks.
            access: Who may see what.
            presentation: How facts are shown.
            commands: What changes something, where `access` allows it.
            groups: Finds the requests that another program made for one thing of its own.
        """
        self._actions = build_actions(client, commands) if access.allow_changes else {}
        self._client, self._broker, self._access, self._show = client, broker, access, presentation
        self._groups, self._may_replay = groups, commands.may_replay
        self.streams, self._threads = EventStreams(client, presentation), Threads(_MAX_READS)
        self._hour = HourReader(partial(reading.read_last_hour, client), time.monotonic)
        self._templates = Environment(
            loader=PackageLoader("ecs_queue.web"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
        )
        self._templates.filters.update(
            duration=presentation.duration,
            timestamp=presentation.timestamp,
            path=lambda text: quote(text, safe=""),
            rate=format_rate,
        )
        self._templates.globals.update(namespace=client.config.namespace, event_fields=presentation.event_fields)

    def build(self) -> Starlette:
        """Return the ASGI application."""
        pages = {
            "/": self._overview,
            "/tasks": self._tasks,
            "/tasks/{id}": self._request,
            "/tasks/{id}/arguments": self._argument_diff,
            "/runners": self._runners,
            "/dead": self._dead_letters,
            "/journal": self._journal,
            "/find": self._find,
        }
        app = Starlette(
            routes=[
                *(Route(path, self._look(page), methods=["GET"]) for path, page in pages.items()),
                *(Route(path, self._change(path, action), methods=["POST"]) for path, action in self._actions.items()),
                *([Route(self._groups.path, self._find_group, methods=["GET"])] if self._groups else []),
                *([self._login_route(self._access.login)] if self._access.login else []),
                Route("/journal/events", self._journal_events, methods=["GET"]),
                Route("/healthz", lambda _: PlainTextResponse("ok\n"), methods=["GET"]),
                Mount("/static", StaticFiles(packages=[("ecs_queue.web", "static")])),
            ],
            middleware=[Middleware(BaseHTTPMiddleware, dispatch=self._protect)],
            exception_handlers={EcsQueueError: self._answer_error, 404: self._answer_not_found},
        )
        app.router.redirect_slashes = False  # its address is absolute: behind a proxy with TLS it begins with http
        return app

    async def _protect(self, request: Request, call_next: Answer) -> Response:
        """Refuse what the rules refuse, and what is too large; add the headers to every answer."""
        keep_base_path(request)
        response = self._refuse(request) or await call_next(request)
        for name, value in self._access.security_headers.items():
            response.headers.setdefault(name, value)
        return response

    def _refuse(self, request: Request) -> Response | None:
        refusal = self._access.refuse(request)
        if refusal is not None and refusal.location:
            return RedirectResponse(base_path(request) + refusal.location, refusal.status)
        if refusal is not None:
            return PlainTextResponse(f"{refusal.text}\n", refusal.status)
        if request.method == "POST" and not _is_small(request.headers.get("content-length", "")):
            return PlainTextResponse("the request is too large\n", 413)
        return None

    def _look(self, page: Callable[[Request, Rights], Response]) -> Answer:
        def read(request: Request) -> Response:
            rights = self._access.rights(request)
            return page(request, rights) if rights.look else self._forbid(request)

        async def answer(request: Request) -> Response:
            return await self._threads.run(read, request)

        return answer

    def _change(self, path: str, action: Action) -> Answer:
        name = path.rpartition("/")[2]

        def perform(request: Request, form: Mapping[str, str]) -> Response:
            rights = self._access.rights(request)
            if not (name in rights.changes and self._access.is_genuine(request, form.get("form_token", ""))):
                place = find_form_place(path, request.path_params["name"]) if rights.look else None
                return self._show_error(request, rights, 403, "Nothing was changed", f"{self._access.advice}.", place)
            target, once = request.path_params["name"], form.get("once", "")
            try:
                shown = action(Change(target, self._access.actor(request), once, form.get("message_id", "")))
            except EcsQueueError as error:
                return self._show_failure(request, rights, error, find_form_place(path, target))
            return RedirectResponse(base_path(request) + shown, 303)

        async def answer(request: Request) -> Response:
            return await self._threads.run(perform, request, await _read_form(request))

        return answer

    def _render(
        self,
        request: Request,
        rights: Rights,
        name: str,
        shown: Mapping[str, Any],
        status: int = 200,
        *,
        sees_namespace: bool = True,
    ) -> HTMLResponse:
        """Return a page. `sees_namespace`: with links to the pages about all requests."""
        login = self._access.login
        values = {
            "page": name,
            "base": base_path(request),
            "rights": rights,
            "sees_namespace": sees_namespace,
            "form_token": self._access.form_token(request) if rights.changes else "",
            "login": login,
            "login_link": base_path(request) + login_path(request, login.path) if login else "",
            "advice": self._access.advice,
        }
        return HTMLResponse(self._templates.get_template(f"{name}.html").render({**values, **shown}), status)

    def _overview(self, request: Request, rights: Rights) -> Response:
        view = reading.read_overview(self._client, self._broker)
        profiles = {name: self._client.config.profile(name) for name in view.state.queues}
        hour = self._hour.get()
        shown_hour = hour if isinstance(hour, str) else build_hour_view(hour, self._show.duration)
        shown = {"view": view, "profiles": profiles, "hour": shown_hour}
        return self._render(request, rights, "overview", shown)

    def _runners(self, request: Request, rights: Rights) -> Response:
        given = _read_filters(request, "queue", "after")
        rows, cursor = reading.list_runners(self._client, given["queue"], given["after"])
        following = f"{base_path(request)}/runners?{urlencode({**given, 'after': cursor})}" if cursor else ""
        shown = {"rows": rows, "given": given, "following": following, "now": self._client.ledger.now()}
        return self._render(request, rights, "runners", {**shown, "bound": reading.MAX_RUNNERS})

    def _tasks(self, request: Request, rights: Rights) -> Response:
        given = _read_filters(request, "state", "queue", "reason", "after")
        state = given["state"].upper()
        selection = RecordFilter(
            states=frozenset({state} if state in list(State) else ()),
            queue=given["queue"] or None,
            reason=given["reason"] or None,
        )
        records, cursor = reading.list_page(self._client.ledger, selection, given["after"])
        following = f"{base_path(request)}/tasks?{urlencode({**given, 'after': cursor})}" if cursor else ""
        shown = {"records": records, "given": given, "following": following, "states": list(State)}
        return self._render(request, rights, "tasks", {**shown, "now": self._client.ledger.now()})

    def _request(self, request: Request, rights: Rights) -> Response:
        record_id = request.path_params["id"]
        view = reading.read_request(self._client, record_id, self._show.retry_id)
        if view is None:
            return self._not_found(request, rights, f"No request {record_id} is known, or its retention time is over.")
        return self._show_request(request, rights, record_id, view)

    def _show_request(
        self,
        request: Request,
        rights: Rights,
        record_id: str,
        view: reading.RequestView,
        group: RequestGroup | None = None,
        sees_namespace: bool = True,
    ) -> Response:
        record = view.record
        arguments = reading.revealed_arguments_text if rights.values else reading.arguments_text
        shown = {
            "id": record_id,
            "view": view,
            "group": group,
            "fields": self._show.record_fields(self._client, record, view.now, view.paused) if record else [],
            "arguments": arguments(view.events),
            "lines": self._show.last_lines(self._client, record, _LAST_LINES) if rights.output and record else (),
            "may_replay": "replay" in rights.changes and self._may_replay(record),
            "once": make_once(),
        }
        return self._render(request, rights, "request", shown, sees_namespace=sees_namespace)

    def _argument_diff(self, request: Request, rights: Rights) -> Response:
        """Compare what was sent to ECS for a request with what would be sent now."""
        if not rights.values:
            return self._forbid(request)
        record_id = request.path_params["id"]
        try:
            lines = self._show.argument_diff(self._client, record_id)
        except UnknownTask as error:
            return self._not_found(request, rights, f"{error}.")
        return self._render(request, rights, "arguments", {"id": record_id, "lines": lines})

    async def _find_group(self, request: Request) -> Response:
        return await self._threads.run(self._group, request)

    def _group(self, request: Request) -> Response:
        """Show the request of a group that the address chooses, or say that there is none."""
        assert self._groups is not None
        group, rights = self._groups.find(request)
        sees_namespace = self._access.rights(request).look
        if group is None:
            text = "There is none of this name, or you may not see it."
            return self._show_error(request, Rights(look=sees_namespace), 404, "Not found", text)
        chosen = group.choose(request.query_params.get("show", ""))
        request_id = chosen.request_id if chosen else ""
        view = reading.read_request(self._client, request_id, self._show.retry_id) if request_id else None
        if view is None:
            shown = {"group": group, "request_id": request_id}
            return self._render(request, rights, "group", shown, sees_namespace=sees_namespace)
        return self._show_request(request, rights, request_id, view, group, sees_namespace)

    def _dead_letters(self, request: Request, rights: Rights) -> Response:
        letters, following = reading.read_dead_letters(self._client.ledger, request.query_params.get("after", ""))
        rows = [(letter, self._show.dead_letter_id(letter)) for letter in letters]
        shown = {"rows": rows, "following": following, "now": self._client.ledger.now()}
        return self._render(request, rights, "dead", shown)

    def _journal(self, request: Request, rights: Rights) -> Response:
        found = reading.newest_events(self._client)
        note, (events, last) = (found, ([], "")) if isinstance(found, str) else ("", found)
        return self._render(request, rights, "journal", {"note": note, "events": events[::-1], "last": last})

    async def _journal_events(self, request: Request) -> Response:
        if not (await self._threads.run(self._access.rights, request)).look:
            return PlainTextResponse(f"{self._access.advice}\n", 403)
        if not self.streams.has_room:
            return PlainTextResponse("too many pages follow the journal\n", 503)
        after = request.headers.get("last-event-id") or request.query_params.get("after", "")
        if after and not reading.is_seq(after):
            return PlainTextResponse("after is not the seq of an event\n", 400)
        return self.streams.respond(after, with_body=request.method != "HEAD")

    def _find(self, request: Request, rights: Rights) -> Response:
        """Lead to a request by its id or by the ARN of its task."""
        del rights
        name = request.query_params.get("id", "").strip()
        if ":" in name:
            name = self._client.ledger.find_id_by_arn(name) or name
        return RedirectResponse(f"{base_path(request)}/tasks{'/' if name else ''}{quote(name, safe='')}", 303)

    def _login_route(self, login: LogIn) -> Route:
        async def answer(request: Request) -> Response:
            rights = self._access.rights(request)
            given = await _read_form(request) if request.method == "POST" else request.query_params
            token, following = given.get("token", ""), own_path(given.get("next", ""))
            shown = {"failed": bool(token), "following": following}
            if not token:
                return self._render(request, rights, "login", shown)
            if not login.knows_token(token):
                return self._render(request, rights, "login", shown, 403)
            response = RedirectResponse(f"{base_path(request)}{following}", 303)
            is_https = request.url.scheme == "https"
            # Lax: a link on a page of another site finds the browser logged in. What changes something is no link.
            response.set_cookie(login.cookie(request), login.session, httponly=True, samesite="lax", secure=is_https)
            return response

        return Route(login.path, answer, methods=["GET", "POST"])

    def _not_found(self, request: Request, rights: Rights, text: str) -> Response:
        return self._show_error(request, rights, 404, "Not found", text)

    def _forbid(self, request: Request) -> Response:
        return self._show_error(request, Rights(), 403, "Not allowed", f"{self._access.advice}.")

    def _show_error(
        self, request: Request, rights: Rights, status: int, title: str, text: str, place: Place | None = None
    ) -> Response:
        """Show an error. `rights`: those with the namespace; `place`: where to go on."""
        shown = {"title": title, "text": text, "place": place, "may_log_in": status == 403 and not rights.values}
        if place and self._access.login:
            shown["login_link"] = base_path(request) + login_path_to(place.path, self._access.login.path)
        return self._render(request, rights, "error", shown, status, sees_namespace=rights.look)

    def _show_failure(self, request: Request, rights: Rights, error: Exception, place: Place | None = None) -> Response:
        status, title = 409, "Nothing was done"
        if isinstance(error, AlreadyDone):
            title, place = error.title, error.place
        elif isinstance(error, MissingRight):
            status, title = 403, "This user of the server may not do this"
        elif isinstance(error, BrokerUnavailable | JournalUnavailable | LedgerUnavailable):
            status, title = 503, "A server cannot be reached"
        return self._show_error(request, rights, status, title, str(error), place)

    async def _answer_not_found(self, request: Request, error: Exception) -> Response:
        del error
        path = path_without_last_slash(request)
        if path:
            return RedirectResponse(base_path(request) + path, 307)
        rights = await self._threads.run(self._access.rights, request)
        return self._not_found(request, rights, "There is no such page.")

    async def _answer_error(self, request: Request, error: Exception) -> Response:
        rights = await self._threads.run(self._access.rights, request)
        return self._show_failure(request, rights, error)


async def _read_form(request: Request) -> dict[str, str]:
    return dict(parse_qsl((await request.body()).decode(errors="replace")))


def _is_small(content_length: str) -> bool:
    """A body without a stated length is refused, too."""
    return content_length.isdecimal() and int(content_length) < _MAX_BODY_BYTES


def _read_filters(request: Request, *names: str) -> dict[str, str]:
    """Return the named parameters, a queue in its canonical spelling."""
    given = {name: request.query_params.get(name, "").strip() for name in names}
    return {**given, "queue": canonical_queue_name(given["queue"])}
