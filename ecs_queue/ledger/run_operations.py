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

    @contract("REQUEUED STALE NOT_FOUND BROKEN", barrier=True)
    def put_back(self, ids: Sequence[str]) -> list[OperationResult]:
        """Queue requests again whose runners have not taken their commands, without an attempt; close those runs.

        Returns:
            STALE: the command was taken, the record has no run, or a stop is requested.
        """
        ...


class WarmPools(Protocol):
    """Runs and the hints about them."""

    def read_runs(self, names: Sequence[str]) -> list[Run | None]:
        """Return runs without their payloads, None for an absent one, in order."""
        ...

    def list_runs(self, limit: int | None = None) -> list[Run]:
        """Return the runs of all runners that may live, or of `limit` of them, without their payloads, by name."""
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
    def close_silent(self, offset: int, limit: int) -> tuple[list[Run], int]:
        """Look at a page of the runners, and close the idle runs of those that were silent for `runner_lost_seconds`.

        A run whose record was deleted becomes idle when its runner was silent for this time. Idle runs that claims have
        dropped, and whose runners call again, may be assigned again. Nothing else is written.

        Args:
            offset: 0, or where the page begins.
            limit: The number of runners in a page.

        Returns:
            The runs of the page whose tasks must be stopped, and where the next page begins, -1 after the last one.
            They are the runs closed now, and silent ones closed before whose runners never got the order to exit; each
            is returned until `forget_runner`. While the index changes, a round may miss a runner.
        """
        ...

    def forget_runner(self, name: str) -> None:
        """Drop a closed run whose task ECS has been ordered to stop, or does not know any more."""
        ...

    @contract(barrier=True)
    def drain_runs(self, names: Sequence[str]) -> int:
        """Close those of these runs that are not ASSIGNED; return how many were open. Idle runners exit."""
        ...
