"""The phases of a launch: from the queue to the task's end. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from ecs_queue.protocol.observation import parse_timestamp

#: In their order. `wait`: in the queue, or for the next attempt. `launch`: from the first RunTask call until one
#: succeeds. `provision`: until the image pull begins, or the container runs. `pull`: the image. `start`: from the
#: pulled image to the running container. `run`: the command. `stop`: from the stop request, or the command's end, to
#: STOPPED.
PHASES = ("wait", "launch", "provision", "pull", "start", "run", "stop")
#: The times of a task, in ECS's spelling, that begin or end a phase.
TASK_TIME_KEYS = ("pullStartedAt", "pullStoppedAt", "startedAt", "stoppingAt", "executionStoppedAt", "stoppedAt")
#: A shorter `start` or `stop` is not shown: not every task has these phases. Seconds.
_MIN_PHASE_SECONDS = 0.01


class Phase(msgspec.Struct, frozen=True):
    """One phase of a launch. Its `end` is None while it lasts."""

    name: str
    start: float
    end: float | None = None

    def seconds(self, now: float) -> float:
        """Return its duration, until `now` while it lasts."""
        return max(0.0, (now if self.end is None else self.end) - self.start)


def phase_starts(since: float, called: float, started: float, task: Mapping[str, Any]) -> list[tuple[str, float]]:
    """When each phase began; 0 if it did not, or if that is not known."""
    at = {key: parse_timestamp(task.get(key)) or 0.0 for key in TASK_TIME_KEYS}
    stops = [at[key] for key in ("stoppingAt", "executionStoppedAt", "stoppedAt") if at[key]]
    return [
        ("wait", since),
        ("launch", called),
        ("provision", started),
        ("pull", at["pullStartedAt"]),
        ("start", at["pullStoppedAt"] if at["pullStartedAt"] else 0.0),
        ("run", at["startedAt"]),
        ("stop", min(stops, default=0.0)),
        ("", at["stoppedAt"]),
    ]


def build_phases(starts: list[tuple[str, float]], ended_at: float | None) -> list[Phase]:
    """The phases between the known starts. The last one ends with the launch, or lasts."""
    phases: list[Phase] = []
    known = [(name, at) for name, at in starts if at]
    start = 0.0
    for index, (name, at) in enumerate(known):
        start = max(start, at)
        if not name:
            break
        end = known[index + 1][1] if index + 1 < len(known) else ended_at
        if end is not None:
            end = max(start, end)
        if not (name in ("start", "stop") and end is not None and end - start < _MIN_PHASE_SECONDS):
            phases.append(Phase(name, start, end))
    return phases
