"""Returns the messages of dead consumers to the heads of their lists, in bounded runs and in order."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from itertools import accumulate
from typing import Any, NamedTuple

import msgspec

from ecs_queue.broker import topology
from ecs_queue.broker.base import OnUndecodable
from ecs_queue.broker.element import find_problem, mark_redelivered

#: Maximum acknowledgements, and returned messages, of one run of a script: Lua unpacks at most some 8,000 arguments.
MAX_PER_RUN = 1000
#: Maximum bytes of messages that one run reads; one message is always read.
_MAX_BYTES = 8 * 1024 * 1024
_FROM_THE_FIRST = "-inf"


class Taken(NamedTuple):
    """A message that is among the unacknowledged ones; `name` is the broker's name of its queue."""

    name: str
    tag: bytes
    element: bytes


class _LastRun(NamedTuple):
    """What the last run put into a list: its last element, and how many."""

    element: bytes
    length: int


@cache
def read_script(name: str) -> str:
    """Return the text of a script of this package."""
    return (files("ecs_queue.broker") / name).read_text()


class MessageRestorer:
    """Goes through the index of unacknowledged messages from the oldest to the newest, a part with each run."""

    def __init__(
        self, client: Any, keys: topology.QueueKeys, max_message_bytes: int, on_undecodable: OnUndecodable
    ) -> None:
        """Use `client`; what cannot be returned goes to `on_undecodable`."""
        self._client = client
        self._keys = keys
        self._max_message_bytes = max_message_bytes
        self._on_undecodable = on_undecodable
        self._script = client.register_script(read_script("restore.lua"))
        self._last_runs: dict[str, _LastRun] = {}  # by list
        self._next_from = _FROM_THE_FIRST

    def run(self, latest: str) -> tuple[bool, list[bytes]]:
        """Return the next messages that were taken no later than `latest` to their lists.

        Returns:
            Whether there are more, and the tags of what was reported as undecodable, to be acknowledged.
        """
        expired, refused = list[Taken](), list[bytes]()
        for tag, value in self._read_next(latest):
            if value is None:  # kombu died between the two halves of its note
                self._client.zrem(self._keys.unacked_index, tag)
            elif (found := self._decode(tag, value)) is None:
                refused.append(tag)
            elif topology.is_request_queue(found.name):
                expired.append(found)
        if expired:
            self._restore(expired, latest)
        return self._next_from != _FROM_THE_FIRST, refused

    def _read_next(self, latest: str) -> Sequence[tuple[bytes, bytes | None]]:
        """Return as many tags and values as one run handles. The run after the last one begins with the first."""
        found = self._client.zrangebyscore(
            self._keys.unacked_index, self._next_from, latest, start=0, num=MAX_PER_RUN, withscores=True
        )
        self._next_from = _FROM_THE_FIRST
        if not found:
            return []
        with self._client.pipeline(transaction=False) as pipe:
            for tag, _ in found:
                pipe.hstrlen(self._keys.unacked, tag)
            sizes = accumulate(pipe.execute())
        count = max(1, sum(size <= _MAX_BYTES for size in sizes))
        if count < len(found) or len(found) == MAX_PER_RUN:
            self._next_from = f"({found[count - 1][1]!r}"
        tags = [tag for tag, _ in found[:count]]
        return list(zip(tags, self._client.hmget(self._keys.unacked, tags), strict=True))

    def _decode(self, tag: bytes, value: bytes) -> Taken | None:
        """Return a stored message; None if it is no message, which is reported.

        The name of its queue is "" if kombu returns it: a message of a named exchange, or a result.
        """
        try:
            element, exchange, name = msgspec.json.decode(value, type=tuple[msgspec.Raw, str, str])
            problem = find_problem(bytes(element))
        except (msgspec.DecodeError, ValueError, RecursionError):
            exchange, name, problem = "", "", "not an unacknowledged message as kombu stores it"
        if exchange or (name and not topology.is_request_queue(name)):
            return Taken("", tag, b"")
        if problem or not name:
            first_bytes = value[: self._max_message_bytes]
            self._on_undecodable(topology.request_queue_of(name), first_bytes, problem or "it names no queue")
            return None
        return Taken(name, tag, bytes(element))

    def _restore(self, expired: Sequence[Taken], latest: str) -> None:
        """Run restore.lua for messages that `decode_element` accepts, in the order in which they were taken."""
        lists: dict[tuple[str, str], list[tuple[bytes, bytes]]] = {}
        for taken in expired:
            element, priority = mark_redelivered(taken.element, taken.name)
            keys = self._keys.list_key(taken.name, priority), self._keys.wake_key(taken.name)
            lists.setdefault(keys, []).append((taken.tag, element))
        numbers = {self._keys.unacked: 1, self._keys.unacked_index: 2}
        arguments: list[Any] = [latest]
        for (list_key, wake_key), messages in lists.items():
            arguments += [numbers.setdefault(key, len(numbers) + 1) for key in (list_key, wake_key)]
            arguments += self._last_runs.get(list_key, _LastRun(b"", 0))
            arguments += [len(messages), *(value for message in messages for value in message)]
        results = self._script(keys=list(numbers), args=arguments)
        for ((list_key, _), messages), is_put in zip(lists.items(), results, strict=True):
            if is_put:
                self._last_runs[list_key] = _LastRun(messages[-1][1], len(messages))
