"""Keys, TLS and least-privileged users with real processes: forged requests do not run, secrets stay secret."""

from __future__ import annotations

import base64
import json
import re
import subprocess
import threading
import time
import uuid
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import redis
from cryptography.fernet import Fernet

from ecs_queue.broker import open_broker
from ecs_queue.client.client import EcsQueue
from ecs_queue.config import load_config
from ecs_queue.config.keyring import open_keyring
from ecs_queue.errors import BrokerUnavailable, LedgerUnavailable
from ecs_queue.ledger import open_ledger
from ecs_queue.local.ecs import LocalEcs, LocalEcsOptions, local_environment
from ecs_queue.messages import envelope
from ecs_queue.messages.request import TaskRequest, new_request
from ecs_queue.messages.result import TaskResult
from tests.processes import CLI_COMMAND, QUICK_SETTINGS, merged_environ, run_worker
from tests.system.secure_redis import PASSWORDS, USERS, SecureRedis, run_secure_redis
from tests.wait import wait_until

pytestmark = [pytest.mark.server, pytest.mark.slow, pytest.mark.timeout(180)]

SECRET = "hunter2-the-secret"
FERNET = Fernet.generate_key().decode()
KEYS = {
    "AIRFLOW__ECS_QUEUE__SIGNING_KEYS": "k1:" + "signing-secret-" * 3,
    "AIRFLOW__ECS_QUEUE__ENCRYPTION_KEYS": FERNET,
}
ENVIRONMENT = {"environment": [{"name": "PASSWORD", "value": SECRET}]}
#: Succeeds only where the container gets what was submitted.
COMMAND = ["sh", "-c", 'test "$PASSWORD" = "$1"', "sh", SECRET]


class SecureHarness:
    """A server with TLS and users, a local ECS, and the processes of each user."""

    def __init__(self, server: SecureRedis, ecs: LocalEcs, folder: Path) -> None:
        self.redis = server
        self.folder = folder
        self._ecs = ecs
        self.admin = server.admin()
        self.cli_output: list[str] = []

    def environ(self, user: str, **settings: str) -> dict[str, str]:
        """Return the environment of a process of this user. The reader has no keys."""
        keys = {} if user == "reader" else KEYS
        own = {f"AIRFLOW__ECS_QUEUE__{name.upper()}": value for name, value in settings.items()}
        return merged_environ(
            QUICK_SETTINGS, local_environment(self._ecs.endpoint_url, self.redis.url_for(user)), keys, own
        )

    def run_cli(self, user: str, *arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [*CLI_COMMAND, *arguments], env=self.environ(user, **settings), capture_output=True, text=True, timeout=60
        )
        self.cli_output.append(done.stdout + done.stderr)
        return done

    def submit(self, record_id: str, command: list[str], wait: bool = False, **settings: str) -> TaskResult | None:
        """Submit as the submitter, with the secret in the request's environment."""
        with EcsQueue.from_config(environ=self.environ("submitter", **settings)) as queue:
            handle = queue.submit(command, id=record_id, executor_config=ENVIRONMENT)
            return handle.result(60) if wait else None

    def stop(self, record_id: str) -> None:
        """As a submitter."""
        with EcsQueue.from_config(environ=self.environ("submitter")) as queue:
            queue.stop(record_id)

    def state(self, record_id: str) -> str:
        return str((self.admin.hget(f"{{ecs-queue}}:l:r:{record_id}", "state") or b"").decode())

    def dump_keys(self) -> bytes:
        """Return all keys of the server with their contents."""
        return b"\n".join(key + b" " + self._content(key) for key in self.admin.scan_iter(count=1000))

    def _content(self, key: bytes) -> bytes:
        kind = self.admin.type(key).decode()
        read = {
            "string": lambda: self.admin.get(key),
            "hash": lambda: self.admin.hgetall(key),
            "list": lambda: self.admin.lrange(key, 0, -1),
            "set": lambda: self.admin.smembers(key),
            "zset": lambda: self.admin.zrange(key, 0, -1),
            "stream": lambda: [zlib.decompress(fields[b"z"]) for _, fields in self.admin.xrange(key)],
            "none": lambda: b"",
        }
        return repr(read[kind]()).encode()  # type: ignore[no-untyped-call]

    def denied_commands(self) -> list[tuple[str, str]]:
        """(user, what) of every refused command since the last call."""
        found = [(entry["username"], entry["object"]) for entry in self.admin.acl_log()]
        self.admin.acl_log_reset()
        return found


class CommandMonitor:
    """Records all commands of all clients, on its own thread."""

    def __init__(self, server: SecureRedis) -> None:
        self.commands: list[bytes] = []
        self._connection = server.admin().connection_pool.get_connection()
        self._connection.send_command("MONITOR")
        self._connection.read_response()
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def _listen(self) -> None:
        while True:
            try:
                self.commands.append(self._connection.read_response(timeout=None, disconnect_on_error=False))
            except Exception:  # noqa: BLE001 - closed
                return

    def stop(self, server: SecureRedis) -> bytes:
        """Stop. Return all commands up to now: those before a marker."""
        marker = uuid.uuid4().hex
        server.admin().echo(marker)
        wait_until(lambda: any(marker.encode() in line for line in self.commands[-1000:]), "the marker is recorded", 20)
        self._connection.disconnect()
        return b"\n".join(self.commands)


def contains_secret(text: bytes, secret: str = SECRET) -> bool:
    """Whether `text` contains the secret, also in base64 as in kombu's bodies."""
    parts = [text, *(_decoded(found) for found in re.findall(rb"[A-Za-z0-9+/_-]{16,}", text))]
    return any(secret.encode() in part for part in parts)


def _decoded(text: bytes) -> bytes:
    text = text.translate(bytes.maketrans(b"-_", b"+/"))
    return base64.b64decode(text[: len(text) // 4 * 4])


@pytest.fixture
def harness(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecureHarness]:
    """A server of its own: what one test writes there in clear is what another looks for."""
    folder = tmp_path_factory.mktemp("secure")
    with run_secure_redis(folder) as server, LocalEcs(LocalEcsOptions(log_dir=folder / "logs")) as ecs:
        yield SecureHarness(server, ecs, folder)


@pytest.fixture
def running(harness: SecureHarness) -> Iterator[Path]:
    """Run a worker as the user `worker`. Yields its log."""
    log = harness.folder / "worker.log"
    with run_worker(harness.environ("worker"), log, "--log-level", "debug"):
        wait_until(lambda: bool(harness.admin.hlen("{ecs-queue}:l:workers")), "the worker is there", 60)
        yield log


def test_a_sealed_payload_is_nowhere_in_clear_from_its_submission_to_its_end(
    harness: SecureHarness, tmp_path: Path
) -> None:
    listener = CommandMonitor(harness.redis)
    harness.submit("waiting", COMMAND)
    assert harness.state("waiting") == "QUEUED"
    assert b"requests.default" in harness.dump_keys(), "its message waits, too"
    assert not contains_secret(harness.dump_keys())
    harness.denied_commands()
    log = tmp_path / "worker.log"
    with run_worker(harness.environ("worker"), log, "--log-level", "debug"):
        wait_until(lambda: harness.state("waiting") == "SUCCESS", "the container was given the secret", 60)
        harness.submit("long", ["sh", "-c", "sleep 60", "sh", SECRET])
        wait_until(lambda: harness.state("long") == "LAUNCHED", "a task runs", 60)
        assert harness.admin.hexists("{ecs-queue}:l:payload:long", "args")
        assert not contains_secret(harness.dump_keys())
        harness.stop("long")
        config = ["--executor-config", json.dumps(ENVIRONMENT), "--log-level", "debug"]
        harness.run_cli("submitter", "submit", "--id", "failing", "--wait", *config, "--", "/no/such/program", SECRET)
        assert "REMOVED" in harness.cli_output[-1]
        harness.run_cli("submitter", "config")
        assert "signing_keys" in harness.cli_output[-1]
        wait_until(lambda: harness.state("long") == "REVOKED", "it was stopped", 60)
    heard = listener.stop(harness.redis)

    assert b"unacked" in heard
    assert b'"HSET" "{ecs-queue}:l:payload:waiting"' in heard
    assert not contains_secret(heard)
    assert not contains_secret(log.read_bytes())
    assert "waiting launched as" in log.read_text()
    assert not contains_secret("".join(harness.cli_output).encode())
    for secret in (*KEYS.values(), *PASSWORDS.values()):
        assert secret not in log.read_text() + "".join(harness.cli_output)
    assert harness.denied_commands() == [], "the users may do what they have to"


def test_without_the_key_the_same_search_finds_the_secret(harness: SecureHarness) -> None:
    """Proves that the test above can fail."""
    listener = CommandMonitor(harness.redis)
    harness.submit("clear", COMMAND, encryption_keys="")
    body = base64.b64encode(harness.admin.hget("{ecs-queue}:l:payload:clear", "request"))

    assert contains_secret(harness.dump_keys())
    assert contains_secret(b"x " + body + b" y")
    assert contains_secret(listener.stop(harness.redis))
    harness.stop("clear")


def test_what_is_forged_becomes_a_dead_letter_and_what_is_signed_runs(harness: SecureHarness, running: Path) -> None:
    """An attacker publishes with a submitter's rights, without keys or with messages stolen elsewhere."""
    config = load_config(environ=KEYS, overrides={"broker_url": harness.redis.url_for("operator")})
    ours = open_keyring(config)
    elsewhere = open_keyring(load_config(environ=KEYS, overrides={"namespace": "elsewhere"}))
    guessed = open_keyring(load_config(environ={}, overrides={"signing_keys": "k1:" + "guess" * 8}))

    def message(record_id: str, queue: str = "default") -> TaskRequest:
        return new_request(
            id=record_id, command=["true"], now=time.time(), accept_seconds=600.0, queue=queue, owner="forger"
        )

    signed = envelope.encode(message("signed-1"), ours)
    forged = {
        "it is not signed": envelope.encode(message("forged-1")),
        "or request, or the keys differ": envelope.encode(message("forged-2"), guessed),
        "was made for another namespace": envelope.encode(message("forged-3"), elsewhere),
        "the message was changed": signed.replace(b'"id":"signed-1"', b'"id":"forged-4"'),
        "it names the queue admin": envelope.encode(message("forged-5", "admin"), ours),
    }
    with redis.Redis.from_url(harness.redis.url_for("submitter")) as publisher:
        for body in (*forged.values(), signed):
            publisher.lpush("{ecs-queue}:q:requests.default", json.dumps(_as_kombu_writes(body)))
        wait_until(lambda: harness.state("signed-1") == "SUCCESS", "the last of them has run", 60)

    ledger = open_ledger(config)
    reasons = {each.body: each.reason for each in ledger.list_dead_letters(100)}
    ledger.close()
    for expected, body in forged.items():
        assert expected in reasons[body]
    assert [harness.state(f"forged-{number}") for number in range(1, 6)] == [""] * 5
    assert signed not in reasons
    assert "dead letter from default" in running.read_text()


def test_a_reader_sees_how_things_stand_and_no_more(harness: SecureHarness, running: Path) -> None:
    harness.denied_commands()
    result = harness.submit("seen", COMMAND, wait=True)
    assert result is not None
    assert result.succeeded
    wait_until(lambda: b'"request.ended","id":"seen"' in harness.dump_keys(), "its end is in the journal", 30)
    looks = [("reader", "status", "default"), ("reader", "status seen", "SUCCESS"), ("reader", "tasks", "seen")]
    for user, command, word in (*looks, ("operator", "journal show seen", "request.ended")):
        shown = harness.run_cli(user, *command.split())
        assert (shown.returncode, word in shown.stdout) == (0, True), shown.stderr
    assert harness.denied_commands() == []

    assert harness.run_cli("reader", "stop", "--ahead", "unseen").returncode != 0
    assert {user for user, _ in harness.denied_commands()} == {"ecs-queue-reader"}


@pytest.mark.parametrize("key", ["broker_url", "ledger_url"])
@pytest.mark.parametrize(("ca", "certificate"), [(False, True), (True, False)], ids=["no CA", "no certificate"])
def test_no_word_is_said_to_a_server_or_by_a_client_that_cannot_prove_itself(
    harness: SecureHarness, key: str, ca: bool, certificate: bool
) -> None:
    good, password = harness.redis.url_for("submitter"), PASSWORDS["SUBMITTER_PASSWORD"]
    bad = harness.redis.url("ecs-queue-submitter", password, ca=ca, certificate=certificate)
    config = load_config(environ={}, overrides={"broker_url": good, "ledger_url": good, key: bad})
    broker, ledger = open_broker(config), open_ledger(config)
    calls: dict[str, Callable[[], object]] = {"broker_url": broker.check, "ledger_url": ledger.now}

    with pytest.raises((BrokerUnavailable, LedgerUnavailable)) as caught:
        calls.pop(key)()
    for works in calls.values():
        works()
    assert ("CERTIFICATE_VERIFY_FAILED" in str(caught.value)) is not ca
    assert password not in str(caught.value)
    broker.close()
    ledger.close()


def test_every_command_of_the_scripts_is_some_users_right() -> None:
    lua = Path(USERS.parents[1] / "ecs_queue").rglob("*.lua")
    used = {name.lower() for part in lua for name in re.findall(r"redis\.p?call\('(\w+)'", part.read_text())}

    assert used - {word.strip("+)") for word in USERS.read_text().split() if word.startswith("+")} == set()


def test_every_user_of_the_file_has_a_password_to_be_set_and_no_more_than_named_commands() -> None:
    lines = USERS.read_text().splitlines()
    assert lines[0] == "user default off ~* &* +@all"
    words = [re.findall(r">(\w+)", line) for line in lines[1:]]
    assert words == [[name] for name in PASSWORDS]
    for line in lines[1:]:
        # Clients set up their connection with commands that Redis 7.0 does not know by name: the one category.
        start, named = line.split(" -@all +@connection -@admin -@dangerous -client|tracking ")
        assert not re.search(r"[+]@|~\*|allkeys|nopass|&", start + named)


def _as_kombu_writes(body: bytes) -> Mapping[str, Any]:
    """docs/messages.md."""
    return {
        "body": base64.b64encode(body).decode(),
        "content-type": "application/json",
        "content-encoding": "utf-8",
        "headers": {},
        "properties": {
            "delivery_tag": str(uuid.uuid4()),
            "body_encoding": "base64",
            "delivery_mode": 2,
            "priority": 0,
            "delivery_info": {"exchange": "", "routing_key": "requests.default"},
        },
    }
