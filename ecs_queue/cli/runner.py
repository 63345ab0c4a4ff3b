"""`runner`: the container's process of a warm queue."""

from __future__ import annotations

import click

from ecs_queue.cli.ui.options import SharedOptions, pass_options, shared_options


@click.command(short_help="Run a warm queue's commands in a container.")
@shared_options
@pass_options
def runner(options: SharedOptions) -> int:
    """Run one command after the other, as the container's process of a warm queue.

    Workers start it: it is the container's command of the tasks of a queue with warm_seconds. It takes its commands
    from the ledger, and leaves when no further one comes. Its configuration are environment variables:
    ECS_QUEUE_RUNNER from the worker, and ECS_QUEUE_RUNNER_URL and ECS_QUEUE_RUNNER_KEY as secrets of the task
    definition (docs/warm-pools.md).

    \b
    Example, the command in an image:
      ecs-queue runner

    Exit status: 0 when it has left; 1 when it could not reach the server any more; 2 when it cannot start; 143 when
    SIGTERM ended its command.
    """
    from ecs_queue.runner.main import main

    options.reject_config_options("runner", "environment variables configure it")
    return main()
