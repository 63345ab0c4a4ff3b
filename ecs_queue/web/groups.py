"""The requests that another program made for one thing of its own, such as the tries of a task instance of Airflow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from ecs_queue.web.rights import Rights

if TYPE_CHECKING:
    from starlette.requests import Request


@dataclass(frozen=True, repr=False)
class Member:
    """One of the requests.

    Attributes:
        key: Chooses it in the page's address, as `?show=KEY`.
        label: What the other program calls it.
        state: What the other program knows of its end; "" for nothing.
        request_id: "" when no request was made.
    """

    key: str
    label: str
    state: str
    request_id: str


@dataclass(frozen=True, repr=False)
class RequestGroup:
    """The requests of one thing.

    Attributes:
        kind: What the thing is.
        name: Its name.
        members: Oldest first.
        note: Why there is no request, as a sentence; shown only then.
    """

    kind: str
    name: str
    members: Sequence[Member]
    note: str

    def choose(self, key: str) -> Member | None:
        """Return the member with this key, without a key the newest one that has a request."""
        for member in reversed(self.members):
            if member.key == key or (not key and member.request_id):
                return member
        return None


class GroupFinder(Protocol):
    """Finds groups by a path that the other program links to."""

    @property
    def path(self) -> str:
        """The path with its parameters, as a route of Starlette."""
        ...

    def find(self, request: Request) -> tuple[RequestGroup | None, Rights]:
        """Return the group that the path names, None if there is none, and what the visitor may do with its requests.

        Without the right to look the group is None.
        """
        ...
