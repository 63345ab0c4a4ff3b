"""`config`: shows every configuration value in effect and where it came from."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from ecs_queue.cli.ui.options import SharedOptions, command_options
from ecs_queue.cli.ui.output import print_json, print_stdout, print_table
from ecs_queue.errors import ConfigError

if TYPE_CHECKING:
    from ecs_queue.config import Config

_PROVIDER_MODULE = "airflow.providers.amazon.aws.hooks.base_aws"


@click.command(short_help="Show the configuration and its origins.")
@command_options
def config(options: SharedOptions, as_json: bool) -> None:
    """Show every configuration value in effect and where it came from, with secrets hidden.

    Each source overrides the ones before it: the defaults, airflow.cfg (in `airflow ecs-queue config`), the ini file
    of --config or ECS_QUEUE_CONFIG, the environment (AIRFLOW__SECTION__KEY), the command line. The lines below the
    values show for which queues a worker with this configuration could launch tasks, and whether it uses the
    credentials of conn_id.

    \b
    Examples:
      ecs-queue config
      ecs-queue config --json | jq -r 'select(.origin != "default")'

    Exit status: 2 when the configuration is not valid; stderr names every mistake and its source.
    """
    options.configure_logging()
    loaded = options.load_config()
    if as_json:
        for line in _describe(loaded):
            print_json(line)
        return
    settings = loaded.effective_values
    print_table(("section", "key", "value", "from"), [(s.section, s.key, s.value, s.origin) for s in settings])
    for line in _describe(loaded):
        if line["kind"] == "profile":
            print_stdout(f"queue {line['queue']}: {line['problem'] or 'can be launched'}")
        elif line["kind"] == "credentials":
            print_stdout(f"conn_id: {line['explanation']}")


def _describe(loaded: Config) -> Iterator[dict[str, Any]]:
    for s in loaded.effective_values:
        yield {"kind": "setting", "section": s.section, "key": s.key, "value": s.value, "origin": s.origin}
    for profile in loaded.profiles():
        problem = ""
        try:
            profile.require_launchable()
        except ConfigError as error:
            problem = error.problem
        yield {"kind": "profile", "queue": profile.queue, "launchable": not problem, "problem": problem}
    honoured = is_amazon_provider_installed()
    explanation = (
        "honoured, Airflow's amazon provider is installed"
        if honoured
        else "not honoured, Airflow's amazon provider is not installed; boto3's own credential chain is used"
    )
    yield {"kind": "credentials", "conn_id_honoured": honoured, "explanation": explanation}


def is_amazon_provider_installed() -> bool:
    """Return whether Airflow's amazon provider can be imported; it alone can resolve a `conn_id`."""
    try:
        return importlib.util.find_spec(_PROVIDER_MODULE) is not None
    except Exception:  # noqa: BLE001 - not installed, or an Airflow that cannot start here
        return False
