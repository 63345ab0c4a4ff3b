"""Troubles of a profile, of capacity and of a worker's rights: real workers, a real server, the local ECS."""

from __future__ import annotations

import json
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs
from uuid import uuid4

import pytest

from ecs_queue.client.client import EcsQueue
from ecs_queue.local.ecs import FaultOptions, LocalEcs, LocalEcsOptions, TimerRunner, local_environment
from ecs_queue.protocol.record import Record
from ecs_queue.protocol.states import State
from tests.processes import CLI_COMMAND, QUICK_SETTINGS, merged_environ, run_worker
from tests.wait import wait_until

pytestmark = [pytest.mark.server, pytest.mark.slow]

_RIGHT_ROLE = "arn:aws:iam::123456789012:role/right"
_PROFILE = "AIRFLOW__AWS_ECS_EXECUTOR"


class _Sts(BaseHTTPRequestHandler):
    """AssumeRole of the right role only."""

    def do_POST(self) -> None:
        role = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())["RoleArn"][0]
        body, status = _DENIED, 403
        if role == _RIGHT_ROLE:
            body, status = _ASSUMED, 200
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *_: Any) -> None:
        """Print nothing."""


_DENIED = """<ErrorResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><Error><Type>Sender</Type>
<Code>AccessDenied</Code><Message>User is not authorized to perform: sts:AssumeRole</Message></Error></ErrorResponse>"""
_ASSUMED = f"""<AssumeRoleResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><AssumeRoleResult><Credentials>
<AccessKeyId>assumed</AccessKeyId><SecretAccessKey>secret</SecretAccessKey><SessionToken>token</SessionToken>
<Expiration>2099-01-01T00:00:00Z</Expiration></Credentials><AssumedRoleUser><AssumedRoleId>id:ecs-queue</AssumedRoleId>
<Arn>{_RIGHT_ROLE}</Arn></AssumedRoleUser></AssumeRoleResult></AssumeRoleResponse>"""


@contextmanager
def _sts() -> Iterator[str]:
    """The URL of an STS for role_arn."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Sts) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


def _health(queue: EcsQueue) -> dict[str, str]:
    """The health of each worker by name."""
    return {worker.name: worker.health for worker in queue.ledger.list_workers()}


def _records(queue: EcsQueue, ids: list[str]) -> list[Record]:
    return [record for record in queue.ledger.get(ids) if record is not None]


def test_a_mended_profile_launches_what_waited_for_it_and_does_not_delay_what_is_new(
    redis_url: str, tmp_path: Path
) -> None:
    """Cluster, Region, endpoint and role are wrong, each in a queue of its own, and mended with a new worker."""
    queues = ("cluster", "region", "endpoint", "role")
    with (
        LocalEcs(LocalEcsOptions(checks_region=True), TimerRunner()) as ecs,
        _sts() as sts_url,
    ):
        right = merged_environ(local_environment(ecs.endpoint_url, redis_url), {"AWS_ENDPOINT_URL_STS": sts_url})
        right["AIRFLOW__ECS_QUEUE__RETRY_BASE_SECONDS"] = "0.5"  # a quarter of the default
        right[f"{_PROFILE}_ROLE__ROLE_ARN"] = _RIGHT_ROLE
        for queue_name in ("cluster", "region", "endpoint"):
            right[f"{_PROFILE}_{queue_name.upper()}__CLUSTER"] = "local"
        wrong = right | {
            f"{_PROFILE}_CLUSTER__CLUSTER": "prdo",
            f"{_PROFILE}_REGION__REGION_NAME": "eu-north-1",
            f"{_PROFILE}_ENDPOINT__ENDPOINT_URL": "http://127.0.0.1:9",
            f"{_PROFILE}_ROLE__ROLE_ARN": _RIGHT_ROLE.replace("right", "wrong"),
        }
        options = ("--queues", ",".join(queues))
        with EcsQueue.from_config(environ=right, owner="") as queue:
            ids = [f"{name}-{number}" for name in queues for number in range(3)]
            queue.submit_many({"id": one, "command": ["true"], "queue": one.partition("-")[0]} for one in ids)
            with run_worker(wrong, tmp_path / "wrong.log", "--name", "wrong", *options):
                wait_until(
                    lambda: {record.queue for record in _records(queue, ids) if record.launch > 1} == set(queues),
                    "each queue was tried",
                )
                wait_until(
                    lambda: all(f"{name}: " in _health(queue).get("wrong", "") for name in queues),
                    "the worker's heartbeat names each of them",
                )
            assert ecs.stats()["tasks_created"] == 0
            with run_worker(right, tmp_path / "right.log", "--name", "right", *options):
                wait_until(lambda: "right" in _health(queue), "the worker runs")
                mended_at = time.monotonic()
                new = [queue.submit(["true"], queue=name) for name in queues]
                for handle in new:
                    assert handle.result(timeout=10).state == "SUCCESS"
                wait_until(lambda: all(record.state is State.SUCCESS for record in _records(queue, ids)), "", 60)
                assert time.monotonic() - mended_at < 60
                assert {record.attempt for record in _records(queue, ids)} == {1}
                assert _health(queue)["right"] == "ok"
        assert ecs.stats()["tasks_created"] == len(ids) + len(queues)


@pytest.mark.parametrize("by_events", [False, True], ids=["by poll", "by event"])
def test_a_stretch_without_capacity_uses_no_attempt_however_ecs_reports_it(
    redis_url: str, tmp_path: Path, sqs: Any, by_events: bool
) -> None:
    """An exception, an entry of `failures`, or the reason of a stopped task, in turn for each request."""
    event_queue = str(sqs.create_queue(QueueName=f"events-{uuid4().hex}")["QueueUrl"]) if by_events else None
    no_polls: dict[str, Any] = {"operations": ("DescribeTasks",), "server_error": 1.0} if by_events else {}
    no_capacity = FaultOptions(capacity=0.3, capacity_error=0.5, capacity_stop=1.0, **no_polls)
    options = LocalEcsOptions(event_queue_url=event_queue, faults=no_capacity)
    with LocalEcs(options, TimerRunner()) as ecs:
        environ = merged_environ(QUICK_SETTINGS, local_environment(ecs.endpoint_url, redis_url))
        environ["AIRFLOW__ECS_QUEUE__EVENT_QUEUE_URL"] = event_queue or ""
        with (
            EcsQueue.from_config(environ=environ, owner="") as queue,
            run_worker(environ, tmp_path / "worker.log"),
        ):
            ids = [handle.id for handle in queue.submit_many({"command": ["true"]} for _ in range(4))]
            # Far more launches than a request has attempts, and every channel.
            wait_until(lambda: all(record.launch > 4 for record in _records(queue, ids)), "they are refused")
            assert {record.state for record in _records(queue, ids)} <= {State.QUEUED, State.LAUNCHING, State.LAUNCHED}
            faults = ecs.stats()["faults"]
            assert min(faults[name] for name in ("capacity", "capacity_error", "capacity_stop")) > 0
            ecs.inject_faults(FaultOptions(**no_polls))
            wait_until(lambda: all(record.is_terminal for record in _records(queue, ids)), "they have ended")
            assert {(record.state, record.attempt) for record in _records(queue, ids)} == {(State.SUCCESS, 1)}
        stats = ecs.stats()
        if by_events:  # no poll has reported an end
            assert stats["calls"].get("DescribeTasks", 0) == stats["errors"].get("ServerException", 0)


def test_a_denied_worker_fails_nothing_and_a_role_of_the_request_fails_that_request(
    redis_url: str, tmp_path: Path
) -> None:
    role = "arn:aws:iam::123456789012:role/admin"
    denied = FaultOptions(denied_access_key_ids=("denied",), protected_roles=(role,))
    with LocalEcs(LocalEcsOptions(faults=denied, latency_seconds=0.02), TimerRunner()) as ecs:
        environ = merged_environ(QUICK_SETTINGS, local_environment(ecs.endpoint_url, redis_url))
        environ["AIRFLOW__ECS_QUEUE__ALLOWED_OVERRIDES"] = "safe, overrides.taskRoleArn"
        with ExitStack() as stack:
            queue = stack.enter_context(EcsQueue.from_config(environ=environ, owner=""))
            for name in ("denied", "allowed"):
                log = tmp_path / f"{name}.log"
                keys = environ | {"AWS_ACCESS_KEY_ID": name}
                stack.enter_context(run_worker(keys, log, "--name", name, "--concurrency", "2"))
            wait_until(lambda: len(_health(queue)) == 2, "both run")
            ids = [handle.id for handle in queue.submit_many({"command": ["sleep", "0.2"]} for _ in range(100))]
            wait_until(lambda: _health(queue).get("denied", "ok") != "ok", "the denied worker says so")
            command = [*CLI_COMMAND, "workers", "--json"]
            shown = subprocess.run(command, env=environ, capture_output=True, check=False, timeout=60)
            assert shown.returncode == 1  # a worker is not healthy
            health = {worker["name"]: worker["health"] for worker in map(json.loads, shown.stdout.splitlines())}
            assert (health["allowed"], "ecs:RunTask" in health["denied"]) == ("ok", True)
            chosen = queue.submit(["true"], executor_config={"overrides": {"taskRoleArn": role}})
            result = chosen.result(timeout=60)
            assert (result.state, "iam:PassRole" in result.reason) == ("FAILED", True)
            ecs.inject_faults(FaultOptions())
            wait_until(lambda: all(record.is_terminal for record in _records(queue, ids)), "all have ended")
            assert {(record.state, record.attempt) for record in _records(queue, ids)} == {(State.SUCCESS, 1)}
        assert ecs.stats()["errors"]["AccessDeniedException"] >= 2
