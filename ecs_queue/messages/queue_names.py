"""The names of queues. All spellings of a name that differ in case, dots and hyphens mean one queue."""

from __future__ import annotations

import re
from functools import lru_cache

from ecs_queue.errors import UsageError

#: What a name may have, in words, for errors.
QUEUE_NAME_RULE = "1 to 64 of A-Z a-z 0-9 _ . -"

_VALID_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")


def is_queue_name(name: str) -> bool:
    """Return whether requests may have this queue name."""
    return _VALID_NAME.fullmatch(name) is not None


@lru_cache(maxsize=1024)
def canonical_queue_name(name: str) -> str:
    """Return the one spelling in which requests are published and consumed: lower case, `_` for dots and hyphens.

    A variable such as AIRFLOW__AWS_ECS_EXECUTOR_HIGH_MEM__KEY cannot distinguish `high_mem` from `high-mem`.
    """
    return re.sub(r"[^a-z0-9]", "_", name.lower())


def parse_queue_name(name: str) -> str:
    """Return the canonical spelling of a name that a caller gives.

    Raises:
        UsageError: No queue can have this name.
    """
    if not is_queue_name(name):
        raise UsageError(f"queue: expected {QUEUE_NAME_RULE}, found {name!r}")
    return canonical_queue_name(name)
