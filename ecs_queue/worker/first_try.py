"""The first try of a launch in a warm pool: an idle runner takes the request before it waits for RunTask's quota."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

from ecs_queue.worker.context import WorkerContext
from ecs_queue.worker.fair_queue import Job


def first_try(job: Job, context: WorkerContext, try_runner: Callable[[Job], None]) -> Job:
    """Return the job to submit first: the job itself, or in a warm pool one that needs no token.

    Args:
        job: Launches the request, with the token of a call.
        context: The worker's.
        try_runner: Asks for an idle runner; if there is none, it submits the job that it gets, which waits for the
            token and tries again without one when a runner becomes idle.
    """
    if job.rate_limit is None or not context.is_warm(job.queue):
        return job
    try_again = partial(_try_again, job, try_runner)
    return replace(job, run=try_again, rate_limit=None)


def _try_again(job: Job, try_runner: Callable[[Job], None]) -> None:
    try_runner(replace(job, run_without_token=partial(_try_again, job, try_runner)))
