"""`doctor`: is everything there that a launch needs?"""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from ecs_queue.cli.ui.options import SharedOptions, json_option, load_shared_config, pass_options, shared_options
from ecs_queue.cli.ui.output import is_terminal, print_json, print_stderr, print_stdout, sanitize

if TYPE_CHECKING:
    from ecs_queue.config import Config
    from ecs_queue.doctor.finding import Finding

EXIT_PROBLEMS_FOUND = 1
_LABELS = {"ok": ("ok     ", "green"), "info": ("note   ", "cyan"), "warning": ("WARNING", "yellow")}
_ERROR_LABEL = ("WRONG  ", "red")


@click.command(short_help="Look at everything a launch needs, and say what to do.")
@click.option("--queue", "queues", multiple=True, metavar="NAME", help="Only this queue's profile; may be repeated.")
@click.option("--canary", is_flag=True, help="Also send a request through the whole system and wait for its result.")
@click.option(
    "--canary-command", default="true", show_default=True, metavar="COMMAND", help="What the canary runs, in one word."
)
@click.option(
    "--canary-timeout", type=click.FloatRange(1), default=300.0, show_default=True, metavar="S", help="Seconds to wait."
)
@click.option("--strict", is_flag=True, help="Warnings count as wrong.")
@json_option
@shared_options
@pass_options
def doctor(
    options: SharedOptions,
    queues: tuple[str, ...],
    canary: bool,
    canary_command: str,
    canary_timeout: float,
    strict: bool,
    as_json: bool,
) -> int:
    """Look at everything a launch needs, and say what to do.

    Configuration; broker and ledger (reachable, version, eviction, persistence, clock, transport); workers and
    queues that nobody serves; and for each queue's profile: credentials, cluster, task definition, container, log
    group, the rights of a worker, and the rates beside AWS's quotas. Nothing is started or changed: rights are tried
    with calls for things that do not exist. --canary is the exception: it launches one task in each queue.

    Run it where a worker runs, with a worker's credentials: that is what it judges.

    \b
    Examples:
      ecs-queue doctor
      ecs-queue doctor --queue etl --canary --canary-command 'python --version'
      ecs-queue doctor --json | jq -r 'select(.level == "error") | .subject + ": " + .advice'

    Exit status: 1 when something is wrong (with --strict also after a warning); 2 when the configuration is not valid.
    """
    options.configure_logging("error")
    config = load_shared_config(options)
    levels = set()
    for finding in _findings(config, queues, shlex.split(canary_command) if canary else None, canary_timeout):
        levels.add(finding.severity.value)
        if as_json:
            print_json({**_finding_to_dict(finding)})
        else:
            _print_finding(finding)
    bad = "error" in levels or (strict and "warning" in levels)
    if not as_json:
        print_stderr("something is wrong: see above" if bad else "all that could be looked at is in order")
    return EXIT_PROBLEMS_FOUND if bad else 0


def _findings(config: Config, queues: tuple[str, ...], canary: list[str] | None, timeout: float) -> Iterator[Finding]:
    from ecs_queue.doctor.checks import run_checks

    return run_checks(config, queues, canary, timeout)


def _finding_to_dict(finding: Finding) -> dict[str, str]:
    return {
        "check": finding.check,
        "subject": finding.subject,
        "severity": finding.severity.value,
        "text": sanitize(finding.text),
        "advice": sanitize(finding.advice),
    }


def _print_finding(finding: Finding) -> None:
    mark, colour = _LABELS.get(finding.severity.value, _ERROR_LABEL)
    if is_terminal():
        mark = click.style(mark, fg=colour, bold=colour == "red")
        click.echo(f"{mark}  {sanitize(finding.subject)}: {sanitize(finding.text)}")
    else:
        print_stdout(f"{mark}  {finding.subject}: {finding.text}")
    if finding.advice:
        show_advice = f"         -> {sanitize(finding.advice)}"
        click.echo(show_advice)
