"""An installation with the users of conf/redis-users.acl: a server, requests, dead letters and a journal."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import redis
from click.testing import CliRunner, Result

from ecs_queue.cli.main import cli
from ecs_queue.cli.ui.options import open_journal_reader
from ecs_queue.client.client import EcsQueue
from ecs_queue.config import load_config
from ecs_queue.container_logs.local_files import LOCAL_LOG_VARIABLE
from ecs_queue.ledger import open_ledger
from ecs_queue.ledger.base import DeadLetter
from ecs_queue.local.ecs import local_environment
from ecs_queue.local.redis_server import RedisServer
from ecs_queue.messages import envelope
from ecs_queue.protocol.states import State
from ecs_queue.server_users import SUBMITTERS, ServerUser, render_users
from tests.conformance.ledger.harness import claim_request, task_update
from tests.servers import valkey_binary
from tests.wait import wait_until

USERS_FILE = Path(__file__).parents[2] / "conf" / "redis-users.acl"
SECRET = "hunter2-the-payload"
#: Those with tests of their own: tests/runner/test_server_user.py, tests/calls/test_server_user.py.
_USERS_OF_CONTAINERS = (ServerUser.RUNNER, ServerUser.CALL)
#: Who uses the command line.
USERS = (
    *(user.value for user in ServerUser if user not in (ServerUser.SUBMITTER, *_USERS_OF_CONTAINERS)),
    *SUBMITTERS,
)
WORKER, READER, OPERATOR, SUBMITTER = "worker", "reader", "operator", "submitter"
EVERYONE = frozenset(USERS)
WRITERS = EVERYONE - {READER}

#: Command line -> who may run it. {name}: a request that waits; "letter": a dead letter, made anew for each user.
COMMANDS: Mapping[str, frozenset[str]] = {
    "submit -- true": WRITERS,
    "submit --id again-{user} -- true": WRITERS,
    "wait ended": EVERYONE,
    "wait ended ended --json": EVERYONE,
    "status": EVERYONE,
    "status waits": EVERYONE,
    "status ended": EVERYONE,
    "top": EVERYONE,
    "logs ended": EVERYONE,
    "queues": EVERYONE,
    "queues --json": EVERYONE,
    "queues pause etl": frozenset({OPERATOR}),
    "pools": EVERYONE,
    "pools drain default": EVERYONE,  # it has no runner, so nothing is written
    "queues resume etl": frozenset({OPERATOR}),
    "tasks": EVERYONE,
    "tasks --counts": EVERYONE,
    "tasks --reveal": frozenset({OPERATOR, WORKER}),
    "stop stops-{user}": WRITERS,
    "stop --state QUEUED --queue empty --yes": EVERYONE,
    "purge default": EVERYONE,
    "purge purged-{user} --yes": WRITERS,
    "retry revoked-{user}": frozenset({OPERATOR}),
    "retry --state REVOKED": frozenset({OPERATOR}),
    "workers": EVERYONE,
    "workers --check": EVERYONE,
    "scale": EVERYONE,
    "dead list": frozenset({OPERATOR}),
    "dead show letter-{user}": frozenset({OPERATOR}),
    "dead requeue letter-{user}": frozenset({OPERATOR}),
    "dead purge drop-{user} --yes": frozenset({OPERATOR}),
    "broken list": EVERYONE,
    "broken show record:broken-{user}": EVERYONE,
    "broken drop record:broken-{user} --yes": frozenset({OPERATOR, WORKER}),
    "journal show waits": frozenset({OPERATOR}),
    "journal tail": frozenset({OPERATOR}),
    "journal export": frozenset({OPERATOR}),
    "journal import {journal} --append": frozenset({OPERATOR}),
    "cost": frozenset({OPERATOR}),
    "replay waits --explain": frozenset({OPERATOR}),
    "replay waits --submit": frozenset({OPERATOR}),
    "worker": frozenset({WORKER}),
    "doctor": EVERYONE,
    "config": EVERYONE,
    "acl": EVERYONE,
}


@dataclass
class Installation:
    """A server with the users of the file, and requests in it."""

    server: RedisServer
    admin: Any
    journal_file: Path

    def environ(self, user: str) -> dict[str, str]:
        """Return the environment of a process with this user's password."""
        url = self.server.url.replace("redis://", f"redis://ecs-queue-{user}:{user}-pw@")
        prefix = {"AIRFLOW__ECS_QUEUE__OWNER_PREFIX": SUBMITTERS[user]} if user in SUBMITTERS else {}
        logs = {LOCAL_LOG_VARIABLE: str(self.journal_file.parent)}
        return {**local_environment("http://127.0.0.1:1", url), **prefix, **logs}

    def open_client(self, user: str, owner: str | None = None) -> EcsQueue:
        """Return a client with this user's rights."""
        return EcsQueue.from_config(environ=self.environ(user), owner=owner)

    def open_ledger(self, user: str) -> Any:
        """Return the ledger with this user's rights."""
        return open_ledger(load_config(environ=self.environ(user)))

    def denials(self) -> list[tuple[str, str]]:
        """Return what the server has denied since the last call: user and object."""
        found = [(entry["username"], entry["object"]) for entry in self.admin.acl_log()]
        self.admin.acl_log_reset()
        return found

    def invoke(self, user: str, line: str) -> Result:
        """Run a command line in this process."""
        values = {"user": user, "journal": str(self.journal_file)}
        return CliRunner().invoke(cli, [word.format(**values) for word in line.split()], env=self.environ(user))


def load_users(admin: Any, text: str) -> list[tuple[str, str]]:
    """Load a file of users with a password for each; return their names and rules."""
    users = []
    for line in text.splitlines()[1:]:
        name, rules = re.fullmatch(r"user (\S+) (.*)", line).groups()  # type: ignore[union-attr]
        users.append((name, rules))
        password = f"{name.removeprefix('ecs-queue-')}-pw"
        words = re.findall(r"\([^)]*\)|\S+", rules)
        admin.execute_command(
            "ACL", "SETUSER", name, *(f">{password}" if word.startswith(">") else word for word in words)
        )
    return users


def find_allowed_commands(url: str, commands: Sequence[str]) -> list[str]:
    """Return the commands that the server does not deny to the user of the URL; their words are split by blanks."""
    allowed = []
    client: Any
    with redis.Redis.from_url(url) as client:
        for command in commands:
            try:
                client.execute_command(*command.split(" "))
            except redis.exceptions.NoPermissionError:
                continue
            allowed.append(command)
    return allowed


@contextmanager
def run_server_with_users(binary: str, namespace: str) -> Iterator[RedisServer]:
    """Run a server that has the users of a namespace; the password of NAMESPACE-ROLE is NAMESPACE-ROLE-pw."""
    with RedisServer(binary=binary) as server, redis.Redis.from_url(server.url) as admin:
        load_users(admin, render_users(namespace))
        yield server


@contextmanager
def run_installation(journal_file: Path) -> Iterator[Installation]:
    """Run the server within the context; `journal_file` gets its exported journal."""
    with RedisServer(binary=valkey_binary()) as server, redis.Redis.from_url(server.url) as admin:
        load_users(admin, USERS_FILE.read_text())
        made = Installation(server, admin, journal_file)
        _make_requests(made)
        yield made


def _make_requests(made: Installation) -> None:
    """Submit requests, end one of them, and add dead letters."""
    with made.open_client(SUBMITTER) as queue:
        for name in ("waits", "ended", *(f"stops-{user}" for user in USERS)):
            queue.submit(["echo", SECRET], id=name)
        for user in USERS:
            queue.submit(["echo", SECRET], id=f"revoked-{user}").stop()
            queue.submit(["echo", SECRET], queue=f"purged-{user}")
        body = envelope.encode(queue.prepare({"id": "dead", "command": ["echo", SECRET]}).request)
    ledger = made.open_ledger(WORKER)
    for user in USERS:
        for kind in ("letter", "drop"):
            ledger.add_dead_letter(DeadLetter(key=f"{kind}-{user}", queue="default", reason="test", body=body))
    end_request(ledger, "ended")
    ledger.close()
    with open_journal_reader(load_config(environ=made.environ(OPERATOR))) as journal:
        wait_until(lambda: journal.size()[0] > 0, "the journal is written")
    assert made.denials() == []
    exported = made.invoke(OPERATOR, "journal export")
    assert exported.exit_code == 0, exported.stderr
    made.journal_file.write_text(exported.stdout)


def end_request(ledger: Any, name: str) -> None:
    """Do what a worker does until the request has ended."""
    record = ledger.claim(name, claim_request()).record
    ledger.launched(name, record.nonce, 1, f"arn:aws:ecs:us-east-1:123456789012:task/local/{name}", 1.0)
    (launched,) = ledger.get([name])
    ledger.update_tasks([task_update(launched, end_state=State.SUCCESS, exit_code=0)])
