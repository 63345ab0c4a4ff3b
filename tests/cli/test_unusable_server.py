"""A server that a command cannot work with ends it with status 2 and the doctor's sentence."""

from __future__ import annotations

import subprocess
import uuid
from collections.abc import Iterator, Mapping

import kombu
import pytest
import redis

from ecs_queue.local.ecs import local_environment
from ecs_queue.local.redis_server import RedisServer
from ecs_queue.server_rights import RIGHTS_ADVICE
from tests.cli.conftest import Invoke, json_lines
from tests.processes import CLI_COMMAND, merged_environ
from tests.servers import valkey_binary

pytestmark = [pytest.mark.server]

_SUBMIT = ("submit", "--", "true")


@pytest.fixture
def server() -> Iterator[RedisServer]:
    """A Valkey without an append-only file."""
    with RedisServer(binary=valkey_binary()) as server:
        yield server


def _environ(server: RedisServer, *rules: str, **keys: str) -> dict[str, str]:
    """The environment of an installation whose server user has these rules."""
    with redis.Redis.from_url(server.url) as admin:
        admin.execute_command("ACL", "SETUSER", "lean", "reset", "on", ">hunter2", *(rules or ("~*", "&*", "+@all")))
    url = server.url.replace("redis://", "redis://lean:hunter2@")
    variables = {f"AIRFLOW__ECS_QUEUE__{name.upper()}": value for name, value in keys.items()}
    return {**local_environment("http://127.0.0.1:1", url), **variables}


def _run_worker(environ: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """In a process of its own: one that is not refused would never end."""
    command = [*CLI_COMMAND, "worker"]
    return subprocess.run(command, env=merged_environ(environ), capture_output=True, text=True, timeout=30)


def _doctors_sentence(invoke: Invoke, environ: Mapping[str, str], check: str) -> str:
    lines = json_lines(invoke("doctor", "--json", env=environ).stdout)
    (found,) = [line for line in lines if (line["check"], line["subject"]) == (check, "ledger")]
    assert found["severity"] == "error"
    return f"ledger: {found['text']}; {found['advice']}"


@pytest.mark.parametrize("durability", ["aof", "replica"])
def test_a_durability_that_the_server_cannot_give_ends_worker_and_submit(
    invoke: Invoke, server: RedisServer, durability: str
) -> None:
    environ = _environ(server, durability=durability)
    sentence = _doctors_sentence(invoke, environ, "server.persistence")
    worker, submit, workers = (
        _run_worker(environ),
        invoke(*_SUBMIT, env=environ),
        invoke("workers", env=environ),
    )
    assert f"durability = {durability}" in sentence
    assert (worker.returncode, worker.stderr.strip()) == (2, f"ecs-queue: {sentence}")
    assert (submit.exit_code, submit.stderr.strip()) == (2, f"ecs-queue: {sentence}")
    assert sentence in workers.stderr
    assert json_lines(invoke("tasks", "--json", env=environ).stdout) == []


@pytest.mark.parametrize(
    ("rules", "right"),
    [
        (("~*", "&*", "+@all", "-zadd"), "ZADD on {ecs-queue}:l:"),
        (("~{ecs-queue}:q:*", "&*", "+@all"), "its user a key of {ecs-queue}:l:*"),
        (("~*", "&*", "+@all", "-evalsha"), "user lean the command EVALSHA"),
        (("~*", "&*", "+@all", "-ping"), "user lean the command PING"),
    ],
)
def test_a_missing_right_ends_worker_and_submit_and_is_named(
    invoke: Invoke, server: RedisServer, rules: tuple[str, ...], right: str
) -> None:
    environ = _environ(server, *rules)
    worker, submit = _run_worker(environ), invoke(*_SUBMIT, env=environ)
    for status, said in ((worker.returncode, worker.stderr), (submit.exit_code, submit.stderr)):
        assert status == 2
        assert right in said
        assert RIGHTS_ADVICE in said
        assert "reached" not in said
        assert "hunter2" not in said
        assert len(said.splitlines()) == 1


def test_a_user_that_may_not_look_at_the_server_submits(invoke: Invoke, server: RedisServer) -> None:
    environ = _environ(server, "~*", "&*", "+@all", "-info", "-config")
    assert invoke(*_SUBMIT, env=environ).exit_code == 0
    lines = json_lines(invoke("doctor", "--json", env=environ).stdout)
    assert {line["severity"] for line in lines if line["check"] == "server.version"} == {"info"}


def test_a_broker_that_refuses_scripts_ends_worker_and_submit(invoke: Invoke, server: RedisServer) -> None:
    """Messages could be published there, and no worker could take them."""
    with RedisServer(binary=valkey_binary(), settings=['rename-command EVALSHA ""']) as broker:
        environ = _environ(server, broker_url=broker.url, ledger_url=server.url)
        worker, submit = _run_worker(environ), invoke(*_SUBMIT, env=environ)
        (found,) = [
            line
            for line in json_lines(invoke("doctor", "--json", env=environ).stdout)
            if line["check"] == "broker.reachable"
        ]
    for status, said in ((worker.returncode, worker.stderr), (submit.exit_code, submit.stderr)):
        assert status == 2
        assert "the broker failed: unknown command 'EVALSHA'" in said
        assert found["text"] in said
    assert json_lines(invoke("tasks", "--json", env=environ).stdout) == []


def test_a_queue_of_another_program_in_rabbitmq_ends_worker_and_submit(
    invoke: Invoke, redis_url: str, rabbitmq_url: str
) -> None:
    namespace = f"t{uuid.uuid4().hex[:8]}"
    broker = {"BROKER_URL": rabbitmq_url, "LEDGER_URL": redis_url, "NAMESPACE": namespace}
    keys = {f"AIRFLOW__ECS_QUEUE__{name}": value for name, value in broker.items()}
    environ = {**local_environment("http://127.0.0.1:1", redis_url), **keys}
    with kombu.Connection(rabbitmq_url) as connection:
        connection.default_channel.queue_declare(f"{namespace}.urgent.default", durable=True, auto_delete=False)

    lines = json_lines(invoke("doctor", "--json", env=environ).stdout)
    (found,) = [line for line in lines if line["subject"] == "broker"]
    worker, submit = _run_worker(environ), invoke(*_SUBMIT, env=environ)

    assert (found["check"], found["severity"]) == ("server.queues", "error")
    assert f"the broker's queue {namespace}.urgent.default exists" in found["text"]
    assert (worker.returncode, worker.stderr.strip()) == (2, f"ecs-queue: {found['text']}")
    assert (submit.exit_code, submit.stderr.strip()) == (2, f"ecs-queue: {found['text']}")
    assert json_lines(invoke("tasks", "--json", env=environ).stdout) == []


def test_a_broker_that_holds_no_records_ends_every_command_until_there_is_a_ledger(invoke: Invoke) -> None:
    for command in (("worker",), _SUBMIT, ("workers",), ("status",), ("doctor",)):
        ended = invoke(*command, env={"AIRFLOW__ECS_QUEUE__BROKER_URL": "amqp://u:hunter2@127.0.0.1:1"})
        assert ended.exit_code == 2, command
        assert "ledger_url: expected the URL of a Redis or Valkey" in ended.stderr
        assert "hunter2" not in ended.output
