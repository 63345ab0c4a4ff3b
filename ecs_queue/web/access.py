"""Who may see and do what in `ecs-queue web`: the rules about hosts, origins and the token. `app` applies them."""

from __future__ import annotations

import hmac
import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from ecs_queue.errors import UsageError
from ecs_queue.web.paths import login_path, page_path
from ecs_queue.web.rights import CHANGES, LogIn, Refusal, Rights

if TYPE_CHECKING:
    from starlette.requests import Request

#: The beginning of the name of a logged in browser's cookie. It holds a value derived from the token, never the token.
_COOKIE = "ecs_queue_session"
LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})
_LOGIN_PATH = "/login"
#: Paths that a browser needs before it is logged in.
_OPEN_PATHS = (_LOGIN_PATH, "/static/")
#: A load balancer asks for it under the address of this machine, whatever its name is. The answer tells nothing.
_HEALTH_PATH = "/healthz"
_DEFAULT_PORTS = {"http": 80, "https": 443}


def security_headers(*, framed: bool) -> Mapping[str, str]:
    """Return the headers of every answer: no script, style or image of another origin, and no inline one.

    Args:
        framed: Pages of the same origin may show the page in a frame; otherwise no page may.
    """
    ancestors = "'self'" if framed else "'none'"
    return {
        "Content-Security-Policy": (
            "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
            f"form-action 'self'; base-uri 'none'; frame-ancestors {ancestors}"
        ),
        "X-Content-Type-Options": "nosniff",
        "X-Frame-Options": "SAMEORIGIN" if framed else "DENY",
        # Not no-referrer: with that a browser sends the page's own forms with the origin null.
        "Referrer-Policy": "same-origin",
        "Cross-Origin-Opener-Policy": "same-origin",
        "Cross-Origin-Resource-Policy": "same-origin",
        "Cache-Control": "no-store",
    }


SECURITY_HEADERS = security_headers(framed=False)
OTHER_ORIGIN = "the request came from a page of another origin, or a proxy does not pass Host on with its port"


@dataclass(frozen=True)
class Access:
    """The rules of one server, as `AccessRules`.

    Attributes:
        token: Who has it may log in.
        host: The address that the server listens on.
        allow_changes: Whether who is logged in may stop, replay, requeue, pause, resume and drain.
        allowed_hosts: Further names under which browsers may ask for the page.
    """

    token: str = field(repr=False)
    host: str = "127.0.0.1"
    allowed_hosts: frozenset[str] = field(default_factory=frozenset)
    allow_changes: bool = False

    @property
    def security_headers(self) -> Mapping[str, str]:
        """See AccessRules."""
        return SECURITY_HEADERS

    @property
    def login(self) -> LogIn:
        """See AccessRules."""
        return LogIn(_LOGIN_PATH, self.knows_token, _cookie_of, self.session)

    @property
    def advice(self) -> str:
        """See AccessRules."""
        return "Log in first"

    @property
    def needs_login(self) -> bool:
        """Whether even a look needs the token: other machines can reach the server."""
        return not is_loopback(self.host)

    @property
    def session(self) -> str:
        """The cookie's value."""
        return self._derive(b"session")

    def refuse(self, request: Request) -> Refusal | None:
        """See AccessRules."""
        path = page_path(request)
        if path == _HEALTH_PATH:
            return None
        if not self.accepts_host(request.headers.get("host", "")):
            return Refusal(421, "this server has another name; --allowed-host adds one")
        if request.method not in ("GET", "HEAD") and not is_own_origin(request.headers):
            return Refusal(403, OTHER_ORIGIN)
        is_open = not self.needs_login or path.startswith(_OPEN_PATHS)
        if not is_open and not self._is_logged_in(request):
            return Refusal(303, "log in first", login_path(request, _LOGIN_PATH))
        return None

    def rights(self, request: Request) -> Rights:
        """See AccessRules."""
        logged_in = self._is_logged_in(request)
        changes = CHANGES if self.allow_changes and (logged_in or self._is_program(request)) else frozenset()
        return Rights(look=True, output=logged_in, values=logged_in, changes=changes)

    def actor(self, request: Request) -> str:
        """See AccessRules."""
        del request  # the token tells nothing of a person
        return "web page"

    def form_token(self, request: Request) -> str:
        """See AccessRules."""
        del request  # one token for all who are logged in
        return self._derive(b"form")

    def is_genuine(self, request: Request, form_token: str) -> bool:
        """See AccessRules: a form of a logged in browser, or a program with the token."""
        is_form = hmac.compare_digest(form_token.encode(), self.form_token(request).encode())
        return self._is_program(request) or (is_form and self._is_logged_in(request))

    def knows_token(self, given: str) -> bool:
        """Return whether this is the token."""
        return hmac.compare_digest(given.encode(), self.token.encode())

    def has_session(self, cookie: str | None) -> bool:
        """Return whether the cookie is that of a logged in browser."""
        return cookie is not None and hmac.compare_digest(cookie.encode(), self.session.encode())

    def accepts_host(self, header: str) -> bool:
        """Return whether a request's Host names this server: a page of another name may have been led here by DNS."""
        name = host_name(header)
        return bool(name) and name in {*LOOPBACK_NAMES, self.host.lower(), *map(str.lower, self.allowed_hosts)}

    def _is_logged_in(self, request: Request) -> bool:
        return self.has_session(request.cookies.get(_cookie_of(request)))

    def _is_program(self, request: Request) -> bool:
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        return scheme == "Bearer" and self.knows_token(token)

    def _derive(self, purpose: bytes) -> str:
        return hmac.new(self.token.encode(), purpose, "sha256").hexdigest()


def cookie_name(host: str) -> str:
    """Return the cookie's name for a request's Host. It has the port: browsers send a cookie to all ports of a name."""
    try:
        port = urlsplit(f"//{host}").port
    except ValueError:
        port = None
    return f"{_COOKIE}_{port}" if port else _COOKIE


def _cookie_of(request: Request) -> str:
    return cookie_name(request.headers.get("host", ""))


def is_own_origin(headers: Mapping[str, str]) -> bool:
    """Return whether no header says that a page of another origin sent the request. Names are in lower case."""
    site = headers.get("sec-fetch-site")
    if site is not None and site not in ("same-origin", "none"):
        return False
    origin = headers.get("origin")
    return origin is None or _is_host_of(headers.get("host", ""), origin)


def _is_host_of(host: str, origin: str) -> bool:
    """Return whether an origin has this Host: a browser leaves its default port out, where some proxies write it."""
    try:
        ours, theirs = urlsplit(f"//{host}"), urlsplit(origin)
        default = _DEFAULT_PORTS.get(theirs.scheme)
        names = ours.hostname, theirs.hostname
        return bool(names[0]) and names[0] == names[1] and (ours.port or default) == (theirs.port or default)
    except ValueError:
        return False


def parse_allowed_host(text: str) -> str:
    """Return a name or an address as `Access` compares it.

    Raises:
        UsageError: A browser's Host can never be this, such as a name with a scheme or a port.
    """
    name = text.strip("[]").lower()
    if host_name(f"[{name}]" if ":" in name else name) != name or not name:
        raise UsageError(f"--allowed-host {text}: expected a name or an address without scheme, port and path")
    return name


def is_loopback(host: str) -> bool:
    """Return whether only this machine can reach a server that listens there."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def host_name(header: str) -> str:
    """Return the name or address without the port, in lower case; "" for what is none."""
    try:
        return urlsplit(f"//{header}").hostname or ""
    except ValueError:
        return ""
