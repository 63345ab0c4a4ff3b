"""What a visitor of the page may do. `access` decides it for `ecs-queue web`; Airflow has rules of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from starlette.requests import Request

#: The last part of the path of each change.
CHANGES = frozenset({"stop", "replay", "requeue", "pause", "resume", "drain"})


@dataclass(frozen=True, repr=False)
class Rights:
    """What a visitor may do, with the namespace or with one request.

    Attributes:
        look: See the facts. Without it the visitor gets an error page.
        output: See what containers wrote.
        values: See the values of arguments, as far as the journal keeps them.
        changes: Of `CHANGES`.
    """

    look: bool = False
    output: bool = False
    values: bool = False
    changes: frozenset[str] = frozenset()


@dataclass(frozen=True, repr=False)
class Refusal:
    """Why a request gets no page: a status with one line, or with `location` a redirect."""

    status: int
    text: str
    location: str = ""


@dataclass(frozen=True, repr=False)
class LogIn:
    """A log-in of the application's own.

    Attributes:
        path: Of its page.
        knows_token: Whether this is the token.
        cookie: The name of the cookie of a logged in browser, for the host that a request names.
        session: Its value.
    """

    path: str
    knows_token: Callable[[str], bool]
    cookie: Callable[[Request], str]
    session: str


class AccessRules(Protocol):
    """Decides about each request to the page. `rights` may block: it is called in threads."""

    @property
    def security_headers(self) -> Mapping[str, str]:
        """Headers of every answer."""
        ...

    @property
    def allow_changes(self) -> bool:
        """Whether any visitor may change anything; otherwise the paths of changes do not exist."""
        ...

    @property
    def login(self) -> LogIn | None:
        """The application's own log-in; None when visitors log in elsewhere."""
        ...

    @property
    def advice(self) -> str:
        """What a visitor needs who may not do something: a sentence without its full stop."""
        ...

    def refuse(self, request: Request) -> Refusal | None:
        """Return why the request is answered by no page: its host, its origin, or a visitor who must log in first."""
        ...

    def rights(self, request: Request) -> Rights:
        """Return what the visitor may do with the whole namespace."""
        ...

    def actor(self, request: Request) -> str:
        """Return as whom records name the visitor who changes something."""
        ...

    def form_token(self, request: Request) -> str:
        """Return what the forms for this visitor hold: a page of another origin cannot know it."""
        ...

    def is_genuine(self, request: Request, form_token: str) -> bool:
        """Return whether the visitor sent this change, and no page of another origin in their name."""
        ...
