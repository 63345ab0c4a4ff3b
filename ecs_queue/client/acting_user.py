"""Who submits and stops requests, as records and the journal name it."""

from __future__ import annotations

import getpass
from contextlib import suppress
from functools import lru_cache

from ecs_queue.config import Config
from ecs_queue.error_text import error_text
from ecs_queue.errors import UsageError
from ecs_queue.messages.labels import check_name
from ecs_queue.protocol.record import RESERVED_NAMES

#: Where the operating system has no usable name, as in a container with a user that only has a number.
_UNKNOWN = "client"


def acting_user(config: Config) -> str:
    """Return the configured name (`acting_user`), else that of the operating system's user. It proves nothing."""
    return config.acting_user or _system_user()


def check_acting_user(name: str) -> str:
    """Return the name if a person or program may have it, else raise `UsageError`."""
    problem = f"expected another name than {name}, which has a meaning of its own" if name in RESERVED_NAMES else ""
    try:
        check_name(name)
    except ValueError as error:
        problem = error_text(error)
    if problem:
        raise UsageError(f"by: {problem}; nothing was stopped")
    return name


@lru_cache(maxsize=1)
def _system_user() -> str:
    with suppress(OSError, KeyError, ValueError):  # no name for this user's number, or one that is refused
        name = getpass.getuser()
        check_name(name)
        return _UNKNOWN if name in RESERVED_NAMES else name
    return _UNKNOWN
