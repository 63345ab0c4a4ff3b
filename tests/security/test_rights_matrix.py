"""Every command and every call of the API as every user of conf/redis-users.acl: what is allowed, what is denied.

What is allowed leaves ACL LOG empty. What is denied ends with one sentence that names the right.
"""

from __future__ import annotations

import re
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, nullcontext
from typing import Any

import click
import pytest
import redis
from starlette.testclient import TestClient

from ecs_queue.broker import open_broker
from ecs_queue.cli.main import cli
from ecs_queue.cli.web import make_commands, make_presentation
from ecs_queue.config import load_config
from ecs_queue.errors import MissingRight
from ecs_queue.journal import RedisJournal
from ecs_queue.journal.base import EventBatch
from ecs_queue.messages import envelope
from ecs_queue.messages.keyring import Keyring
from ecs_queue.messages.result import build_result
from ecs_queue.protocol.concurrency_keys import KeyCounts
from ecs_queue.protocol.states import State
from ecs_queue.server_users import SUBMITTERS, render_users
from ecs_queue.web.access import Access
from ecs_queue.web.app import WebApp
from tests.conformance.ledger.harness import claim_request
from tests.processes import CLI_COMMAND, merged_environ
from tests.security.installation import (
    COMMANDS,
    EVERYONE,
    OPERATOR,
    READER,
    SECRET,
    SUBMITTER,
    USERS,
    USERS_FILE,
    WORKER,
    WRITERS,
    Installation,
    end_request,
    load_users,
    run_installation,
)
from tests.wait import wait_until

pytestmark = [pytest.mark.server, pytest.mark.timeout(120)]

#: Commands that use no server but their own, and the one that has a user of its own (tests/runner/test_server_user.py).
WITHOUT_SERVER = {"local env", "conf list", "conf show", "local-ecs", "demo", "runner", "runner-key"}

#: The exit statuses of those that may do what they are asked to; 0 of the others. `retry` refuses what is Airflow's, or
#: was retried by another test.
_STATUSES = {"doctor": {1}, "workers --check": {1}, "retry --state REVOKED": {0, 1}}

#: Ends only when it is stopped; its pages have a test below.
ENDLESS = {"web"}


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """One server for all tests here."""
    with run_installation(tmp_path_factory.mktemp("matrix") / "journal.jsonl") as made:
        yield made


def _leaf_commands(group: click.Group, path: str = "") -> Iterator[str]:
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from _leaf_commands(command, f"{path}{name} ")
        else:
            yield f"{path}{name}"


def test_the_file_is_generated_from_the_table() -> None:
    assert USERS_FILE.read_text() == render_users("ecs-queue"), "run: ecs-queue acl > conf/redis-users.acl"


def test_every_command_is_in_the_matrix() -> None:
    commands = set(_leaf_commands(cli)) - WITHOUT_SERVER - ENDLESS
    assert {name for name in commands if not any(line.startswith(name) for line in COMMANDS)} == set()


@pytest.mark.parametrize("user", USERS)
@pytest.mark.parametrize("line", [line for line in COMMANDS if line != "worker"])
def test_a_command_is_allowed_or_ends_with_the_right_that_is_missing(
    installation: Installation, line: str, user: str
) -> None:
    installation.denials()
    with _broken_record(installation, f"broken-{user}") if line.startswith("broken") else nullcontext():
        result = installation.invoke(user, line)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    sentences = [text for text in result.stderr.splitlines() if "denies" in text]
    if user in COMMANDS[line]:
        assert result.exit_code in _STATUSES.get(line, {0}), result.output
        assert sentences == []
        assert installation.denials() == []
    else:
        assert (result.exit_code, len(sentences)) == (2, 1), result.output
        assert re.search(r"server denies (its user|user ecs-queue-\S+) ", sentences[0])
        assert SECRET not in result.output
        if line in ("cost", "journal show waits", "journal export"):
            assert "with the rights of an operator" in sentences[0]


@contextmanager
def _broken_record(installation: Installation, record_id: str) -> Iterator[None]:
    """Another program has broken a record, and a worker has listed it."""
    item = f"record {record_id}"
    installation.admin.set(f"{{ecs-queue}}:l:r:{record_id}", "text")
    installation.admin.hset("{ecs-queue}:l:broken", item, "1.000 0 its key holds no hash")
    installation.admin.zadd("{ecs-queue}:l:broken_checks", {item: 1e10})
    yield
    installation.admin.delete(f"{{ecs-queue}}:l:r:{record_id}", "{ecs-queue}:l:broken", "{ecs-queue}:l:broken_checks")


@pytest.mark.parametrize("user", [user for user in USERS if user not in COMMANDS["worker"]])
def test_no_other_user_starts_a_worker(installation: Installation, user: str) -> None:
    installation.denials()
    result = installation.invoke(user, "worker")
    assert result.exit_code == 2, result.output
    assert "denies" in result.stderr


def test_a_worker_starts_works_and_ends_with_its_own_rights(installation: Installation) -> None:
    installation.denials()
    environ = merged_environ(installation.environ(WORKER), {"AIRFLOW__ECS_QUEUE__VISIBILITY_TIMEOUT": "1"})
    process = subprocess.Popen(
        [*CLI_COMMAND, "worker", "--queues", "worked", "--name", "w"], env=environ, stderr=subprocess.PIPE
    )
    try:
        with installation.open_client(SUBMITTER, "") as queue:
            wait_until(lambda: any(worker.name == "w" for worker in queue.ledger.list_workers()), "it is alive", 30)
            queue.submit(["true"], id="received", queue="worked")
            wait_until(lambda: queue.status("received").calls > 0, "it has called ECS, which is not there", 30)
    finally:
        process.send_signal(signal.SIGTERM)
        _, logged = process.communicate(timeout=30)
    assert process.returncode == 0, logged.decode()
    assert installation.denials() == []


def _submit_and_receive(made: Installation, user: str) -> None:
    """Submit, have a worker end the request and publish its result, receive it and stop another."""
    name = f"received-{user}"
    ledger = made.open_ledger(WORKER)
    broker = open_broker(load_config(environ=made.environ(WORKER)))
    with made.open_client(user) as queue:
        handle, other = queue.submit_many([{"id": name, "command": ["true"]}, {"command": ["true"]}])
        received: list[Any] = []
        waiting = threading.Thread(target=lambda: received.append(handle.result(timeout=20)))
        waiting.start()
        end_request(ledger, name)
        (record,) = ledger.get([name])
        broker.publish_results([(record.owner, envelope.encode(build_result(record)))])
        waiting.join(30)
        assert received[0].succeeded
        assert queue.stop(other.id) is State.REVOKED
        queue.ledger.list_undelivered(queue.owner, 10)
    ledger.close()
    broker.close()


def _submit_without_owner(made: Installation, user: str) -> None:
    with made.open_client(user, "") as queue:
        queue.stop(queue.submit(["true"]).id)
        queue.check()


def _stop_what_waits_for_a_key(made: Installation, user: str) -> None:
    """Who ends the request whose turn it is wakes the next one; a worker also frees a slot that no request holds."""
    names, key = [f"{name}-{user}" for name in ("first", "next", "last")], f"key {user}"
    ledger = made.open_ledger(WORKER)
    with made.open_client(user, "") as queue:
        made.admin.zadd(f"{{ecs-queue}}:l:key_holders:default|{key}", {"gone": 1.0})
        for name in names:
            queue.submit(["true"], id=name, concurrency_key=key)
            ledger.claim(name, claim_request(f"claim-{name}", key_limit=1))
        assert queue.ledger.count_of_key("default", key) == KeyCounts(in_flight=1, waiting=2)
        ledger.no_effect(names[0], f"claim-{names[0]}", 60.0, "throttled")
        assert queue.stop(names[1]) is State.REVOKED
        assert queue.status(names[2]).not_before <= ledger.now()
        assert [queue.stop(name) for name in names] == [State.REVOKED] * 3
    ledger.close()


def _look(made: Installation, user: str) -> None:
    with made.open_client(user, "") as queue:
        assert queue.status("ended").state is State.SUCCESS
        assert queue.backlog("default") > 0
        assert queue.ledger.count_by_state()["default"]
        assert queue.ledger.list_records("", 10)[0]
        assert queue.ledger.find_id_by_arn("arn:unknown") is None
        made.admin.hset("{ecs-queue}:l:workers", "gone", "1.000 2.000 {}")
        assert "gone" not in [worker.name for worker in queue.ledger.list_workers()]
        queue.ledger.list_paused_queues()
        queue.ledger.get_event_health()
        assert queue.ledger.count_waiting_for_keys(["default"])["default"] >= 0


def _submit(made: Installation, user: str) -> None:
    with made.open_client(user, "") as queue:
        queue.submit(["true"])


def _stop(made: Installation, user: str) -> None:
    with made.open_client(user, "") as queue:
        queue.stop("waits")


def _read_payload(made: Installation, user: str) -> None:
    with made.open_client(user, "") as queue:
        (record,) = queue.ledger.get_with_payload(["waits"])
    assert record is not None
    assert SECRET.encode() in record.request


@pytest.mark.parametrize("user", USERS)
def test_the_web_page_says_what_its_user_may_not_read(installation: Installation, user: str) -> None:
    installation.denials()
    with installation.open_client(user, "") as queue, closing(open_broker(queue.config)) as broker:
        app = WebApp(queue, broker, Access(token=SECRET), make_presentation(), make_commands()).build()
        browser = TestClient(app, base_url="http://localhost")
        for path in ("/", "/tasks", "/tasks/ended", "/runners", "/journal", "/find?id=ended"):
            assert browser.get(path).status_code == 200, path
        assert ("may not read the journal" in browser.get("/journal").text) == (user != OPERATOR)
        assert installation.denials() == []
        dead = browser.get("/dead")
        assert dead.status_code == (200 if user == OPERATOR else 403), dead.text


Call = Callable[[Installation, str], None]
#: Calls of the Python API and of the ledger -> who may make them.
CALLS: Sequence[tuple[Call, frozenset[str]]] = (
    (_look, EVERYONE),
    (_submit_without_owner, WRITERS),
    (_stop_what_waits_for_a_key, WRITERS),
    (_submit_and_receive, frozenset(SUBMITTERS)),
    (_read_payload, frozenset({WORKER, OPERATOR})),
)


@pytest.mark.parametrize(("call", "user"), [(call, user) for call, users in CALLS for user in USERS if user in users])
def test_a_call_of_the_api_is_allowed(installation: Installation, call: Call, user: str) -> None:
    installation.denials()
    call(installation, user)
    assert installation.denials() == []


@pytest.mark.parametrize(
    ("call", "user"),
    [
        (_submit, READER),
        (_stop, READER),
        (_read_payload, READER),
        (_read_payload, SUBMITTER),
    ],
)
def test_a_call_of_the_api_is_denied_with_the_right_that_is_missing(
    installation: Installation, call: Call, user: str
) -> None:
    installation.denials()
    with pytest.raises(MissingRight, match="server denies"):
        call(installation, user)
    assert {name for name, _ in installation.denials()} <= {f"ecs-queue-{user}"}


@pytest.mark.parametrize(
    ("user", "command"),
    [
        (SUBMITTER, "DEL {ecs-queue}:q:requests.default"),
        (SUBMITTER, "RPOP {ecs-queue}:q:requests.default"),
        (SUBMITTER, "BRPOP {ecs-queue}:q:requests.default 1"),
        (SUBMITTER, "LRANGE {ecs-queue}:q:requests.default 0 -1"),
        (SUBMITTER, "LTRIM {ecs-queue}:q:requests.default 1 0"),
        (SUBMITTER, "PEXPIRE {ecs-queue}:q:requests.default 1"),
        (SUBMITTER, "HGETALL {ecs-queue}:q:unacked"),
        (SUBMITTER, "BRPOP {ecs-queue}:q:results.airflow-1 1"),
        (SUBMITTER, "LRANGE {ecs-queue}:q:results.airflow-1 0 -1"),
        (SUBMITTER, "DEL {ecs-queue}:q:results.airflow-1"),
        (SUBMITTER, "ZRANGE {ecs-queue}:l:undelivered:airflow-1 0 -1"),
        ("airflow", "BRPOP {ecs-queue}:q:results.client-1 1"),
        (SUBMITTER, "HGETALL {ecs-queue}:l:payload:waits"),
        (SUBMITTER, "HGET {ecs-queue}:l:dead_letters letter-worker"),
        (SUBMITTER, "DEL {ecs-queue}:l:r:waits"),
        (SUBMITTER, "HDEL {ecs-queue}:l:workers w"),
        (SUBMITTER, "HSET {ecs-queue}:l:paused default 1"),
        (SUBMITTER, "SET {ecs-queue}:l:bucket:run_task 1"),
        (SUBMITTER, "XRANGE {ecs-queue}:j:s - +"),
        (SUBMITTER, "DEL {ecs-queue}:j:s"),
        (SUBMITTER, "EVAL return 1 0"),
        (READER, "HGETALL {ecs-queue}:l:payload:waits"),
        (READER, "HGET {ecs-queue}:l:dead_letters letter-worker"),
        (READER, "LRANGE {ecs-queue}:q:requests.default 0 -1"),
        (READER, "LRANGE {ecs-queue}:q:results.client-1 0 -1"),
        (READER, "HGETALL {ecs-queue}:q:unacked"),
        (READER, "XRANGE {ecs-queue}:j:s - +"),
        (READER, "HSET {ecs-queue}:l:r:waits state SUCCESS"),
        (READER, "HDEL {ecs-queue}:l:workers w"),
        (READER, "LPUSH {ecs-queue}:q:requests.default x"),
        (WORKER, "HGET {ecs-queue}:l:dead_letters letter-worker"),
        (WORKER, "HSET {ecs-queue}:l:paused default 1"),
        (WORKER, "BRPOP {ecs-queue}:q:results.client-1 1"),
        (WORKER, "XRANGE {ecs-queue}:j:s - +"),
        (WORKER, "DEL {ecs-queue}:l:r:waits"),
        (WORKER, "FLUSHALL"),
        (WORKER, "KEYS *"),
        (WORKER, "CONFIG GET *"),
        (WORKER, "CLIENT LIST"),
        (WORKER, "ACL LIST"),
        (WORKER, "PUBLISH news x"),
        (OPERATOR, "LRANGE {ecs-queue}:q:requests.default 0 -1"),
        (OPERATOR, "RPOP {ecs-queue}:q:requests.default"),
        (OPERATOR, "BRPOP {ecs-queue}:q:results.client-1 1"),
        (OPERATOR, "DEL {ecs-queue}:l:r:waits"),
        (OPERATOR, "XDEL {other}:j:s 1-1"),
        *((user, "CLIENT TRACKING ON") for user in USERS),
        *((user, "HGETALL {other}:l:r:waits") for user in USERS),
        *((user, "LPUSH {other}:q:requests.default x") for user in USERS),
        *((user, "HGETALL {ecs-queue2}:l:r:waits") for user in USERS),
    ],
)
def test_no_user_may_do_what_it_does_not_need(installation: Installation, user: str, command: str) -> None:
    url = installation.environ(user)["AIRFLOW__ECS_QUEUE__BROKER_URL"]
    with redis.Redis.from_url(url) as client, pytest.raises(redis.exceptions.NoPermissionError):
        client.execute_command(*command.split())


def test_a_script_gives_no_right_that_its_user_lacks(installation: Installation) -> None:
    """A reader may run scripts, and each command within them is checked."""
    url = installation.environ(READER)["AIRFLOW__ECS_QUEUE__BROKER_URL"]
    with redis.Redis.from_url(url) as client:
        script = client.register_script("return redis.call('HGETALL', '{ecs-queue}:l:payload:waits')")
        with pytest.raises(redis.exceptions.ResponseError, match="ACL failure"):
            script()


def test_the_reader_sees_no_payload_in_any_key_that_it_may_read(installation: Installation) -> None:
    """It tries every key of the server with every command of its selectors."""
    url = installation.environ(READER)["AIRFLOW__ECS_QUEUE__BROKER_URL"]
    reads = ("HGETALL {}", "ZREVRANGE {} 0 -1", "LRANGE {} 0 -1", "GET {}", "XRANGE {} - +", "HVALS {}", "DUMP {}")
    seen, payloads = [], 0
    with redis.Redis.from_url(url) as client:
        for key in installation.admin.keys("*"):
            payloads += SECRET.encode() in (installation.admin.dump(key) or b"")
            for read in reads:
                try:
                    seen.append(repr(client.execute_command(*read.format(key.decode()).split())))
                except redis.exceptions.ResponseError:
                    continue
    assert payloads >= 2, "there is something to find: a payload and the dead letters"
    assert len(seen) > 5, "it sees records"
    assert [text for text in seen if SECRET in text] == []


def test_for_durability_aof_the_users_that_write_may_wait_for_the_file(installation: Installation) -> None:
    for name, rules in load_users(installation.admin, render_users("aof", durability="aof")):
        allowed = installation.admin.execute_command("ACL", "DRYRUN", name, "WAITAOF", "1", "0", "1")
        assert (allowed == b"OK") == ("+waitaof" in rules or name == "aof-reader")


def test_who_only_appends_to_the_journal_keeps_it_within_its_bounds(installation: Installation) -> None:
    """It evicts the oldest events, which it may not read."""
    load_users(installation.admin, render_users("bounded"))
    installation.denials()
    url = installation.server.url.replace("redis://", "redis://bounded-submitter:bounded-submitter-pw@")
    with redis.Redis.from_url(url) as client:
        journal = RedisJournal(
            client, Keyring("bounded"), max_bytes=2000, max_element_bytes=2**20, retention_seconds=60.0
        )
        for number in range(1, 41):
            ids = [f"job-{number}"]
            journal.append(
                EventBatch(
                    writer_id="w", batch_number=number, worker="w", event_count=1, request_ids=ids, body=b"[]" * 40
                )
            )
        assert not journal.is_readable()
    assert installation.denials() == []
    elements = installation.admin.xlen("{bounded}:j:s")
    assert 1 < elements < 40
    assert installation.admin.hlen("{bounded}:j:ids") == elements
    assert len(installation.admin.keys("{bounded}:j:r:*")) == elements
