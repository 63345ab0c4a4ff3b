"""Which of two descriptions of one ECS task is the later one.

ECS raises a task's `version` with every change. Some endpoints leave it at one value, or give none: between equal or
absent versions the later status decides. A task that has ended never runs again, so its end is believed whatever its
version. The ledger's script has the same rule in Lua.
"""

from __future__ import annotations

from ecs_queue.tasks import STOPPED_STATUSES

#: The statuses before the end, in the order in which ECS passes through them.
_LIVE_STATUSES = ("PROVISIONING", "PENDING", "ACTIVATING", "RUNNING", "DEACTIVATING", "STOPPING", "DEPROVISIONING")
_ENDED_RANK = len(_LIVE_STATUSES) + 1
#: The place of each status in that order. No status (yet) comes before them all.
STATUS_RANKS = {
    **{status: rank for rank, status in enumerate(_LIVE_STATUSES, 1)},
    **dict.fromkeys(sorted(STOPPED_STATUSES), _ENDED_RANK),
}


def status_rank(status: str) -> int:
    """Return the place of a status in the order; one that this version does not know counts as RUNNING."""
    return STATUS_RANKS.get(status, STATUS_RANKS["RUNNING"]) if status else 0


def compare_observations(version: int, status: str, known_version: int, known_status: str) -> int:
    """Return above 0 if the first is later than what is known, 0 if neither is, below 0 if it is earlier.

    A version of 0 is one that ECS did not give.
    """
    rank, known_rank = status_rank(status), status_rank(known_status)
    if version and known_version and version != known_version and _ENDED_RANK not in (rank, known_rank):
        return version - known_version
    return rank - known_rank
