"""The launchers' side of warm pools: which operations the ledger has on runs (docs/protocol.md, "Warm pools").

What a runner calls is `ecs_queue.runs.operations.RunnerOperations`. `claim`, `reclaim`, `launched`, `no_effect`,
`refused` and `stop` change a run together with its record.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from ecs_queue.ledger.contracts import contract
from ecs_queue.protocol.operations import OperationResult, RunnerTask, SettleRequest, TaskUpdate
from ecs_queue.protocol.runs import Run


class RunOperations(Protocol):
    """The operations that change a record and the run that has its launch."""

    @contract("OK ENDED REQUEUED DESCRIBE_TASK STOP_TASK END_UNREAD STALE NOT_FOUND BROKEN", barrier=True)
    def settle(self, requests: Sequence[SettleRequest]) -> list[OperationResult]:
        """Bring records in line with their runs, in order. May run at any time, any number of times.

        Returns:
            END_UNREAD: read the run and name the end that it has. OK, DESCRIBE_TASK and STOP_TASK with the record.
        """
        ...

    @contract("OK ENDED REQUEUED STALE NOT_FOUND BROKEN", barrier=True)
    def update_runner_tasks(self, updates: Sequence[TaskUpdate]) -> list[OperationResult]:
        """Record what ECS shows of the tasks of runners, as `update_tasks` does of others.

        The end of a task ends only a request whose command its runner had taken, and never as SUCCESS. STALE: the run
        knows better; `settle`.
        """
        ...


class WarmPools(Protocol):
    """Runs and the hints about them."""

    def read_runs(self, names: Sequence[str]) -> list[Run | None]:
        """Return runs without their payloads, None for an absent one, in order."""
        ...

    def list_runs(self) -> list[Run]:
        """Return the runs of all runners that may live, without their payloads, by name."""
        ...

    def pop_changed_runs(self, seconds: float, limit: int) -> list[Run]:
        """Return up to `limit` runs that their runners have changed, without payloads; wait for one, at most `seconds`.

        A change is returned once: it is a hint, and a record's due time finds what a lost one would have.
        """
        ...

    @contract(barrier=True)
    def may_stop(self, tasks: Sequence[RunnerTask]) -> list[bool]:
        """Return whether StopTask would hit no request: the run is absent, another task's, or closed, not FETCHED."""
        ...

    @contract(barrier=True)
    def close_silent(self, limit: int) -> list[Run]:
        """Close up to `limit` idle runs whose runners were silent for `runner_lost_seconds`.

        A run whose record was deleted becomes idle when its runner was silent for this time. Idle runs that claims have
        dropped, and whose runners call again, may be assigned again.

        Returns:
            The runs whose tasks are to be stopped, until `forget_runner`: these, and silent ones that were closed
            before and whose runners never got the order to exit.
        """
        ...

    def forget_runner(self, name: str) -> None:
        """Drop a closed run: ECS has taken the order to stop its task, or knows it no more."""
        ...

    @contract(barrier=True)
    def drain_pools(self, pools: Sequence[str]) -> int:
        """Close the runs of these pools that have no unfetched command; return how many were open. Idle ones leave."""
        ...
