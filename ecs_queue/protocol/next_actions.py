"""What a worker does after an operation of the ledger."""

from __future__ import annotations

from enum import StrEnum

from ecs_queue.protocol.operations import ResultCode


class NextAction(StrEnum):
    """What a worker does after an operation of the ledger."""

    RUN_TASK = "run_task"
    LIST_TASKS = "list_tasks"
    STOP_TASK = "stop_task"
    """Stop the task: it belongs to no current launch."""
    PUBLISH_RESULT = "publish_result"
    AWAIT_RELAUNCH = "await_relaunch"
    """The task is over, and the request waits for its next launch."""
    ADD_DEAD_LETTER = "add_dead_letter"
    """Store the message as a dead letter."""
    REJECT_TOO_LATE = "reject_too_late"
    """Store the message as a dead letter, and publish to its owner that it arrived too late."""
    REPORT_CLAIM_LOST = "report_claim_lost"
    """Another worker has taken the launch over."""
    NOTHING = "nothing"


_NEXT_ACTIONS = {
    ("put", ResultCode.CONFLICT): NextAction.ADD_DEAD_LETTER,
    ("put", ResultCode.BROKEN): NextAction.ADD_DEAD_LETTER,
    ("put", ResultCode.TOO_LATE): NextAction.REJECT_TOO_LATE,
    ("put", ResultCode.ENDED): NextAction.PUBLISH_RESULT,
    ("claim", ResultCode.RUN_TASK): NextAction.RUN_TASK,
    ("claim", ResultCode.ENDED): NextAction.PUBLISH_RESULT,
    ("settle", ResultCode.ENDED): NextAction.PUBLISH_RESULT,
    ("settle", ResultCode.REQUEUED): NextAction.AWAIT_RELAUNCH,
    ("settle", ResultCode.STOP_TASK): NextAction.STOP_TASK,
    ("reclaim", ResultCode.RUN_TASK): NextAction.RUN_TASK,
    ("reclaim", ResultCode.LIST_TASKS): NextAction.LIST_TASKS,
    ("reclaim", ResultCode.ENDED): NextAction.PUBLISH_RESULT,
    ("launched", ResultCode.UNWANTED): NextAction.STOP_TASK,
    ("write", ResultCode.ENDED): NextAction.PUBLISH_RESULT,
    ("write", ResultCode.CLAIM_LOST): NextAction.REPORT_CLAIM_LOST,
    ("update_task", ResultCode.ENDED): NextAction.PUBLISH_RESULT,
    ("update_task", ResultCode.REQUEUED): NextAction.AWAIT_RELAUNCH,
}


def next_action(operation: str, code: ResultCode) -> NextAction:
    """Return what follows the result of an operation.

    Args:
        operation: put, claim, reclaim, launched, update_task, settle, or "write" for what is written after a call or a
            list that found no task.
        code: The operation's result.
    """
    return _NEXT_ACTIONS.get((operation, code), NextAction.NOTHING)
