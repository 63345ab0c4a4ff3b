"""Reads the log of a task's container while it runs. Stateless.

Airflow shows this log until the task has ended; from then on it shows the task's own log file or remote log.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ecs_queue.cli.ui.runner_lines import lines_of_launch
from ecs_queue.config import Config, Profile
from ecs_queue.container_logs.base import LogLine
from ecs_queue.container_logs.local_files import LOCAL_LOG_VARIABLE
from ecs_queue.ecs.awslogs import awslogs_options
from ecs_queue.ecs.clients import ClientOptions, EcsClients, Target
from ecs_queue.journal.redact import redact
from ecs_queue.ledger import open_ledger
from ecs_queue.protocol.record import Record
from ecs_queue.runtask.overrides import ALLOW_EVERYTHING

#: The newest lines, as many as one page can show. CloudWatch returns at most 10,000 per call.
_MAX_LINES = 5000

MessagesAndLines = tuple[list[str], list[str]]
#: Returns a boto3 client of a service in a region, with a profile's credentials.
ClientFactory = Callable[[str, str, Profile], Any]


def read_task_log(
    config: Config,
    request_id: str | None,
    *,
    make_client: ClientFactory | None = None,
    environ: Mapping[str, str] | None = None,
) -> MessagesAndLines:
    """Return (messages about the source of the log, its lines). Raises the errors of AWS and the ledger unchanged."""
    if not request_id:
        return ["ecs-queue: the task has no request yet, so it has no container"], []
    ledger = open_ledger(config)
    try:
        record = ledger.get([request_id])[0]
    finally:
        ledger.close()
    if record is None:
        return [f"ecs-queue: request {request_id} is not known (any more)"], []
    if not record.arn:
        return [f"ecs-queue: request {request_id} is {record.state}; {record.reason or 'no container yet'}"], []
    directory = (os.environ if environ is None else environ).get(LOCAL_LOG_VARIABLE)
    if directory:
        return _read_local_log(Path(directory) / f"{record.arn.rsplit('/', 1)[-1]}.log", record)
    return _read_cloudwatch_log(config, record, make_client or _build_client_factory())


def _read_local_log(path: Path, record: Record) -> MessagesAndLines:
    if not path.is_file():
        return [f"ecs-queue: the local ECS has not written {path.name} yet"], []
    # Not splitlines(): a line of JSON may have a line separator (U+2028).
    texts = path.read_text(errors="replace").removesuffix("\n").split("\n")
    lines = (LogLine(None, text) for text in (texts if texts != [""] else []))
    shown = [line.text for line in _lines_of_record(lines, record)]
    return [f"ecs-queue: the local ECS's {path.name}"], shown[-_MAX_LINES:]


def _read_cloudwatch_log(config: Config, record: Record, make_client: ClientFactory) -> MessagesAndLines:
    profile = config.profile(record.queue)
    region, task_id = record.arn.split(":")[3], record.arn.rsplit("/", 1)[-1]
    container = record.container_name or profile.container_name
    ecs = make_client("ecs", region, profile)
    task_definition = _find_task_definition(ecs, profile, record.arn)
    description = ecs.describe_task_definition(taskDefinition=task_definition)
    options = awslogs_options(description["taskDefinition"], container)
    if isinstance(options, str):
        return [f"ecs-queue: {options}"], []
    group, stream = options["awslogs-group"], f"{options['awslogs-stream-prefix']}/{container}/{task_id}"
    logs = make_client("logs", options.get("awslogs-region", region), profile)
    source = f"ecs-queue: CloudWatch {group}, {stream}"
    try:
        response = logs.get_log_events(logGroupName=group, logStreamName=stream, limit=_MAX_LINES, startFromHead=False)
    except logs.exceptions.ResourceNotFoundException:
        return [f"{source}: nothing yet, the stream begins with the container's first line"], []
    lines = (LogLine(event["timestamp"] / 1000, str(event["message"])) for event in response["events"])
    return [source], [_format_line(line) for line in _lines_of_record(lines, record)]


def _lines_of_record(lines: Iterable[LogLine], record: Record) -> Iterator[LogLine]:
    """The log of a runner has the output of other requests, too."""
    own = lines_of_launch(lines, record.id, record.launch, is_runner=bool(record.run), unmarked=_MAX_LINES)
    return (line._replace(text=hide_secrets(line.text)) for line in own)


def _find_task_definition(ecs: Any, profile: Profile, arn: str) -> str | None:
    """Ask ECS only where a request may choose its own: the API server may not read the payload of the record."""
    if {ALLOW_EVERYTHING, "taskDefinition"}.isdisjoint(profile.allowed_overrides):
        return profile.task_definition
    found = ecs.describe_tasks(cluster=arn.split("/")[-2], tasks=[arn])["tasks"]
    return str(found[0]["taskDefinitionArn"]) if found else profile.task_definition


def _format_line(line: LogLine) -> str:
    """Airflow's own lines are JSON, which its log view understands; other lines are prefixed with their time."""
    try:
        if isinstance(json.loads(line.text), dict):
            return line.text
    except ValueError:
        pass  # plain text, as most programs write
    time = datetime.fromtimestamp(line.at or 0.0, UTC).isoformat(timespec="milliseconds")
    return f"[{time}] {line.text}"


def hide_secrets(text: str) -> str:
    """Return a container's line without what looks like a secret.

    In Airflow 3.1 a task's first line has the token with which the task calls Airflow, and who may read logs must not
    get the rights of tasks.
    """
    return str(redact(text, "secrets"))


def _build_client_factory() -> ClientFactory:
    """The clients have the credentials that a worker would use: the profile's connection and role, else boto3's own."""
    clients = EcsClients(ClientOptions(connect_timeout=3, read_timeout=5, max_pool_connections=1))

    def make_client(service: str, region: str, profile: Profile) -> Any:
        endpoint, role, connection = profile.endpoint_url or None, profile.role_arn or None, profile.conn_id or None
        return clients.client_for_service(Target(region, endpoint, role, profile.cluster or "", connection), service)

    return make_client
