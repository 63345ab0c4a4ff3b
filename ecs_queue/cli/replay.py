"""`replay`: what was recorded, decided again or submitted again."""

from __future__ import annotations

from pathlib import Path

import click

from ecs_queue.cli.options import Options, json_option, pass_options, shared_options
from ecs_queue.cli.replay_file import replay_offline, replay_traffic
from ecs_queue.errors import UsageError


@click.command(short_help="Decide or submit again what was recorded.")
@click.argument("target", metavar="FILE")
@click.option("--offline", is_flag=True, help="Decide again what was decided, and compare. Starts nothing.")
@click.option("--submit", is_flag=True, help="Submit the requests again, as new ones, in their rhythm.")
@click.option("--speed", type=float, metavar="N", help="With --submit: N times as fast.  [1]")
@click.option("--dry-run", is_flag=True, help="With --submit: only show what would be submitted.")
@click.option("--yes-i-mean", metavar="NAMESPACE", help="With --submit: this namespace, though it is not for tests.")
@json_option
@shared_options
@pass_options
def replay(
    options: Options,
    target: str,
    offline: bool,
    submit: bool,
    speed: float | None,
    dry_run: bool,
    yes_i_mean: str | None,
    as_json: bool,
) -> int:
    """Do again what an exported journal says was done: --offline or --submit.

    --offline calls the launcher's own rules with the recorded inputs, clock and answers of ECS, and names the first
    decision that is not the same now: the request, the event and the rule. Nothing is started or written.

    --submit submits the recorded requests as new ones, at the times and to the queues of then, --speed times as
    fast: for load and regression tests. All are checked first. A namespace whose name does not say that it is for
    tests (test, dev, staging, local, demo, bench, ci, sandbox, load as a part of it) is refused without --yes-i-mean.

    \b
    Examples:
      ecs-queue replay journal.jsonl --offline
      ecs-queue replay journal.jsonl --submit --speed 10 --dry-run
      ecs-queue replay journal.jsonl --submit --speed 10 --namespace load-test

    Exit status of --offline: 0 all decisions are identical, 1 one differs, 2 the file cannot be used.
    """
    options.start_logging()
    if not Path(target).is_file():
        raise UsageError(f"replay: expected a file that `ecs-queue journal export` wrote, found none at {target}")
    if offline == submit:
        raise UsageError("replay: expected one of --offline and --submit; nothing was done")
    if offline:
        if speed is not None or dry_run or yes_i_mean is not None:
            raise UsageError("replay: --speed, --dry-run and --yes-i-mean are for --submit; leave them out")
        return replay_offline(target, as_json)
    return replay_traffic(options, target, 1.0 if speed is None else speed, dry_run, yes_i_mean, as_json)
