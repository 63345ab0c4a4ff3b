"""clientToken idempotency as AWS documents it for RunTask. Pure: times are handed in.

A token is scoped to a cluster and known for the shorter of 24 hours and the tasks' lifetime plus one hour.
The same token with the same parameters answers for the tasks of the first call; with other parameters it is a
conflict that names them. A call that started nothing is remembered with its failures, for one hour.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field

from ecs_queue.local.ecs.aws_json import ApiError


@dataclass(slots=True)
class ClientTokenEntry:
    """What one token has started. ``expires`` is seconds since 1970."""

    digest: bytes
    arns: tuple[str, ...]
    failures: tuple[dict[str, str], ...]
    expires_at: float
    running_tasks: int = field(default=0)


class ClientTokenStore:
    """The tokens of all clusters."""

    def __init__(self, seconds: float, seconds_after_stop: float) -> None:
        self._seconds = seconds
        self._seconds_after_stop = seconds_after_stop
        self._entries: dict[tuple[str, str], ClientTokenEntry] = {}
        self._expirations: list[tuple[float, tuple[str, str]]] = []

    def __len__(self) -> int:
        return len(self._entries)

    def find(self, cluster: str, token: str, digest: bytes, now: float) -> ClientTokenEntry | None:
        """The entry of the same call made before, None for a new token, else ConflictException."""
        self._purge(now)
        entry = self._entries.get((cluster, token))
        if entry is not None and entry.digest != digest:
            raise ApiError(
                "ConflictException",
                "The client token was used before with other parameters.",
                resourceIds=list(entry.arns),
            )
        return entry

    def add(
        self,
        cluster: str,
        token: str,
        digest: bytes,
        arns: tuple[str, ...],
        failures: tuple[dict[str, str], ...],
        now: float,
    ) -> None:
        """This token has started these tasks, or failed with these failures."""
        life = self._seconds if arns else min(self._seconds, self._seconds_after_stop)
        entry = ClientTokenEntry(digest, arns, failures, now + life, running_tasks=len(arns))
        self._entries[cluster, token] = entry
        heapq.heappush(self._expirations, (entry.expires_at, (cluster, token)))

    def task_stopped(self, cluster: str, token: str, arn: str, now: float) -> None:
        """One task of this token has stopped; after the last one the shorter time counts."""
        entry = self._entries.get((cluster, token))
        if entry is None or arn not in entry.arns:  # the token is forgotten, or used again by now
            return
        entry.running_tasks -= 1
        if entry.running_tasks == 0 and now + self._seconds_after_stop < entry.expires_at:
            entry.expires_at = now + self._seconds_after_stop
            heapq.heappush(self._expirations, (entry.expires_at, (cluster, token)))

    def _purge(self, now: float) -> None:
        while self._expirations and self._expirations[0][0] <= now:
            _, key = heapq.heappop(self._expirations)
            entry = self._entries.get(key)
            if entry is not None and entry.expires_at <= now:
                del self._entries[key]
