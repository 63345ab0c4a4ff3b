"""The users of conf/redis-users.acl: in normal use the server denies none of them anything."""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from ecs_queue.broker import open_broker
from ecs_queue.client.client import EcsQueue
from ecs_queue.config import load_config
from ecs_queue.ledger import Ledger, open_ledger
from ecs_queue.local.redis_server import RedisServer
from ecs_queue.protocol.operations import ResultCode, RunnerTask, SettleRequest
from ecs_queue.protocol.record import Record
from ecs_queue.protocol.runs import RunEnd
from ecs_queue.runs.redis_runner import RedisRunner
from ecs_queue.server_keys import ledger_prefix
from ecs_queue.server_users import ServerUser
from tests.conformance.ledger.harness import claim_request, make_submission, task_update
from tests.conformance.ledger.runner_harness import RedisConnection
from tests.servers import require_redis_binary, valkey_binary
from tests.wait import wait_until

pytestmark = [pytest.mark.server]

_USERS = Path(__file__).parents[2] / "conf" / "redis-users.acl"
_PASSWORD = "a-password"
_PROFILE = {"AWS_ECS_EXECUTOR__CLUSTER": "jobs", "AWS_ECS_EXECUTOR__REGION_NAME": "us-east-1"}
_PROFILE |= {"AWS_ECS_EXECUTOR__TASK_DEFINITION": "family:1", "AWS_ECS_EXECUTOR__CONTAINER_NAME": "main"}
_PROFILE |= {"AWS_ECS_EXECUTOR__SUBNETS": "subnet-1"}


@pytest.fixture(params=[require_redis_binary, valkey_binary], ids=["redis", "valkey"])
def server(request: pytest.FixtureRequest) -> Iterator[RedisServer]:
    """A server with these users, of each program."""
    with RedisServer(binary=request.param()) as server, redis.Redis.from_url(server.url) as client:
        for line in _USERS.read_text().splitlines()[1:]:
            _, name, *rules = line.split()
            rules = [f">{_PASSWORD}" if rule.startswith(">") else rule for rule in rules]
            client.execute_command("ACL", "SETUSER", name, *rules)
        yield server


def _environ(server: RedisServer, user: str) -> dict[str, str]:
    url = server.url.replace("redis://", f"redis://ecs-queue-{user}:{_PASSWORD}@")
    return {"AIRFLOW__ECS_QUEUE__BROKER_URL": url, **{f"AIRFLOW__{name}": value for name, value in _PROFILE.items()}}


@contextmanager
def _run_with_users_file(program: str, directory: str) -> Iterator[Callable[[str], Any]]:
    """Run a server with the file and an append-only file; yield what opens a client of a user."""
    users = re.sub(r">\w+_PASSWORD", f">{_PASSWORD}", _USERS.read_text())
    Path(directory, "users.acl").write_text(users)
    socket = f"{directory}/socket"
    options = ["--port", "0", "--unixsocket", socket, "--dir", directory, "--aclfile", f"{directory}/users.acl"]
    options += ["--save", "", "--appendonly", "yes", "--appendfsync", "always"]
    server = subprocess.Popen([program, *options], stdout=subprocess.DEVNULL)

    def connect(user: str) -> Any:
        credentials: dict[str, Any] = {"username": f"ecs-queue-{user}", "password": _PASSWORD} if user else {}
        return redis.Redis(unix_socket_path=socket, decode_responses=True, retry=Retry(NoBackoff(), 0), **credentials)

    def is_ready() -> bool:
        with suppress(redis.ConnectionError), connect("worker") as client:
            return bool(client.ping())
        return False

    try:
        wait_until(is_ready, "the server takes commands")
        yield connect
    finally:
        server.terminate()
        server.wait(10)


@pytest.mark.parametrize("find", [require_redis_binary, valkey_binary], ids=["redis", "valkey"])
def test_a_restarted_server_with_this_file_has_what_transactions_wrote(find: Callable[[], str]) -> None:
    with tempfile.TemporaryDirectory() as directory:  # tmp_path is too long for a socket's name
        with _run_with_users_file(find(), directory) as connect, connect("worker").pipeline() as transaction:
            transaction.hset("{ecs-queue}:l:clock", "a", "1").hset("{ecs-queue}:l:clock", "b", "2").execute()
        with _run_with_users_file(find(), directory) as connect, connect("worker") as client:
            assert client.hget("{ecs-queue}:l:clock", "b") == "2"
            with pytest.raises(redis.ResponseError, match="cluster support disabled"):  # it is no missing right
                client.execute_command("CLUSTER", "SLOTS")
            with pytest.raises(redis.AuthenticationError):
                connect("").ping()


def _submit(environ: dict[str, str]) -> None:
    with EcsQueue.from_config(environ=environ) as queue:
        queue.submit(["true"], id="a")
        queue.submit(["true"], id="b")
        queue.stop("b")
        assert queue.ledger.get(["a", "b"])
        queue.check()


def _work(environ: dict[str, str]) -> None:
    config = load_config(environ=environ)
    ledger, broker = open_ledger(config), open_broker(config)
    try:
        assert not any(finding.prevents_launches for finding in ledger.check_server())
        ledger.begin_delivery("nonce", "delivery")
        ledger.end_delivery("nonce")
        assert ledger.claim("a", claim_request()).record is not None
        ledger.launched("a", "nonce", 1, "arn:1", 1.0)
        ledger.lease_due(10)
        ledger.list_workers()
        ledger.check_broken(10)
        assert ledger.list_broken() == []
        taken: list[Any] = []
        consumer = broker.consume_requests(["default"], 1, taken.append, print)
        wait_until(lambda: consumer.drain(0.1) or taken, "the request is taken")
        taken[0].ack()
        consumer.close()
    finally:
        broker.close()
        ledger.close()


def _read(environ: dict[str, str]) -> None:
    ledger = open_ledger(load_config(environ=environ))
    try:
        ledger.count_by_state()
        ledger.list_records("", 10)
        ledger.list_workers()
        assert ledger.list_broken() == []
        assert not any(finding.prevents_launches for finding in ledger.check_server(ServerUser.READER))
    finally:
        ledger.close()


def test_a_warm_pool_lives_with_the_rights_of_its_users(server: RedisServer) -> None:
    """A worker starts a runner, gives it a second request and closes it; a submitter stops one that it has."""
    submitter, worker = (open_ledger(load_config(environ=_environ(server, user))) for user in ("submitter", "worker"))
    with (
        closing(submitter),
        closing(worker),
        redis.Redis.from_url(_environ(server, "runner")["AIRFLOW__ECS_QUEUE__BROKER_URL"]) as client,
    ):
        names = ("first", "second", "third", "deleted", "untaken")
        submitter.put([make_submission(name, accept_until=worker.now() + 600) for name in names])
        run = _claim_warm(worker, "first", ResultCode.RUN_TASK)
        runner = RedisRunner(RedisConnection(client), ledger_prefix("ecs-queue"))
        runner.next_turn(run, "boot", "arn:1", None)
        assert [changed.name for changed in worker.pop_changed_runs(0.1, 10)] == [run]
        end = RunEnd(turn=1, exit_code=0)
        runner.next_turn(run, "boot", "arn:1", end)
        settled = worker.settle([SettleRequest(id="first", end=end, is_verified=True)])
        assert settled[0].code is ResultCode.ENDED
        assert _claim_warm(worker, "second", ResultCode.ASSIGNED) == run
        runner.wait_for_wake(run, 0.1)
        assert submitter.stop(["second"], "ann")[0].code is ResultCode.ENDED
        assert runner.leave(run, "boot", "arn:1", end)
        _claim_warm(worker, "third", ResultCode.RUN_TASK)
        worker.update_runner_tasks([task_update(Record(id="third"))])
        orphaned = _claim_warm(worker, "deleted", ResultCode.RUN_TASK)
        _delete_record(server, "deleted", orphaned)
        worker.close_silent(0, 10)
        assert worker.read_runs([orphaned]) == [None]
        assert submitter.drain_runs([run]) == 0
        taken = _claim_warm(worker, "untaken", ResultCode.RUN_TASK)
        assert submitter.put_back(["untaken"])[0].code is ResultCode.REQUEUED
        assert worker.read_runs([taken]) == [None]
        assert worker.may_stop([RunnerTask(run, "arn:1")]) == [True]
        worker.forget_runner(run)
    with redis.Redis.from_url(server.url) as client:
        admin: Any = client
        assert [(entry["username"], entry["object"]) for entry in admin.acl_log()] == []


def _delete_record(server: RedisServer, record_id: str, run: str) -> None:
    """Delete a record as an operator, and let its runner be silent for long."""
    prefix = ledger_prefix("ecs-queue")
    with redis.Redis.from_url(server.url) as client:
        assert client.delete(f"{prefix}r:{record_id}")
        client.hset(f"{prefix}run:{run}", mapping={"seen_at": "1", "assigned_at": "1"})


def _claim_warm(worker: Ledger, record_id: str, code: ResultCode) -> str:
    result = worker.claim(record_id, claim_request(record_id, pool="p", payload="secret"))
    assert result.code is code
    assert result.record is not None
    return result.record.run


@pytest.mark.parametrize(("user", "use"), [("submitter", _submit), ("worker", _work), ("reader", _read)])
def test_the_server_denies_a_user_nothing_in_normal_use(
    server: RedisServer, user: str, use: Callable[[dict[str, str]], None]
) -> None:
    """Among others CLIENT SETINFO, which redis-py sends twice on each connection."""
    if user == "worker":
        _submit(_environ(server, "submitter"))
    use(_environ(server, user))
    with redis.Redis.from_url(server.url) as client:
        admin: Any = client
        assert [(entry["username"], entry["object"]) for entry in admin.acl_log()] == []


def test_the_users_may_do_nothing_to_other_connections(server: RedisServer) -> None:
    """They may set up their own connection, by the category, since Redis 7.0 does not know the name SETINFO."""
    for user in ("worker", "submitter", "reader"):
        with redis.Redis.from_url(_environ(server, user)["AIRFLOW__ECS_QUEUE__BROKER_URL"]) as client:
            for command in ("CLIENT LIST", "CLIENT KILL ID 1", "CLIENT PAUSE 1", "CONFIG GET *", "ACL LIST", "KEYS *"):
                with pytest.raises(redis.exceptions.NoPermissionError):
                    client.execute_command(*command.split())
