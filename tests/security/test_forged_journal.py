"""An insider who can write to the journal has no effect where signing_keys are set: each command that acts on it."""

from __future__ import annotations

import json
import secrets
import sys
from contextlib import closing
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner, Result

from ecs_queue.cli.main import cli
from ecs_queue.client.client import EcsQueue
from ecs_queue.config import load_config
from ecs_queue.journal import open_event_encoder, open_journal
from ecs_queue.local.ecs import local_environment
from ecs_queue.messages import envelope
from ecs_queue.messages.request import new_request

KEY = "AIRFLOW__ECS_QUEUE__SIGNING_KEYS"
REFUSED = (
    "{}: what the journal has of it is not signed with a key of signing_keys, so any process that can write to the "
    "server may have written it; nothing was done. If you know that it is genuine (written before there were keys, or "
    "with a key that was removed), give --trust-unsigned"
)


class Installation:
    """A server without workers, an operator with the signing key, and an insider without it."""

    def __init__(self, redis_url: str, folder: Path) -> None:
        self.insider = local_environment("http://127.0.0.1:1", redis_url)
        self.operator = {**self.insider, KEY: f"k1:{'s' * 32}"}
        self.canary = folder / "canary"
        self.file = folder / "journal.jsonl"
        self.command = [sys.executable, "-c", f"open({str(self.canary)!r}, 'w')"]

    def run(self, *arguments: str) -> Result:
        """Run a command as the operator."""
        return CliRunner().invoke(cli, arguments, env=self.operator)

    def write_event(self, environ: dict[str, str], record_id: str, command: list[str], number: int = 1) -> None:
        """Write the first event of a request, as the process with this environment would."""
        config = load_config(environ=environ)
        encoder = open_event_encoder(config)
        request = new_request(id=record_id, command=command, now=1.7e9 + number, accept_seconds=60.0)
        fields = {"id": record_id, "queue": "default", "owner": "", "nonce": f"n{number}", "namespace": "ecs-queue"}
        event = encoder.encode(1.7e9 + number, "request.submitted", {**fields, "envelope": envelope.encode(request)})
        with closing(open_journal(config)) as journal:
            journal.append(encoder.build_batch(secrets.token_hex(8), 1, "", [event], [record_id]))

    def forge(self, record_id: str = "job") -> None:
        """Have the insider add a request to the journal."""
        self.write_event(self.insider, record_id, self.command)

    def export(self) -> None:
        assert self.run("journal", "export", "-o", str(self.file)).exit_code == 0

    def submitted_ids(self, namespace: str = "ecs-queue") -> list[str]:
        """The ids of all records."""
        with EcsQueue.from_config(environ=self.operator, overrides={"namespace": namespace}, owner="") as queue:
            return [record.id for record in queue.ledger.list_records("", 100)[0]]


@pytest.fixture
def installation(redis_url: str, tmp_path: Path) -> Installation:
    return Installation(redis_url, tmp_path)


@pytest.mark.parametrize("mode", ["--local", "--submit"])
def test_a_forged_request_is_neither_run_nor_signed(installation: Installation, mode: str) -> None:
    installation.forge()

    done = installation.run("replay", "job", mode)

    assert (done.exit_code, done.stdout) == (2, "")
    assert REFUSED.format("job") in done.stderr
    assert not installation.canary.exists()
    assert installation.submitted_ids() == []


def test_a_forged_request_is_not_retried(installation: Installation) -> None:
    installation.forge()
    with EcsQueue.from_config(environ=installation.operator, owner="") as queue:
        queue.stop("job")

    done = installation.run("retry", "job")

    assert (done.exit_code, done.stdout) == (1, "")
    assert "job is not retried: what the journal has of it is not signed with a key of signing_keys" in done.stderr
    assert installation.submitted_ids() == []


def test_a_forged_newer_request_does_not_replace_a_genuine_one(installation: Installation) -> None:
    installation.write_event(installation.operator, "job", ["true"])
    installation.write_event(installation.insider, "job", installation.command, number=2)

    done = installation.run("replay", "job", "--local")

    assert done.exit_code == 0
    assert not installation.canary.exists()


@pytest.mark.parametrize("mode", ["--local", "--submit"])
def test_the_operator_may_trust_it_explicitly(installation: Installation, mode: str) -> None:
    """An old journal, from before there were keys."""
    installation.forge()

    done = installation.run("replay", "job", mode, "--trust-unsigned")

    assert done.exit_code == 0
    assert "job is NOT VERIFIED" in done.stderr
    assert installation.canary.exists() == (mode == "--local")
    assert len(installation.submitted_ids()) == (mode == "--submit")


def test_without_signing_keys_a_replay_is_as_before(installation: Installation) -> None:
    installation.forge()
    installation.operator = installation.insider

    done = installation.run("replay", "job", "--local")

    assert (done.exit_code, installation.canary.exists()) == (0, True)
    assert "VERIFIED" not in done.stderr


def test_forged_traffic_is_not_submitted(installation: Installation) -> None:
    installation.forge()
    installation.export()

    done = installation.run("replay", str(installation.file), "--submit", "--namespace", "load-test")

    assert (done.exit_code, done.stdout) == (2, "")
    assert REFUSED.format(installation.file) in done.stderr
    assert installation.submitted_ids("load-test") == []


def test_forged_requests_are_left_out_of_genuine_traffic_and_copies_are_one(installation: Installation) -> None:
    installation.write_event(installation.operator, "genuine", ["true"])
    installation.forge("forged")
    installation.export()
    lines = installation.file.read_bytes().splitlines(keepends=True)
    installation.file.write_bytes(b"".join([*lines[:2], *lines[:2], lines[2], b'{"end":{"events":3}}\n']))
    arguments = ("replay", str(installation.file), "--submit", "--namespace", "load-test", "--json")

    done = installation.run(*arguments)
    facts = json.loads(done.stdout)

    assert done.exit_code == 1
    assert (facts["submitted"], facts["unverified"]) == (1, 1)
    assert "1 request left out: not signed with a key of signing_keys (--trust-unsigned)" in done.stderr
    assert [record_id.partition("-r-")[0] for record_id in installation.submitted_ids("load-test")] == ["genuine"]
    assert json.loads(installation.run(*arguments, "--trust-unsigned").stdout)["submitted"] == 2


def test_an_import_does_not_sign_what_is_not_verified(installation: Installation) -> None:
    """Otherwise the operator's key would make the insider's event genuine."""
    installation.forge()
    installation.export()

    imported = installation.run("journal", "import", str(installation.file), "--namespace", "incident")
    done = installation.run("replay", "job", "--local", "--namespace", "incident")

    assert "1 of them are NOT VERIFIED, and imported without a signature" in imported.stderr
    assert done.exit_code == 2
    assert REFUSED.format("job") in done.stderr
    assert not installation.canary.exists()


def test_the_arguments_of_a_forged_launch_do_not_reach_a_live_request(installation: Installation) -> None:
    """The record is genuine; only the journal has a launch, whose environment names another program to load."""
    installation.run("submit", "--id", "job", "--", "true")
    config = load_config(environ=installation.insider)
    encoder = open_event_encoder(config)
    override = {"environment": [{"name": "FORGED", "value": "1"}]}
    spec = {"container_name": None, "max_attempts": 1, "run_task": {"overrides": {"containerOverrides": [override]}}}
    fields = {"id": "job", "launch": 1, "attempt": 1, "launch_spec": msgspec.json.encode(spec), "target": b"{}"}
    event = encoder.encode(1.8e9, "launch.called", fields)
    with closing(open_journal(config)) as journal:
        journal.append(encoder.build_batch("f" * 16, 1, "w1", [event], ["job"]))

    done = installation.run("replay", "job", "--local")

    assert done.exit_code == 0
    assert "FORGED" not in done.stderr


def test_a_signed_request_in_the_record_of_another_id_is_refused(installation: Installation) -> None:
    """The insider copies a request that the operator signed into another record."""
    with EcsQueue.from_config(environ=installation.operator, owner="") as queue:
        dangerous = queue.prepare({"id": "dangerous", "command": installation.command})
        copied = msgspec.structs.replace(dangerous.submission, id="harmless")
        queue.ledger.put([copied])

    for mode in ("--local", "--submit"):
        done = installation.run("replay", "harmless", mode)
        assert done.exit_code == 2
        assert "was made for another id" in done.stderr
    assert not installation.canary.exists()
    assert installation.submitted_ids() == ["harmless"]


def test_readers_that_only_show_mark_what_is_not_verified(installation: Installation) -> None:
    installation.write_event(installation.operator, "genuine", ["true"])
    installation.forge("forged")

    for record_id, verified in (("genuine", True), ("forged", False)):
        (event,) = (
            json.loads(line) for line in installation.run("journal", "show", record_id, "--json").stdout.splitlines()
        )
        assert event["verified"] is verified
        assert ("NOT VERIFIED" in installation.run("journal", "show", record_id).stdout) is not verified
        explained = installation.run("replay", record_id, "--explain")
        assert ("NOT VERIFIED" in explained.stderr) is not verified
    tail = installation.run("journal", "tail").stdout.splitlines()
    assert ["NOT VERIFIED" in line for line in tail] == [False, True]


def test_a_forged_journal_of_a_request_is_reported_by_its_status(installation: Installation) -> None:
    installation.run("submit", "--id", "job", "--", "true")
    installation.forge()

    done = installation.run("status", "job")

    assert done.exit_code == 0
    assert "1 event of the journal not signed with a key of signing_keys" in done.stderr
