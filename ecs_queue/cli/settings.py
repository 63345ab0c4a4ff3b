"""`config`: what is in effect, and why."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from ecs_queue.cli.options import Options, json_option, pass_options, shared_options
from ecs_queue.cli.output import show, show_json, show_table
from ecs_queue.errors import EcsQueueError

if TYPE_CHECKING:
    from ecs_queue.config import Config

_HOOKS = "airflow.providers.amazon.aws.hooks.base_aws"


@click.command(short_help="Show the configuration and its origins.")
@json_option
@shared_options
@pass_options
def config(options: Options, as_json: bool) -> None:
    """Show every configuration value in effect and where it came from, secrets hidden.

    The layers, each over the one before: the defaults, the ini file of --config or ECS_QUEUE_CONFIG, the
    environment (AIRFLOW__SECTION__KEY), the command line. Below the values it says which queues' tasks a worker
    with this configuration could launch, and whose credentials it would use.

    \b
    Examples:
      ecs-queue config
      ecs-queue config --json | jq -r 'select(.origin != "default")'

    Exit status: 2 when the configuration is not valid; every mistake is named, with the place it stands in.
    """
    options.start_logging()
    loaded = options.load()
    if as_json:
        for line in _lines(loaded):
            show_json(line)
        return
    settings = loaded.describe()
    show_table(("section", "key", "value", "from"), [(s.section, s.key, s.value, s.origin) for s in settings])
    for line in _lines(loaded):
        if line["kind"] == "profile":
            show(f"queue {line['queue']}: {line['problem'] or 'can be launched'}")
        elif line["kind"] == "credentials":
            show(f"conn_id: {line['explanation']}")


def _lines(loaded: Config) -> Iterator[dict[str, Any]]:
    for s in loaded.describe():
        yield {"kind": "setting", "section": s.section, "key": s.key, "value": s.value, "origin": s.origin}
    for profile in loaded.profiles():
        problem = ""
        try:
            profile.require_launchable()
        except EcsQueueError as error:
            problem = str(error)
        yield {"kind": "profile", "queue": profile.queue, "launchable": not problem, "problem": problem}
    honoured = airflow_is_installed()
    explanation = (
        "honoured, Airflow's amazon provider is installed"
        if honoured
        else "not honoured, Airflow's amazon provider is not installed; boto3's own credential chain serves"
    )
    yield {"kind": "credentials", "conn_id_honoured": honoured, "explanation": explanation}


def airflow_is_installed() -> bool:
    """Whether Airflow's amazon provider can be imported, which alone knows what a `conn_id` means."""
    try:
        return importlib.util.find_spec(_HOOKS) is not None
    except Exception:  # noqa: BLE001 - not installed, or an Airflow that cannot start here: either way of no use
        return False
