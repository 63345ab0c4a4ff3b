"""clientToken idempotency as AWS documents it for RunTask. Pure: times are parameters.

A token belongs to a cluster and is known for the shorter of 24 hours and the tasks' lifetime plus one hour. A call
with the same token and parameters returns the tasks of the first call; with other parameters it is a conflict that
names them. A call that started no task is stored with its failures for one hour.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field

from ecs_queue.local.ecs.aws_json import ApiError


@dataclass(slots=True)
class ClientTokenEntry:
    """The result of one token's call. `expires_at` is seconds since the epoch."""

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
        """Return the entry of the same earlier call; None for a new token; ConflictException for another call."""
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
        """Store the tasks that the token's call started, or its failures."""
        lifetime = self._seconds if arns else min(self._seconds, self._seconds_after_stop)
        entry = ClientTokenEntry(digest, arns, failures, now + lifetime, running_tasks=len(arns))
        self._entries[cluster, token] = entry
        heapq.heappush(self._expirations, (entry.expires_at, (cluster, token)))

    def task_stopped(self, cluster: str, token: str, arn: str, now: float) -> None:
        """Count a stopped task of this token; after the last one the shorter time applies."""
        entry = self._entries.get((cluster, token))
        if entry is None or arn not in entry.arns:  # the token has expired, or was used again
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
