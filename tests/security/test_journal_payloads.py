"""What the journal keeps of a request, and what each command shows of it: nothing but what docs/journal.md says."""

from __future__ import annotations

import json
import zlib
from contextlib import closing

import msgspec
import pytest
import redis
from click.testing import CliRunner, Result
from cryptography.fernet import Fernet

from ecs_queue.cli.main import cli
from ecs_queue.client.client import EcsQueue
from ecs_queue.config import load_config
from ecs_queue.config.keyring import open_keyring
from ecs_queue.journal import open_event_encoder, open_journal
from ecs_queue.local.ecs import local_environment
from ecs_queue.messages import envelope
from ecs_queue.messages.request import new_request
from ecs_queue.runtask.launch_spec import LaunchSpec, args_scope

PREFIX = "AIRFLOW__ECS_QUEUE__"
ARGUMENT, VALUE, PASSWORD = "canary-argument", "canary-value", "canary-password"
VARIABLES = [{"name": "GREETING", "value": VALUE}, {"name": "DB_PASSWORD", "value": PASSWORD}]
ENCRYPTED = {"ENCRYPTION_KEYS": Fernet.generate_key().decode(), "SIGNING_KEYS": f"k1:{'s' * 32}"}
#: Configuration -> the canaries that the journal has and commands show. docs/journal.md has the same table.
KEPT: dict[str, tuple[dict[str, str], set[str]]] = {
    "by default": ({}, {ARGUMENT}),
    "secrets": ({"JOURNAL_REDACTION": "secrets"}, {ARGUMENT, VALUE}),
    "arguments": ({"JOURNAL_REDACTION": "arguments"}, set()),
    "encrypted": (ENCRYPTED, set()),
    "encrypted, whatever else is set": ({**ENCRYPTED, "JOURNAL_REDACTION": "secrets"}, set()),
}


class Installation:
    """A server without workers, and the journal of a request that was launched and has ended."""

    def __init__(self, redis_url: str, settings: dict[str, str]) -> None:
        self.environ = local_environment("http://127.0.0.1:1", redis_url)
        self.environ |= {PREFIX + name: value for name, value in settings.items()}
        self._redis_url = redis_url
        with EcsQueue.from_config(environ=self.environ, owner="") as queue:
            queue.submit(["run", ARGUMENT], id="job", executor_config={"environment": VARIABLES})
            (record,) = queue.ledger.get(["job"])
            assert record is not None
            nonce = record.nonce
        self.write_launch(nonce)

    def write_launch(self, nonce: str) -> None:
        """Write a launch as a worker does."""
        config = load_config(environ=self.environ)
        override = {"name": "main", "command": ["run", ARGUMENT], "environment": VARIABLES}
        spec = LaunchSpec("main", 1, {"overrides": {"containerOverrides": [override]}})
        target = '{"cluster":"prod","region":"us-east-1"}'
        args = spec.encode(open_keyring(config), args_scope("job", nonce, 1, target))
        encoder = open_event_encoder(config)
        fields = {"id": "job", "launch": 1, "attempt": 1, "launch_spec": args, "target": target}
        event = encoder.encode(2e9, "launch.called", fields)
        with closing(open_journal(config)) as journal:
            journal.append(encoder.build_batch("f" * 16, 1, "w1", [event], ["job"]))

    def run(self, *arguments: str, without: str = "") -> Result:
        environ = {name: value for name, value in self.environ.items() if name != PREFIX + without}
        return CliRunner().invoke(cli, arguments, env=environ)

    def stored_text(self) -> str:
        """Everything in the journal's stream, inflated."""
        with redis.Redis.from_url(self._redis_url) as server:
            elements: list[tuple[bytes, dict[bytes, bytes]]] = server.xrange("{ecs-queue}:j:s")
        return "".join(zlib.decompress(fields[b"z"]).decode() for _, fields in elements)


def canaries_in(text: str) -> set[str]:
    return {canary for canary in (ARGUMENT, VALUE, PASSWORD) if canary in text}


@pytest.mark.parametrize("kind", KEPT)
def test_the_journal_and_every_command_have_only_what_the_docs_say(redis_url: str, kind: str) -> None:
    settings, kept = KEPT[kind]
    installation = Installation(redis_url, settings)

    assert canaries_in(installation.stored_text()) == kept
    for command in (
        ("journal", "show", "job", "--json"),
        ("journal", "show", "job", "--envelope"),
        ("journal", "tail", "--json"),
        ("journal", "export"),
        ("replay", "job", "--explain", "--json"),
        ("replay", "job", "--explain"),
    ):
        done = installation.run(*command)
        assert done.exit_code in (0, 1), done.stderr
        assert canaries_in(done.stdout) <= kept, command
        assert canaries_in(done.stderr) == set(), command
        assert "GREETING" in done.stdout or kind.startswith("encrypted") or command[-1] == "--explain"
    for command in (("journal", "show", "job"), ("journal", "tail"), ("status", "job"), ("status", "job", "--json")):
        done = installation.run(*command)
        assert canaries_in(done.stdout + done.stderr) == set(), command


def test_encrypted_payloads_are_shown_only_on_demand_by_a_process_with_the_key(redis_url: str) -> None:
    installation = Installation(redis_url, ENCRYPTED)

    shown = installation.run("journal", "show", "job", "--json", "--reveal")
    events = [json.loads(line) for line in shown.stdout.splitlines()]
    assert [canaries_in(json.dumps(event)) for event in events] == [{ARGUMENT, VALUE, PASSWORD}] * 2
    envelope_alone = installation.run("journal", "show", "job", "--envelope", "--reveal").stdout
    assert canaries_in(envelope_alone) == {ARGUMENT, VALUE, PASSWORD}
    explained = json.loads(installation.run("replay", "job", "--explain", "--json", "--reveal").stdout)
    for side in ("previous", "current"):
        assert canaries_in(json.dumps(explained[side])) == {ARGUMENT, VALUE, PASSWORD}, side

    keyless = installation.run("journal", "show", "job", "--json", "--reveal", without="ENCRYPTION_KEYS")
    assert canaries_in(keyless.stdout) == set()
    assert "2 events stay encrypted: none of the encryption_keys here opens them" in keyless.stderr


def test_reveal_without_anything_to_show_is_refused(redis_url: str) -> None:
    done = Installation(redis_url, {}).run("journal", "show", "job", "--reveal")

    assert done.exit_code == 2
    assert "--reveal has no effect without --json or --envelope" in done.stderr


def test_an_ended_request_is_repeated_whole_from_its_encrypted_journal(redis_url: str) -> None:
    installation = Installation(redis_url, ENCRYPTED)
    installation.run("stop", "job")

    done = installation.run("replay", "job", "--submit", "--id", "again")
    refused = installation.run("replay", "job", "--submit", without="ENCRYPTION_KEYS")

    assert (done.exit_code, done.stdout) == (0, "again\n")
    with EcsQueue.from_config(environ=installation.environ, owner="") as queue:
        (record,) = queue.ledger.get_with_payload(["again"])
        assert record is not None
        request = envelope.decode_request(record.request, queue.keyring)
    assert (request.command, request.executor_config) == (["run", ARGUMENT], {"environment": VARIABLES})
    assert refused.exit_code == 2
    assert "it is encrypted, and no encryption_keys are set here" in refused.stderr


@pytest.mark.parametrize("mode", ["--submit", "--local"])
def test_a_request_whose_command_was_not_kept_is_refused_with_the_setting(redis_url: str, mode: str) -> None:
    installation = Installation(redis_url, {"JOURNAL_REDACTION": "arguments"})
    installation.run("stop", "job")

    done = installation.run("replay", "job", mode)

    assert (done.exit_code, done.stdout) == (2, ""), done.stderr
    assert "the journal does not keep what stood in command[0], command[1]" in done.stderr
    assert "set encryption_keys (it keeps everything, encrypted), or another journal_redaction" in done.stderr


def test_a_worker_with_the_key_encrypts_what_a_client_without_it_sent(redis_url: str) -> None:
    environ = {**local_environment("http://127.0.0.1:1", redis_url)}
    environ |= {PREFIX + name: value for name, value in ENCRYPTED.items()}
    config = load_config(environ=environ)
    request = new_request(
        id="job", command=[ARGUMENT], now=1.7e9, accept_seconds=60.0, executor_config={"environment": VARIABLES}
    )
    names = {"id": "job", "queue": "default", "owner": "", "nonce": "n", "namespace": "ecs-queue"}

    encoder = open_event_encoder(config)
    for body in (envelope.encode(request), envelope.encode(request).replace(b'"v":1', b'"v":1,"odd":{"sealed":1}')):
        event = encoder.encode(1.7e9, "request.submitted", {**names, "envelope": body})
        assert canaries_in(event.decode()) == set()
    override = {"name": "main", "command": [ARGUMENT], "environment": VARIABLES}
    args = LaunchSpec("main", 1, {"overrides": {"containerOverrides": [override]}}).encode()
    launched = encoder.encode(
        1.7e9, "launch.called", {"id": "job", "launch": 1, "attempt": 1, "launch_spec": args, "target": "{}"}
    )
    assert canaries_in(launched.decode()) == set(), "frozen by a worker without the key"
    kept = msgspec.json.encode(
        msgspec.json.decode(encoder.encode(1.0, "request.submitted", {**names, "envelope": envelope.encode(request)}))[
            "data"
        ]["envelope"]
    )
    assert envelope.decode_request(kept, open_keyring(config).without_signatures()) == request
