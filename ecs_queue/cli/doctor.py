"""`doctor`: checks everything that a launch needs."""

from __future__ import annotations

import shlex
from collections import Counter
from typing import TYPE_CHECKING

import click

from ecs_queue.cli.ui.durations import Duration
from ecs_queue.cli.ui.exit_status import EXIT_FAILURE
from ecs_queue.cli.ui.options import SharedOptions, command_options, load_shared_config, queue_name
from ecs_queue.cli.ui.output import describe_number, print_json, print_stderr, sanitize, style, write_stdout

if TYPE_CHECKING:
    from ecs_queue.findings import Finding

_LABELS = {
    "ok": ("ok     ", "green"),
    "info": ("info   ", "cyan"),
    "warning": ("WARNING", "yellow"),
    "error": ("ERROR  ", "red"),
}


@click.command(short_help="Check everything that a launch needs.")
@click.option(
    "--queue",
    "queues",
    type=queue_name,
    multiple=True,
    metavar="NAME",
    help="Only check this queue's profile; repeatable.",
)
@click.option("--canary", is_flag=True, help="Also run a task in each queue and wait for its result.")
@click.option(
    "--canary-command", default="true", show_default=True, metavar="COMMAND", help="Command of the canary, quoted."
)
@click.option(
    "--canary-timeout",
    type=Duration(min=1),
    default=300.0,
    show_default=True,
    metavar="S",
    help="How long to wait for each canary; then it is stopped.",
)
@click.option("--strict", is_flag=True, help="Exit with 1 after warnings too.")
@command_options
def doctor(
    options: SharedOptions,
    queues: tuple[str, ...],
    canary: bool,
    canary_command: str,
    canary_timeout: float,
    strict: bool,
    as_json: bool,
) -> int:
    """Check everything that a launch needs, and say how to correct what is wrong.

    It checks the configuration; broker and ledger (reachable, version, eviction, persistence, clock, transport);
    workers, and queues without a worker; and for each queue's profile the credentials, cluster, task definition,
    container, log group, the worker's permissions, and the configured rates against AWS's quotas. It starts and
    changes nothing: permissions are tested with calls for things that do not exist. --canary is the exception: it
    runs one task in each queue.

    Run it where a worker runs, with the worker's credentials: these are what it tests.

    \b
    Examples:
      ecs-queue doctor
      ecs-queue doctor --queue etl --canary --canary-command 'python --version'
      ecs-queue doctor --json | jq -r 'select(.severity == "error") | .subject + ": " + .advice'

    Exit status: 1 after an error (with --strict also after a warning); 2 when the configuration is not valid.
    """
    from ecs_queue.doctor.checks import run_checks

    options.configure_logging("error")
    config = load_shared_config(options)
    severities: Counter[str] = Counter()
    for finding in run_checks(config, queues, shlex.split(canary_command) if canary else None, canary_timeout):
        severities[finding.severity.value] += 1
        _print_finding(finding, as_json)
    found = [describe_number(severities[name], name) for name in ("error", "warning") if severities[name]]
    if not as_json:
        print_stderr(f"the doctor found {' and '.join(found)}: see above" if found else "the doctor found no problems")
    return EXIT_FAILURE if severities["error"] or (strict and severities["warning"]) else 0


def _print_finding(finding: Finding, as_json: bool) -> None:
    severity, text, advice = finding.severity.value, sanitize(finding.text), sanitize(finding.advice)
    if as_json:
        found = {"check": finding.check, "subject": finding.subject, "severity": severity}
        print_json({**found, "text": text, "advice": advice})
        return
    label, colour = _LABELS[severity]
    label = style(label, fg=colour, bold=colour == "red")
    lines = [f"{label}  {sanitize(finding.subject)}: {text}", *([f"         -> {advice}"] if advice else [])]
    write_stdout("\n".join(lines))
