"""What the page may change, with `--allow-changes` and the token. Each leads to the page that shows its effect."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from urllib.parse import quote

from ecs_queue.client.client import EcsQueue
from ecs_queue.ledger.base import Ledger

#: Does one action on a thing named in the path; returns the path of the page that shows the effect.
Action = Callable[[str], str]
_REQUESTED_BY = "web page"


@dataclass(frozen=True, repr=False)
class Commands:
    """Functions of the command line that change something.

    Attributes:
        replay: Submits a past request under a new id, and returns that.
        requeue: Submits a dead letter as a new request, and returns the id.
        drain: Lets the runners of a queue leave.
    """

    replay: Callable[[EcsQueue, str], str]
    requeue: Callable[[EcsQueue, str], str]
    drain: Callable[[Ledger, str], int]


def build_actions(client: EcsQueue, commands: Commands) -> Mapping[str, Action]:
    """Return path -> action; `{name}` in the path is its argument."""

    def task_page(record_id: str) -> str:
        return f"/tasks/{quote(record_id, safe='')}"

    def stop(record_id: str) -> str:
        client.status(record_id)  # an unknown id leaves no tombstone
        client.stop(record_id, by=_REQUESTED_BY)
        return task_page(record_id)

    def pause(queue: str) -> str:
        client.pause(queue)
        return "/"

    def resume(queue: str) -> str:
        client.resume(queue)
        return "/"

    def drain(queue: str) -> str:
        commands.drain(client.ledger, queue)
        return "/"

    return {
        "/tasks/{name}/stop": stop,
        "/tasks/{name}/replay": lambda record_id: task_page(commands.replay(client, record_id)),
        "/dead/{name}/requeue": lambda key: task_page(commands.requeue(client, key)),
        "/queues/{name}/pause": pause,
        "/queues/{name}/resume": resume,
        "/queues/{name}/drain": drain,
    }
