"""clientToken idempotency as AWS documents it for RunTask. Pure: times are handed in.

A token is scoped to a cluster and known for the shorter of 24 hours and the tasks' lifetime plus one hour.
The same token with the same parameters answers for the tasks of the first call; with other parameters it is a
conflict that names them. A call that started nothing is remembered with its failures, for one hour.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field

from ecs_queue.local.ecs.wire import ApiError


@dataclass(slots=True)
class TokenEntry:
    """What one token has started. ``expires`` is seconds since 1970."""

    digest: bytes
    arns: tuple[str, ...]
    failures: tuple[dict[str, str], ...]
    expires: float
    alive: int = field(default=0)


class TokenBook:
    """The tokens of all clusters."""

    def __init__(self, seconds: float, after_stop_seconds: float) -> None:
        self._seconds = seconds
        self._after_stop = after_stop_seconds
        self._entries: dict[tuple[str, str], TokenEntry] = {}
        self._due: list[tuple[float, tuple[str, str]]] = []

    def __len__(self) -> int:
        return len(self._entries)

    def find(self, cluster: str, token: str, digest: bytes, now: float) -> TokenEntry | None:
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

    def remember(
        self,
        cluster: str,
        token: str,
        digest: bytes,
        arns: tuple[str, ...],
        failures: tuple[dict[str, str], ...],
        now: float,
    ) -> None:
        """This token has started these tasks, or failed with these failures."""
        life = self._seconds if arns else min(self._seconds, self._after_stop)
        entry = TokenEntry(digest, arns, failures, now + life, alive=len(arns))
        self._entries[cluster, token] = entry
        heapq.heappush(self._due, (entry.expires, (cluster, token)))

    def task_stopped(self, cluster: str, token: str, arn: str, now: float) -> None:
        """One task of this token has stopped; after the last one the shorter time counts."""
        entry = self._entries.get((cluster, token))
        if entry is None or arn not in entry.arns:  # the token is forgotten, or used again by now
            return
        entry.alive -= 1
        if entry.alive == 0 and now + self._after_stop < entry.expires:
            entry.expires = now + self._after_stop
            heapq.heappush(self._due, (entry.expires, (cluster, token)))

    def _purge(self, now: float) -> None:
        while self._due and self._due[0][0] <= now:
            _, key = heapq.heappop(self._due)
            entry = self._entries.get(key)
            if entry is not None and entry.expires <= now:
                del self._entries[key]
