"""`replay`: repeats one request by its id, or the traffic or the decisions of an exported journal."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ecs_queue.cli.ui.numbers import RATE
from ecs_queue.cli.ui.options import SharedOptions, command_options, open_client, open_journal_reader, queue_name
from ecs_queue.cli.ui.output import OutputError, print_json, print_stderr, print_stdout
from ecs_queue.cli.ui.records import warn_unserved_queues
from ecs_queue.cli.ui.variables import parse_variables
from ecs_queue.errors import UsageError

if TYPE_CHECKING:
    from ecs_queue.client.client import EcsQueue
    from ecs_queue.client.handle import Handle
    from ecs_queue.replay.past_request import PastRequest
    from ecs_queue.runtask.resubmit import ResubmitChanges

#: Mode -> the options that it takes, for a FILE and for an ID.
_FILE_MODES: Mapping[str, tuple[str, ...]] = {
    "offline": ("--set-rules",),
    "submit": ("--speed", "--dry-run", "--yes-i-mean", "--trust-unsigned"),
}
_REQUEST_MODES: Mapping[str, tuple[str, ...]] = {
    "submit": ("--queue", "--set", "--env", "--id", "--trust-unsigned"),
    "local": ("--queue", "--env", "--trust-unsigned"),
    "explain": ("--queue", "--set", "--env", "--reveal"),
}


@click.command(short_help="Repeat a request, or recorded traffic.")
@click.argument("target", metavar="ID|FILE")
@click.option("--submit", is_flag=True, help="Submit new requests: a copy of ID, or those of FILE in their rhythm.")
@click.option("--local", is_flag=True, help="ID: run its command here, as your user, with its environment.")
@click.option("--explain", is_flag=True, help="ID: compare what would be sent to ECS now with what was sent.")
@click.option("--offline", is_flag=True, help="FILE: make its decisions again and compare them. Starts nothing.")
@click.option("--queue", type=queue_name, metavar="NAME", help="ID: use another queue, and with it another profile.")
@click.option(
    "--set", "settings", multiple=True, metavar="KEY=VALUE", help="ID: change a value: cpu=512, time_limit=60 ..."
)
@click.option(
    "--env",
    "variables",
    multiple=True,
    metavar="NAME[=VALUE]",
    help="ID: set a variable; NAME alone takes its value from this shell.",
)
@click.option(
    "--set-rules", metavar="RULES.json", help="FILE, with --offline: show what these retry rules would have done."
)
@click.option("--reveal", is_flag=True, help="ID, with --explain: also show environment values and commands.")
@click.option("--id", "new_id", metavar="ID", help="ID, with --submit: id of the new request.")
@click.option("--speed", type=RATE, metavar="N", help="FILE, with --submit: N times as fast.  [1]")
@click.option("--dry-run", is_flag=True, help="FILE, with --submit: only show what would be submitted.")
@click.option("--yes-i-mean", metavar="NAMESPACE", help="FILE, with --submit: confirm a namespace not named for tests.")
@click.option(
    "--trust-unsigned", is_flag=True, help="Use what no key of signing_keys verifies in the journal or in FILE."
)
@command_options
def replay(options: SharedOptions, /, target: str, as_json: bool, **given: Any) -> int:
    """Repeat a request by its ID, or what is recorded in a FILE that `journal export` wrote.

    The command takes an ID from the ledger while the request lives, and then from the journal. The journal does not
    keep environment values (journal_redaction), unless they are encrypted: give redacted variables with --env. When
    one is missing, the command names it and does nothing.

    Where signing_keys are set, what the journal has is used only if it is signed with one of them: otherwise any
    process that can write to the server could have a command run here, or signed with your key. --trust-unsigned
    uses it nevertheless, such as a journal from before there were keys.

    ID --submit makes a new request with the same command and overrides. Its envelope names the old one as `origin`,
    its times count from now, and its result stays in the ledger. --set changes a member of the request (priority,
    expires_in, time_limit, relaunch, start_timeout, retry_rules, concurrency_key) or a flat key of its executor_config
    (cpu, memory ...), --env a variable of the main container.

    ID --local runs the command with its environment as a process on this machine, in this directory, to reproduce
    a failure. It does not have the image's files, entry point, user and working directory, nor the task's role and
    the secrets that ECS fills in. It gets only PATH, HOME and the like of this shell's environment.

    ID --explain prints a diff of the run_task arguments, without what journal_redaction hides; where encryption_keys
    are set, without environment values and commands. --reveal shows them.

    FILE --offline calls the worker's own rules with the recorded inputs, clock and answers of ECS, and names the
    first decision that differs: the request, the event and the rule. Nothing is started or written.

    With --set-rules it shows instead what other retry rules would have done at each recorded end of an attempt: a JSON
    list as in the key retry_rules, in place of the rules that the launches had; [] is the relaunch policies alone.

    FILE --submit submits the recorded requests as new ones, to their queues and in their rhythm, --speed times as
    fast: for load and regression tests. All are checked first. A namespace whose name does not say that it is for
    tests (test, dev, staging, local, demo, bench, ci, sandbox or load is a part of it) needs --yes-i-mean.

    \b
    Examples:
      ecs-queue replay nightly-etl --submit --set memory=4096 --env LOG_LEVEL=debug
      ecs-queue replay nightly-etl --local; echo $?
      ecs-queue replay nightly-etl --explain --queue etl-large
      ecs-queue replay journal.jsonl --offline
      ecs-queue replay journal.jsonl --offline --set-rules rules.json
      ecs-queue replay journal.jsonl --submit --speed 10 --dry-run
      ecs-queue replay journal.jsonl --submit --speed 10 --namespace load-test

    Exit status: --local exits as the command does (128 + the signal's number, 127 when there is no such program);
    --explain and --offline exit with 1 when there are differences; FILE --submit when requests are left out, because
    they are not valid here or not verified. 2 means that nothing was done.
    """
    options.configure_logging()
    is_file = Path(target).is_file()
    if not is_file and ("/" in target or target.endswith(".jsonl")):
        raise UsageError(f"replay: expected an id, or a file that `ecs-queue journal export` wrote; none at {target}")
    mode = _select_mode(target, _FILE_MODES if is_file else _REQUEST_MODES, given)
    if not is_file:
        changes = _parse_changes(given["queue"], given["settings"], given["variables"])
        return _replay_request(options, target, mode, changes, given, as_json)
    from ecs_queue.cli.replay_journal import TrafficChoices, replay_offline, replay_traffic
    from ecs_queue.cli.replay_rules import replay_with_rules

    if mode == "offline":
        if given["set_rules"] is not None:
            return replay_with_rules(target, given["set_rules"], as_json)
        return replay_offline(target, as_json)
    speed = 1.0 if given["speed"] is None else given["speed"]
    choices = TrafficChoices(speed, given["dry_run"], given["yes_i_mean"], given["trust_unsigned"])
    return replay_traffic(options, target, choices, as_json)


def _select_mode(target: str, modes: Mapping[str, tuple[str, ...]], given: Mapping[str, Any]) -> str:
    """Return the chosen mode; raise `UsageError` for none, for two, and for an option that has no effect in it."""
    chosen = [mode for mode in ("submit", "local", "explain", "offline") if given[mode]]
    if len(chosen) != 1 or chosen[0] not in modes:
        expected = ", ".join(f"--{mode}" for mode in modes)
        found = " and ".join(f"--{mode}" for mode in chosen) or "none"
        kind = "file" if "offline" in modes else "request"
        raise UsageError(f"replay: for the {kind} {target} expected one of {expected}, found {found}; nothing was done")
    names = {"--queue": "queue", "--set": "settings", "--env": "variables", "--id": "new_id", "--speed": "speed"}
    names |= {"--dry-run": "dry_run", "--yes-i-mean": "yes_i_mean", "--trust-unsigned": "trust_unsigned"}
    names |= {"--reveal": "reveal", "--set-rules": "set_rules"}
    for option, name in names.items():
        if given[name] not in (None, False, ()) and option not in modes[chosen[0]]:
            raise UsageError(f"replay: {option} has no effect with --{chosen[0]} of {target}; leave it out")
    return chosen[0]


def _replay_request(
    options: SharedOptions,
    record_id: str,
    mode: str,
    changes: ResubmitChanges,
    given: Mapping[str, Any],
    as_json: bool,
) -> int:
    with open_client(options) as client:
        trust_unsigned = given["trust_unsigned"] or mode == "explain"  # which only shows it
        past = find_past(client, record_id, trust_unsigned=trust_unsigned)
        if not past.is_verified:
            print_stderr(f"ecs-queue: {record_id} is NOT VERIFIED: no key of signing_keys signed what the journal has")
        if mode == "submit":
            return _resubmit(client, past, changes, as_json, given["new_id"])
        if mode == "local":
            from ecs_queue.cli.replay_local import make_local_run, run_locally

            return run_locally(make_local_run(client.config, past, changes), as_json)
        from ecs_queue.cli.replay_explain import compare_launch, print_comparison

        return print_comparison(compare_launch(client.config, past, changes, reveal=given["reveal"]), as_json)


def find_past(client: EcsQueue, record_id: str, *, trust_unsigned: bool = False) -> PastRequest:
    """Return a request from the ledger or the journal; raises as `find_past_request`."""
    from ecs_queue.replay.past_request import find_past_request

    with open_journal_reader(client.config) as journal:
        return find_past_request(client, journal, record_id, trust_unsigned=trust_unsigned)


def submit_again(client: EcsQueue, past: PastRequest, changes: ResubmitChanges, new_id: str | None = None) -> Handle:
    """Submit a past request under another id; `UsageError` names variables whose values the journal does not have."""
    import msgspec

    from ecs_queue.cli.ui.submitter import Submitter
    from ecs_queue.runtask.resubmit import build_resubmit_id, build_resubmit_line

    past, environment = past.with_secrets(changes.environment)
    changes = msgspec.structs.replace(changes, environment=environment)
    main_container = client.config.profile(changes.queue or past.request.queue).container_name
    new_id = new_id or build_resubmit_id(past.id, secrets.token_hex(4))
    prepared = client.prepare(build_resubmit_line(past.request, new_id, changes, main_container), origin=past.id)
    client.check()
    (handle,) = Submitter(client).submit([prepared])
    return handle


def _resubmit(client: EcsQueue, past: PastRequest, changes: ResubmitChanges, as_json: bool, new_id: str | None) -> int:
    handle = submit_again(client, past, changes, new_id)
    queue = changes.queue or past.request.queue
    warn_unserved_queues(client, {queue})
    try:
        if as_json:
            print_json({"id": handle.id, "origin": past.id, "queue": queue})
        else:
            print_stdout(handle.id)
    except (OutputError, BrokenPipeError):
        print_stderr(f"ecs-queue: {handle.id} was submitted, and goes on: ecs-queue status {handle.id}")
        raise
    return 0


def _parse_changes(queue: str | None, settings: Sequence[str], variables: Sequence[str]) -> ResubmitChanges:
    from ecs_queue.runtask.resubmit import CHANGEABLE_FIELDS, ResubmitChanges

    values = dict(_parse_setting(text) for text in settings)
    return ResubmitChanges(
        queue=queue or "",
        fields={name: value for name, value in values.items() if name in CHANGEABLE_FIELDS},
        overrides={name: value for name, value in values.items() if name not in CHANGEABLE_FIELDS},
        environment=parse_variables(variables),
    )


def _parse_setting(text: str) -> tuple[str, Any]:
    """A value is JSON if possible, otherwise text: 512, null, spot. A concurrency key is text: 7 and true are keys."""
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise UsageError(f"--set: expected KEY=VALUE, such as cpu=512, found {text!r}")
    try:
        parsed = json.loads(value)
    except (ValueError, RecursionError):
        return name, value
    return name, parsed if name != "concurrency_key" or parsed is None or isinstance(parsed, str) else value
