"""`replay`: one request again, by its id; or what an exported journal says, decided again or submitted again."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from ecs_queue.cli.ui.options import SharedOptions, json_option, pass_options, shared_options
from ecs_queue.errors import UsageError

#: Mode -> the options that it takes, of a FILE and of an ID.
_FILE_MODES: Mapping[str, tuple[str, ...]] = {"offline": (), "submit": ("--speed", "--dry-run", "--yes-i-mean")}
_REQUEST_MODES: Mapping[str, tuple[str, ...]] = {
    "submit": ("--queue", "--set", "--env", "--id"),
    "local": ("--queue", "--env"),
    "explain": ("--queue", "--set", "--env"),
}


@click.command(short_help="The same again: a request, or recorded traffic.")
@click.argument("target", metavar="ID|FILE")
@click.option("--submit", is_flag=True, help="Submit it again as new: an ID's request, or a FILE's in their rhythm.")
@click.option("--local", is_flag=True, help="ID: run its command here, as you, with its environment; exit as it does.")
@click.option("--explain", is_flag=True, help="ID: show what would be sent to ECS now beside what was sent then.")
@click.option("--offline", is_flag=True, help="FILE: decide again what was decided, and compare. Starts nothing.")
@click.option("--queue", metavar="NAME", help="ID: another queue, and with it another profile.")
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="ID: change it: cpu=512, time_limit=60 ...")
@click.option("--env", "variables", multiple=True, metavar="NAME[=VALUE]", help="ID: a variable; alone, this shell's.")
@click.option("--id", "new_id", metavar="ID", help="ID, with --submit: the id of the new request.")
@click.option("--speed", type=float, metavar="N", help="FILE, with --submit: N times as fast.  [1]")
@click.option("--dry-run", is_flag=True, help="FILE, with --submit: only show what would be submitted.")
@click.option("--yes-i-mean", metavar="NAMESPACE", help="FILE, with --submit: this namespace, though not for tests.")
@json_option
@shared_options
@pass_options
def replay(options: SharedOptions, /, target: str, as_json: bool, **given: Any) -> int:
    """Do the same again. TARGET is the id of a request, or a file that `journal export` wrote.

    An ID is taken from the ledger while it lives, and then from the journal. The journal does not keep secrets: what it
    has hidden must be given with --env; without that nothing is done, and the names are said.

    ID --submit makes a new request with the same command and overrides that names its origin; its times count from
    now, and nobody waits for its result. --set changes a member of the request (priority, expires_in, time_limit,
    relaunch) or a flat key of its executor_config (cpu, memory ...), --env a variable of the main container.

    ID --local runs the very command with that environment as a process on this machine, in this directory, to
    reproduce a failure. The image's files, entry point, user and working directory, the task's role and secrets
    that ECS fills in are not there. Of this shell's environment it gets only PATH, HOME and the like.

    ID --explain prints a diff of the run_task arguments; secrets are hidden in it.

    FILE --offline calls the launcher's own rules with the recorded inputs, clock and answers of ECS, and names the
    first decision that is not the same now: the request, the event and the rule. Nothing is started or written.

    FILE --submit submits the recorded requests as new ones, at the times and to the queues of then, --speed times as
    fast: for load and regression tests. All are checked first. A namespace whose name does not say that it is for
    tests (test, dev, staging, local, demo, bench, ci, sandbox, load as a part of it) is refused without --yes-i-mean.

    \b
    Examples:
      ecs-queue replay nightly-etl --submit --set memory=4096 --env LOG_LEVEL=debug
      ecs-queue replay nightly-etl --local; echo $?
      ecs-queue replay nightly-etl --explain --queue etl-large
      ecs-queue replay journal.jsonl --offline
      ecs-queue replay journal.jsonl --submit --speed 10 --dry-run
      ecs-queue replay journal.jsonl --submit --speed 10 --namespace load-test

    Exit status: of --local the command's own (128 + the signal's number, 127 when it cannot be started); of
    --explain and --offline 1 when there are differences. 2 means that nothing was done.
    """
    options.configure_logging()
    is_file = Path(target).is_file()
    if not is_file and ("/" in target or target.endswith(".jsonl")):
        raise UsageError(f"replay: expected an id, or a file that `ecs-queue journal export` wrote; none at {target}")
    mode = _select_mode(target, _FILE_MODES if is_file else _REQUEST_MODES, given)
    if not is_file:
        from ecs_queue.cli.replay_request import parse_changes, replay_request

        changes = parse_changes(given["queue"], given["settings"], given["variables"])
        return replay_request(options, target, mode, changes, given["new_id"], as_json)
    from ecs_queue.cli.replay_journal import replay_offline, replay_traffic

    if mode == "offline":
        return replay_offline(target, as_json)
    speed = 1.0 if given["speed"] is None else given["speed"]
    return replay_traffic(options, target, speed, given["dry_run"], given["yes_i_mean"], as_json)


def _select_mode(target: str, modes: Mapping[str, tuple[str, ...]], given: Mapping[str, Any]) -> str:
    """The one that was chosen; UsageError for none, for two, and for an option that has no effect in it."""
    chosen = [mode for mode in ("submit", "local", "explain", "offline") if given[mode]]
    if len(chosen) != 1 or chosen[0] not in modes:
        expected = ", ".join(f"--{mode}" for mode in modes)
        found = " and ".join(f"--{mode}" for mode in chosen) or "none"
        what = "the file" if "offline" in modes else "the request"
        raise UsageError(f"replay: for {what} {target} expected one of {expected}, found {found}; nothing was done")
    names = {"settings": "--set", "variables": "--env", "new_id": "--id", "dry_run": "--dry-run", "queue": "--queue"}
    names |= {"speed": "--speed", "yes_i_mean": "--yes-i-mean"}
    for name, option in names.items():
        if given[name] not in (None, False, ()) and option not in modes[chosen[0]]:
            raise UsageError(f"replay: {option} has no effect with --{chosen[0]} of {target}; leave it out")
    return chosen[0]
