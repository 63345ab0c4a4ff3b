"""kombu's Redis channel with less work for each message: the same entries, fewer round trips and objects.

A receive and an acknowledgement each made a client object and a transaction of two commands. Neither needs to be
atomic: kombu writes an entry's time before the entry and its restore passes over a time without an entry. While there
is a backlog, several messages are taken in one run of fetch.lua.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any, NamedTuple

import redis.exceptions
from kombu.transport import redis as kombu_redis
from kombu.transport import virtual


class FetchedMessage(NamedTuple):
    """A message that is off its list and among the unacknowledged: the transport's name of its queue, the element."""

    queue: str
    element: bytes
    tag: str


class FetchAwareQoS(kombu_redis.QoS):  # type: ignore[misc]
    """kombu's book of what is in hand, which knows that some messages are among the server's unacknowledged already."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.fetched_tags: set[str] = set()

    def add_fetched(self, tag: str) -> None:
        """Taken with fetch.lua: given back at the end, also when nobody has got to see it."""
        self.fetched_tags.add(tag)
        self._quick_append(tag, None)

    def append(self, message: Any, delivery_tag: str) -> None:
        """See kombu."""
        if delivery_tag not in self.fetched_tags:
            super().append(message, delivery_tag)
            return
        self.fetched_tags.discard(delivery_tag)
        virtual.QoS.append(self, message, delivery_tag)


def optimize_channel(channel: Any) -> None:
    """One client for all commands of this channel, and pipelines without MULTI; other transports stay as they are."""
    create = getattr(channel, "_create_client", None)
    if create is None:
        return
    client = create()
    make_pipeline = client.pipeline

    def pipeline(transaction: bool = False, shard_hint: Any = None) -> Any:
        return make_pipeline(transaction, shard_hint)

    def created(asynchronous: bool = False) -> Any:
        return create(asynchronous) if asynchronous else client

    client.pipeline = pipeline  # a restore asks for its transaction in so many words
    channel._create_client = created
    channel.QoS = FetchAwareQoS


class BatchFetcher:
    """Takes messages of one lightened channel, several at once."""

    def __init__(self, channel: Any) -> None:
        self._channel = channel
        self._script = (files("ecs_queue.broker") / "fetch.lua").read_text()
        self._script_sha = hashlib.sha1(self._script.encode(), usedforsecurity=False).hexdigest()

    def fetch(self, limits: Mapping[str, int], acks: Sequence[Any] = ()) -> list[FetchedMessage]:
        """At most so many of each queue, the most urgent ones first; raises what redis-py raises.

        `dealt_with`: messages to acknowledge in the same round trip.
        """
        channel = self._channel
        open_ones = [message for message in acks if not message.acknowledged]
        tags = [message.delivery_tag for message in open_ones]
        keys = (channel.sep, " ".join(map(str, channel.priority_steps)), channel.unacked_key, channel.unacked_index_key)
        wanted = [value for pair in limits.items() for value in pair]
        client = channel._create_client()
        # kombu's client puts its prefix before the first of the arguments, as if it were a key.
        arguments = ("EVALSHA", self._script_sha, 0, "", *keys, repr(time.time()), len(tags), *tags, *wanted)
        try:
            flat = client.execute_command(*arguments)
        except redis.exceptions.NoScriptError:  # a new or restarted server
            client.script_load(self._script)
            flat = client.execute_command(*arguments)
        _mark_acked(channel.qos, open_ones)
        taken = [FetchedMessage(flat[i].decode(), flat[i + 1], flat[i + 2].decode()) for i in range(0, len(flat), 3)]
        for one in taken:
            channel.qos.add_fetched(one.tag)
        return taken


def ack_batch(messages: Sequence[Any]) -> None:
    """All in one round trip, where the transport is Redis; those that are settled already are passed over."""
    open_ones = [message for message in messages if not message.acknowledged]
    if len(open_ones) < 2 or not hasattr(open_ones[0].channel.qos, "pipe_or_acquire"):
        for message in open_ones:
            message.ack()
        return
    qos = open_ones[0].channel.qos
    tags = [message.delivery_tag for message in open_ones]
    with qos.pipe_or_acquire() as pipe:
        pipe.zrem(qos.unacked_index_key, *tags).hdel(qos.unacked_key, *tags).execute()
    _mark_acked(qos, open_ones)


def _mark_acked(qos: Any, messages: Sequence[Any]) -> None:
    """The server knows it, now kombu does."""
    for message in messages:
        virtual.QoS.ack(qos, message.delivery_tag)
        message._state = "ACK"
