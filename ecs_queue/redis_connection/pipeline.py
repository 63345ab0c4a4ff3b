"""Several commands in one round trip."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import redis.exceptions


def run_pipeline(client: Any, commands: Sequence[Sequence[Any]]) -> list[Any]:
    """Return the reply to each command, or in its place the server's error.

    All go over one connection. They are sent once more after a lost connection, so that they must be harmless to
    repeat, and when none was done because another node of the cluster has the slot now.

    Args:
        client: Of `connect`.
        commands: Each with its arguments.

    Raises:
        redis.exceptions.RedisError: The server did not answer.
    """
    replies = _run_once(client, commands)
    if replies and all(isinstance(reply, redis.exceptions.MovedError) for reply in replies):
        replies = _run_once(client, commands)
    return replies


def _run_once(client: Any, commands: Sequence[Sequence[Any]]) -> list[Any]:
    with client.pipeline(transaction=False) as pipe:
        for command in commands:
            pipe.execute_command(*command)
        # An error that redis-py raises would quote the command, and with it a payload.
        replies: list[Any] = pipe.execute(raise_on_error=False)
        return replies
