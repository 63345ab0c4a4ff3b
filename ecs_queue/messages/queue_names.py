"""The names of queues. All spellings of a name that differ in case, dots and hyphens mean one queue."""

from __future__ import annotations

import re
from functools import lru_cache

_VALID_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")


def is_queue_name(name: str) -> bool:
    """Return whether requests may have this queue name."""
    return _VALID_NAME.fullmatch(name) is not None


@lru_cache(maxsize=1024)
def canonical_queue_name(name: str) -> str:
    """Return the one spelling in which requests are published and consumed: lower case, `_` for dots and hyphens.

    A variable AIRFLOW__AWS_ECS_EXECUTOR_HIGH_MEM__KEY cannot say more of a name than `high_mem`.
    """
    return re.sub(r"[^a-z0-9]", "_", name.lower())
