"""What the page may change, where its rules of access allow it. Each leads to the page that shows its effect."""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from urllib.parse import quote

from ecs_queue.client.client import EcsQueue
from ecs_queue.errors import UsageError
from ecs_queue.ledger.base import Ledger
from ecs_queue.messages.queue_names import parse_queue_name
from ecs_queue.protocol.record import Record

_ONCE = re.compile(r"[0-9a-f]{8}")


@dataclass(frozen=True, repr=False)
class Change:
    """What a visitor asks for.

    Attributes:
        name: Of the thing, from the path: a request, a dead letter or a queue.
        actor: The person or program that asks.
        once: From the form. A replay with one that is not empty is done once, however often it is sent.
        message_id: From the form of a dead letter: the id in its message.
    """

    name: str
    actor: str
    once: str = ""
    message_id: str = ""


@dataclass(frozen=True, repr=False)
class Place:
    """A page to go to: its path and what a link to it says."""

    path: str
    label: str


class AlreadyDone(UsageError):  # noqa: N818 - nothing went wrong
    """An earlier press, or another user, has done it. `title` says what was done; `place` is the page that shows it."""

    def __init__(self, title: str, message: str, place: Place) -> None:
        super().__init__(message)
        self.title, self.place = title, place


#: Makes one change; returns the path of the page that shows its effect.
Action = Callable[[Change], str]


@dataclass(frozen=True, repr=False)
class Commands:
    """Functions of the command line that change something.

    Attributes:
        replay: Submits a past request under a new id that ends with 8 hex digits, and returns that; with the same ones
            again it is the same request.
        requeue: Submits a dead letter as a new request, and returns the id.
        requeue_id: The id of the request that a dead letter becomes, from its key and the id in its message.
        drain: Lets the runners of a queue leave.
        may_replay: Whether it makes sense to replay this request; None is one that only the journal has.
    """

    replay: Callable[[EcsQueue, str, str], str]
    requeue: Callable[[EcsQueue, str], str]
    requeue_id: Callable[[str, str], str]
    drain: Callable[[Ledger, str], int]
    may_replay: Callable[[Record | None], bool] = lambda _: True


def make_once() -> str:
    """Return a value for a form that has not been sent."""
    return secrets.token_hex(4)


def task_page(record_id: str) -> str:
    """Return the path of the page of a request."""
    return f"/tasks/{quote(record_id, safe='')}"


def find_form_place(path: str, name: str) -> Place:
    """Return the page with the form of an action; `path` is one of `build_actions`."""
    if path.startswith("/tasks/"):
        return Place(task_page(name), f"Request {name}")
    return Place("/dead", "Dead letters") if path.startswith("/dead/") else Place("/", "Overview")


def build_actions(client: EcsQueue, commands: Commands) -> Mapping[str, Action]:
    """Return path -> action; `{name}` in the path is its argument."""

    def stop(change: Change) -> str:
        client.status(change.name)  # an unknown id leaves no tombstone
        client.stop(change.name, by=change.actor)
        return task_page(change.name)

    def replay(change: Change) -> str:
        """A form that is sent twice, by a second press or after a lost answer, leads to the same new request."""
        once = change.once if _ONCE.fullmatch(change.once) else make_once()
        return task_page(commands.replay(client, change.name, once))

    def requeue(change: Change) -> str:
        try:
            return task_page(commands.requeue(client, change.name))
        except UsageError:
            if client.ledger.get_dead_letters([change.name])[0] is not None:
                raise
        new_id = commands.requeue_id(change.name, change.message_id)
        if change.message_id and client.ledger.get([new_id])[0] is not None:
            text = f"This dead letter was requeued as the request {new_id}; nothing was done again."
            raise AlreadyDone("Already requeued", text, Place(task_page(new_id), f"Request {new_id}"))
        text = "This dead letter was requeued or purged; nothing was done again."
        raise AlreadyDone("No longer a dead letter", text, find_form_place("/dead/", ""))

    def pause(change: Change) -> str:
        client.pause(change.name)
        return "/"

    def resume(change: Change) -> str:
        client.resume(change.name)
        return "/"

    def drain(change: Change) -> str:
        commands.drain(client.ledger, parse_queue_name(change.name))
        return "/"

    return {
        "/tasks/{name}/stop": stop,
        "/tasks/{name}/replay": replay,
        "/dead/{name}/requeue": requeue,
        "/queues/{name}/pause": pause,
        "/queues/{name}/resume": resume,
        "/queues/{name}/drain": drain,
    }
