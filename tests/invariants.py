"""The invariants that hold after any fault: the ledger's records are compared with the tasks of ECS."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

import boto3
from botocore.config import Config

from ecs_queue.protocol.record import Record

Task = Mapping[str, Any]


def make_ecs_client(endpoint_url: str) -> Any:
    """Return a boto3 client of a local ECS that retries injected errors."""
    return boto3.client(
        "ecs",
        endpoint_url=endpoint_url,
        region_name="us-east-1",
        aws_access_key_id="local",
        aws_secret_access_key="local",
        config=Config(retries={"total_max_attempts": 10, "mode": "standard"}),
    )


def list_all_tasks(endpoint_url: str, cluster: str = "local") -> list[Task]:
    """Return all tasks that ECS has not forgotten, as described by DescribeTasks."""
    client = make_ecs_client(endpoint_url)
    arns: dict[str, None] = {}
    for status in ("RUNNING", "STOPPED"):
        for page in client.get_paginator("list_tasks").paginate(cluster=cluster, desiredStatus=status):
            arns.update(dict.fromkeys(page["taskArns"]))
    tasks: list[Task] = []
    for batch in _chunks(list(arns), 100):
        tasks += client.describe_tasks(cluster=cluster, tasks=batch)["tasks"]
    return tasks


def find_violations(namespace: str, records: Iterable[Record], tasks: Iterable[Task], max_attempts: int) -> list[str]:
    """Return a description of each violated invariant, once every request has ended."""
    violations: list[str] = []
    by_request: defaultdict[str, list[Task]] = defaultdict(list)
    for task in tasks:
        by_request[task.get("startedBy", "").rpartition("/")[0]].append(task)
    for record in records:
        if not record.is_terminal:
            violations.append(f"{record.id} has not ended: {record.state}")
        if record.attempts > max_attempts:
            violations.append(f"{record.id} made {record.attempts} attempts of {max_attempts}")
        violations += _request_violations(record, by_request.pop(f"{namespace}/{record.id}/{record.nonce}", []))
    violations += [
        f"a task that no record knows: {task.get('startedBy')}" for own in by_request.values() for task in own
    ]
    return violations


def _request_violations(record: Record, tasks: Sequence[Task]) -> Iterator[str]:
    launches = sorted(int(task["startedBy"].rpartition("/")[2]) for task in tasks)
    for launch in sorted({one for one, other in pairwise(launches) if one == other}):
        yield f"launch {launch} of {record.id} has {launches.count(launch)} ECS tasks"
    if launches and launches[-1] > record.launch:
        yield f"{record.id} stands at launch {record.launch}, and launch {launches[-1]} has a task"
    if record.arn and record.arn not in {task["taskArn"] for task in tasks}:
        yield f"{record.id} names {record.arn}, which ECS does not know"
    for task in tasks:
        if task["lastStatus"] != "STOPPED":
            yield f"{record.id} ended {record.state}, and {task['taskArn']} is {task['lastStatus']}"
    lifetimes = sorted((task["createdAt"], task["stoppedAt"]) for task in tasks if "stoppedAt" in task)
    for (_, stopped_at), (created_at, _) in pairwise(lifetimes):
        if created_at < stopped_at:
            yield f"two tasks of {record.id} were alive at once, at {created_at}"


def _chunks(items: list[str], size: int) -> Iterator[list[str]]:
    return (items[start : start + size] for start in range(0, len(items), size))
