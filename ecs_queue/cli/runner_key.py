"""`runner-key`: prints the secret that the runners of a warm queue need."""

from __future__ import annotations

import click

from ecs_queue.cli.ui.exit_status import EXIT_FAILURE
from ecs_queue.cli.ui.options import SharedOptions, pass_options, queue_name, shared_options
from ecs_queue.cli.ui.output import print_stderr, write_stdout


@click.command(name="runner-key", short_help="Print the key of a warm queue's runners.")
@click.argument("queue", type=queue_name)
@shared_options
@pass_options
def runner_key(options: SharedOptions, queue: str) -> int:
    """Print the key of a queue's runners: a secret, for the secret ECS_QUEUE_RUNNER_KEY of its task definition.

    It is derived from signing_keys, encryption_keys, the namespace and the queue. With it runners read their commands
    and sign how they ended, and those of other queues cannot. Several keys of the configuration give several keys,
    separated by commas: give all of them to the runners while you replace one.

    \b
    Examples:
      ecs-queue runner-key etl
      aws secretsmanager create-secret --name etl-runner-key --secret-string "$(ecs-queue runner-key etl)"

    Exit status: 1 without signing_keys and encryption_keys; runners need no key then.
    """
    from ecs_queue.config.keyring import runner_keys

    options.configure_logging()
    keys = runner_keys(options.load_config(), queue)
    if not keys:
        print_stderr("signing_keys and encryption_keys are not set: commands are unsigned, and runners need no key")
        return EXIT_FAILURE
    write_stdout(",".join(keys))
    return 0
