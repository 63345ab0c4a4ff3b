"""Who may see and do what: the rules about hosts, origins and the token. Pure; `app` applies them."""

from __future__ import annotations

import hmac
import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

#: The cookie of a logged in browser. It holds a value derived from the token, never the token.
COOKIE = "ecs_queue_session"
_LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})

#: Sent with every answer. No script, style or image of another origin, and no inline one.
SECURITY_HEADERS: Mapping[str, str] = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


@dataclass(frozen=True)
class Access:
    """The rules of one server.

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
    def needs_login(self) -> bool:
        """Whether even a look needs the token: other machines can reach the server."""
        return not is_loopback(self.host)

    @property
    def session(self) -> str:
        """The cookie's value."""
        return self._derive(b"session")

    @property
    def form_token(self) -> str:
        """What each form of a page holds: a page of another origin cannot read it."""
        return self._derive(b"form")

    def permits_change(self, cookie: str | None, form_token: str, authorization: str) -> bool:
        """Return whether a form of a logged in browser, or a program with the token, asks for a change."""
        if not self.allow_changes:
            return False
        is_program = self.knows_token(authorization.removeprefix("Bearer ")) and authorization.startswith("Bearer ")
        is_form = hmac.compare_digest(form_token.encode(), self.form_token.encode())
        return is_program or (is_form and self.has_session(cookie))

    def knows_token(self, given: str) -> bool:
        """Return whether this is the token."""
        return hmac.compare_digest(given.encode(), self.token.encode())

    def has_session(self, cookie: str | None) -> bool:
        """Return whether the cookie is that of a logged in browser."""
        return cookie is not None and hmac.compare_digest(cookie.encode(), self.session.encode())

    def accepts_host(self, header: str) -> bool:
        """Return whether a request's Host names this server: a page of another name may have been led here by DNS."""
        name = _host_name(header)
        return bool(name) and name in {*_LOOPBACK_NAMES, self.host.lower(), *map(str.lower, self.allowed_hosts)}

    def _derive(self, purpose: bytes) -> str:
        return hmac.new(self.token.encode(), purpose, "sha256").hexdigest()


def is_own_origin(headers: Mapping[str, str]) -> bool:
    """Return whether no header says that a page of another origin sent the request. Names are in lower case."""
    site = headers.get("sec-fetch-site")
    if site is not None and site not in ("same-origin", "none"):
        return False
    origin = headers.get("origin")
    return origin is None or urlsplit(origin).netloc.lower() == headers.get("host", "").lower()


def is_loopback(host: str) -> bool:
    """Return whether only this machine can reach a server that listens there."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def _host_name(header: str) -> str:
    """Return the name or address without the port, in lower case; "" for what is none."""
    try:
        return urlsplit(f"//{header}").hostname or ""
    except ValueError:
        return ""
