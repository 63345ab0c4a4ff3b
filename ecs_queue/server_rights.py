"""Recognizes that Redis or Valkey has denied a right, and names the right as far as the server says.

The servers' texts differ by version, and a script's denial has no error code of its own.
"""

from __future__ import annotations

import re

import redis.exceptions

from ecs_queue.errors import MissingRight

#: What to do about every missing right.
RIGHTS_ADVICE = (
    "use the user that is meant for this, or grant it to the user in the URL: `ecs-queue acl` prints the rights of "
    "each kind of user"
)

#: `User u has no permissions to run the 'zadd' command`; Redis 7.0 and older: `this user has ...`.
_COMMAND = re.compile(r"(?:\bUser (?P<user>\S+)|\bthis user) has no permissions to run the '(?P<command>[^']+)'")
#: Redis 7.0 and older, within a script: the command is not named.
_COMMAND_OF_SCRIPT = re.compile(r"can't run this command")
_KEY = re.compile(r"no permissions to access (?:a|one of the) keys?\b|can't access at least one of the keys", re.I)
_CHANNEL = re.compile(r"no permissions to access (?:a|one of the) channels?\b|can't publish", re.I)
#: What redis-py puts before an error within a pipeline. Only the first argument is shown: others may be payloads.
_PIPELINED = re.compile(r"^Command # \d+ \((?P<command>[A-Za-z]+) (?P<key>[\w.:{}-]+)[ )]")


def find_missing_right(error: BaseException, server: str, keys: str) -> MissingRight | None:
    """Return the error to raise when a server has denied a right; None when `error` says something else.

    Args:
        error: What the client library raised, or kombu, which keeps the library's error as the cause.
        server: "ledger", "broker" or "journal".
        keys: The pattern of the keys, one of which it was.
    """
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, redis.exceptions.ResponseError):
            right = _describe(str(cause), keys, is_denial=isinstance(cause, redis.exceptions.NoPermissionError))
            if right:
                return MissingRight(f"the {server}'s server denies {right}; {RIGHTS_ADVICE}")
        cause = cause.__cause__
    return None


def _describe(message: str, keys: str, *, is_denial: bool) -> str:
    """The denied right; "" for an error of another kind. `is_denial`: the server's error code says so."""
    found = _COMMAND.search(message)
    if found:
        return f"{_user(found['user'])} the command {found['command'].upper()}"
    if _COMMAND_OF_SCRIPT.search(message):
        return f"{_user(None)} a command that the script calls"
    if _KEY.search(message):
        pipelined = _PIPELINED.search(message)
        named = f" ({pipelined['command']} {pipelined['key']})" if pipelined and ":" in pipelined["key"] else ""
        return f"{_user(None)} a key{named} of {keys}"
    if _CHANNEL.search(message):
        return f"{_user(None)} a channel of {keys}"
    return f"{_user(None)} a right" if is_denial else ""


def _user(name: str | None) -> str:
    return f"user {name}" if name else "its user"
