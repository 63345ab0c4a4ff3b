"""`conf`: lists and prints the example files that come with ecs-queue."""

from __future__ import annotations

from pathlib import Path

import click

from ecs_queue.cli.ui.options import SharedOptions, command_options, pass_options, shared_options
from ecs_queue.cli.ui.output import print_json, print_table, write_stdout
from ecs_queue.errors import UsageError

#: The files of conf/.
DESCRIPTIONS = {
    "airflow-task-definition.json": "the task definition of Airflow's tasks",
    "airflow-task.Dockerfile": "the image of Airflow's tasks",
    "airflow.cfg": "Airflow's configuration with the executor",
    "autoscaling-policy.json": "the scaling policy of a service of workers on ECS",
    "autoscaling-target.json": "the smallest and the largest number of its workers",
    "cloudformation.yaml": "a complete installation on AWS: server, workers that scale, ECS events, task definition",
    "compose.yaml": "the local stack in containers, with Prometheus and Grafana",
    "ecs-queue-worker@.service": "workers as systemd services",
    "ecs_queue.cfg": "every configuration key with its default",
    "event-queue-policy.json": "the SQS queue's policy, so that EventBridge may send ECS events",
    "event-rule.json": "the EventBridge rule for ECS events",
    "grafana-dashboard.json": "the dashboard of the metrics of workers, for Grafana",
    "grafana-dashboards.yaml": "names the folder of the dashboard for Grafana",
    "grafana-datasource.yaml": "names the address of Prometheus for Grafana",
    "iam-api-server-policy.json": "permissions of Airflow's API server",
    "iam-doctor-policy.json": "what `doctor` checks beyond a worker's permissions",
    "iam-ecs-tasks-trust-policy.json": "lets ECS assume a task's roles",
    "iam-events-policy.json": "what a worker needs to receive ECS events",
    "iam-execution-role-policy.json": "permissions of the execution role of tasks",
    "iam-logs-policy.json": "what `logs` needs",
    "iam-secrets-policy.json": "what a worker needs to read keys and passwords from AWS",
    "iam-sqs-broker-policy.json": "permissions of clients and workers with SQS as the broker",
    "iam-task-role-policy.json": "permissions of the role of Airflow's tasks",
    "iam-worker-policy.json": "permissions of a worker",
    "keda-scaled-object.yaml": "lets KEDA scale workers on Kubernetes",
    "kubernetes-worker.yaml": "workers on Kubernetes",
    "prometheus-alerts.yaml": "alerts on the metrics of workers; docs/on-call.md says what to do",
    "prometheus.yaml": "Prometheus that scrapes workers and has these alerts",
    "redis-users.acl": "users of the server with the least rights, as `acl` prints them",
    "worker.Dockerfile": "the image of a worker",
}


@click.group(short_help="List and print files to deploy with.")
def conf() -> None:
    """List and print files to deploy with: roles, events, users of the server, images.

    Words in capitals, such as ACCOUNT, REGION and CLUSTER, are for your own values.

    \b
    Examples:
      ecs-queue conf list
      ecs-queue conf show iam-worker-policy.json
    """


@conf.command("list", short_help="List the files.")
@command_options
def list_files(options: SharedOptions, as_json: bool) -> None:
    """List the files with what they are for.

    \b
    Example:
      ecs-queue conf list
    """
    options.configure_logging()
    if not as_json:
        print_table(("name", "what it is"), list(DESCRIPTIONS.items()))
        return
    for name, text in DESCRIPTIONS.items():
        print_json({"name": name, "text": text, "path": str(_directory() / name)})


@conf.command(short_help="Print a file.")
@click.argument("name", metavar="NAME")
@shared_options
@pass_options
def show(options: SharedOptions, name: str) -> None:
    """Print a file.

    \b
    Examples:
      ecs-queue conf show redis-users.acl > redis-users.acl
      ecs-queue conf show iam-worker-policy.json | sed s/ACCOUNT/123456789012/
    """
    options.configure_logging()
    if name not in DESCRIPTIONS:
        raise UsageError(f"there is no file {name!r}: `ecs-queue conf list` shows their names")
    write_stdout((_directory() / name).read_bytes(), end="")


def _directory() -> Path:
    """Where the files are: in the installed package, or beside the package in a checkout."""
    package = Path(__file__).parents[1]
    installed = package / "conf"
    return installed if installed.is_dir() else package.parent / "conf"
