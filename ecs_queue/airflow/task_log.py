"""The log of a task's container while it runs, read where the log is shown. Stateless.

Airflow shows this until the task has ended; then its own log file, or remote log, counts.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from ecs_queue.config import Config, Profile
from ecs_queue.config.keyring import open_keyring
from ecs_queue.ecs.awslogs import awslogs_options
from ecs_queue.ecs.clients import ClientOptions, EcsClients, Target
from ecs_queue.ledger import open_ledger
from ecs_queue.protocol.record import Record
from ecs_queue.runtask.launch_spec import try_decode_launch_spec

#: Names the directory where a local ECS keeps one log a task: `TASK_ID.log`.
LOCAL_LOG_VARIABLE = "ECS_QUEUE_LOCAL_LOG_DIR"
#: Of the newest events; what one page can show. CloudWatch gives at most 10,000 a call.
_MAX_LINES = 5000

MessagesAndLines = tuple[list[str], list[str]]


class AwsClients(Protocol):
    """Makes boto3 clients."""

    def client(self, service: str, region: str, profile: Profile) -> Any:
        """A client of one service in one region."""
        ...


def read_task_log(
    config: Config,
    request_id: str | None,
    *,
    clients: AwsClients | None = None,
    environ: Mapping[str, str] | None = None,
) -> MessagesAndLines:
    """(messages about where the log comes from, its lines). Errors of AWS and the ledger are raised as they are."""
    if not request_id:
        return ["ecs-queue: the task has no request yet, so there is no container to read from"], []
    ledger = open_ledger(config)
    try:
        record = ledger.get([request_id])[0]
    finally:
        ledger.close()
    if record is None:
        return [f"ecs-queue: request {request_id} is not known (any more)"], []
    if not record.arn:
        return [f"ecs-queue: request {request_id} is {record.state}; {record.reason or 'no container yet'}"], []
    local = _read_local_log(record, environ)
    if local is not None:
        return local
    return _read_cloudwatch_log(config, record, clients or _Boto3Clients())


def _read_local_log(record: Record, environ: Mapping[str, str] | None) -> MessagesAndLines | None:
    directory = (os.environ if environ is None else environ).get(LOCAL_LOG_VARIABLE)
    if not directory:
        return None
    path = Path(directory) / f"{record.arn.rsplit('/', 1)[-1]}.log"
    if not path.is_file():
        return [f"ecs-queue: the local ECS has not written {path.name} yet"], []
    return [f"ecs-queue: the local ECS's {path.name}"], path.read_text(errors="replace").splitlines()[-_MAX_LINES:]


def _read_cloudwatch_log(config: Config, record: Record, clients: AwsClients) -> MessagesAndLines:
    profile = config.profile(record.queue)
    region = record.arn.split(":")[3]
    task = record.arn.rsplit("/", 1)[-1]
    plan = try_decode_launch_spec(record, open_keyring(config))
    container = (plan.container_name if plan else None) or profile.container_name
    family = plan.run_task.get("taskDefinition") if plan else profile.task_definition
    definition = clients.client("ecs", region, profile).describe_task_definition(taskDefinition=family)
    options = awslogs_options(definition["taskDefinition"], container)
    if isinstance(options, str):
        return [f"ecs-queue: {options}"], []
    group, stream = options["awslogs-group"], f"{options['awslogs-stream-prefix']}/{container}/{task}"
    logs = clients.client("logs", options.get("awslogs-region", region), profile)
    where = f"ecs-queue: CloudWatch {group}, {stream}"
    try:
        answer = logs.get_log_events(logGroupName=group, logStreamName=stream, limit=_MAX_LINES, startFromHead=False)
    except logs.exceptions.ResourceNotFoundException:
        return [f"{where}: nothing yet, the stream begins with the container's first line"], []
    return [where], [_format_line(event) for event in answer["events"]]


def _format_line(event: Mapping[str, Any]) -> str:
    """Airflow's own lines are JSON, which its log view understands; others get their time."""
    message = str(event["message"])
    try:
        if isinstance(json.loads(message), dict):
            return message
    except ValueError:
        pass  # plain text, as most programs write
    at = datetime.fromtimestamp(event["timestamp"] / 1000, UTC)
    return f"[{at.isoformat(timespec='milliseconds')}] {message}"


class _Boto3Clients:
    """The credentials that a worker would use: the profile's connection and role, else boto3's own."""

    def __init__(self) -> None:
        self._clients = EcsClients(ClientOptions(connect_timeout=3, read_timeout=5, max_pool_connections=1))

    def client(self, service: str, region: str, profile: Profile) -> Any:
        endpoint, role, connection = profile.endpoint_url or None, profile.role_arn or None, profile.conn_id or None
        target = Target(region, endpoint, role, profile.cluster or "", connection)
        return self._clients.client_for_service(target, service)
