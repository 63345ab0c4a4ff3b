"""`dead`: what is shown of letters, what becomes requests again, what is dropped, and what nothing happens to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from ecs_queue.client import EcsQueue
from ecs_queue.core import envelope
from ecs_queue.core.envelope import TaskRequest
from ecs_queue.ledger.base import DeadLetter
from tests.cli.conftest import Installation, Invoke, json_lines
from tests.system.processes import wait_for

_SECRET = "hunter2"


@pytest.fixture
def client(nobody: dict[str, str]) -> Iterator[EcsQueue]:
    with EcsQueue.from_config(environ=nobody, owner="") as queue:
        yield queue


def bury(client: EcsQueue, key: str, body: bytes, queue: str = "default", reason: str = "because") -> None:
    client.ledger.bury(DeadLetter(key=key, queue=queue, reason=reason, body=body))


def body(record_id: str, **fields: Any) -> bytes:
    config = {"environment": [{"name": "TOKEN", "value": _SECRET}]}
    known: dict[str, Any] = {
        "command": ["login", _SECRET],
        "now": 1_700_000_000.0,
        "accept_seconds": 60.0,
        "executor_config": config,
    }
    return envelope.encode(envelope.new_request(id=record_id, **(known | fields)))


def request_of(client: EcsQueue, record_id: str) -> TaskRequest:
    record = client.ledger.get([record_id])[0]
    assert record is not None
    return envelope.decode_request(record.request)


def keys(client: EcsQueue) -> set[str]:
    return {letter.key for letter in client.ledger.dead(1000)}


def test_letters_are_counted_by_queue_and_kind_of_reason_then_listed(
    invoke: Invoke, nobody: Mapping[str, str], client: EcsQueue
) -> None:
    for n in range(3):
        bury(client, f"k{n}", body(f"job-{n}"), reason=f"another request has the id job-{n}")
    bury(client, "bad", b"\xff\x00", "etl", "not JSON: byte 17")
    counts = json_lines(invoke("dead", "list", "--counts", "--json", env=nobody).stdout)
    assert [(pile["letters"], pile["queue"], pile["reason"]) for pile in counts] == [
        (3, "default", "another request has the id ID"),
        (1, "etl", "not JSON: byte N"),
    ]
    lines = {line["key"]: line for line in json_lines(invoke("dead", "list", "--json", env=nobody).stdout)}
    facts = {key: (line["queue"], line["id"], line["bytes"]) for key, line in lines.items()}
    assert len(facts) == 4
    assert facts["bad"] == ("etl", None, 2)
    assert facts["k2"] == ("default", "job-2", len(body("job-2")))
    assert len(json_lines(invoke("dead", "list", "--json", "--limit", "2", env=nobody).stdout)) == 2
    shown = invoke("dead", "list", "--limit", "2", env=nobody)
    assert shown.stdout.splitlines()[1].split()[:2] == ["3", "default"]
    assert {line.split()[0] for line in shown.stdout.splitlines()[-2:]} < set(lines)
    assert "the newest 2 of 4" in shown.stderr


def test_no_letters_is_nothing_on_stdout(invoke: Invoke, nobody: Mapping[str, str]) -> None:
    done = invoke("dead", "list", env=nobody)
    assert (done.exit_code, done.stdout, done.stderr) == (0, "", "no such dead letters\n")


def test_filters_leave_letters_out(invoke: Invoke, nobody: Mapping[str, str], client: EcsQueue) -> None:
    bury(client, "a", b"x", "default", "not JSON")
    bury(client, "b", b"x", "etl", "not JSON")
    bury(client, "c", b"x", "etl", "too late")

    def found(*arguments: str) -> set[str]:
        return {line["key"] for line in json_lines(invoke("dead", "list", "--json", *arguments, env=nobody).stdout)}

    assert found("--reason", "NOT json") == {"a", "b"}
    assert found("--queue", "etl", "--reason", "late") == {"c"}
    assert found("--newer-than", "1h") == {"a", "b", "c"}
    assert found("--older-than", "1h") == set()


def test_a_letter_is_shown_without_its_payload_unless_that_is_asked_for(
    invoke: Invoke, nobody: Mapping[str, str], client: EcsQueue
) -> None:
    bury(client, "k", body("job", queue="etl", owner="me"), reason="it names the queue etl")
    for flags in ([], ["--json"]):
        done = invoke("dead", "show", "k", *flags, env=nobody)
        assert done.exit_code == 0
        assert "it names the queue etl" in done.stdout
        assert _SECRET not in done.stdout + done.stderr
    (facts,) = json_lines(invoke("dead", "show", "k", "--json", env=nobody).stdout)
    assert (facts["id"], facts["usable"], facts["names_queue"], facts["owner"]) == ("job", True, "etl", "me")
    assert invoke("dead", "show", "k", "--body", env=nobody).stdout_bytes == body("job", queue="etl", owner="me")


def test_bytes_that_are_no_text_are_written_as_they_came(
    invoke: Invoke, nobody: Mapping[str, str], client: EcsQueue
) -> None:
    bury(client, "k", bytes(range(256)))
    assert invoke("dead", "show", "k", "--body", env=nobody).stdout_bytes == bytes(range(256))
    (facts,) = json_lines(invoke("dead", "show", "k", "--json", env=nobody).stdout)
    assert (facts["usable"], facts["id"]) == (False, None)


def test_an_unknown_key_is_named_and_nothing_is_done(
    invoke: Invoke, nobody: Mapping[str, str], client: EcsQueue
) -> None:
    bury(client, "k", body("job"))
    assert invoke("dead", "show", "nope", env=nobody).exit_code == 1
    for command in ("requeue", "purge"):
        done = invoke("dead", command, "k", "nope", "--yes", env=nobody)
        assert done.exit_code == 2
        assert "no dead letter nope is known" in done.stderr
    assert keys(client) == {"k"}


@pytest.mark.parametrize("command", ["requeue", "purge"])
def test_what_changes_many_must_be_told_which_and_told_twice(
    invoke: Invoke, nobody: Mapping[str, str], client: EcsQueue, command: str
) -> None:
    bury(client, "k", body("job"))
    bare = invoke("dead", command, "--yes", env=nobody)
    assert bare.exit_code == 2
    assert "expected keys, filters or --all, found none" in bare.stderr
    assert invoke("dead", command, "--all", "--queue", "default", "--yes", env=nobody).exit_code == 2
    dry = invoke("dead", command, "--all", env=nobody)
    assert dry.exit_code == 0
    assert dry.stdout.splitlines()[1].split()[:2] == ["1", "default"]  # the counts come first
    assert "dry run: nothing was done" in dry.stderr
    assert keys(client) == {"k"}
    assert client.ledger.page("", 10)[0] == []


def test_a_requeued_letter_is_a_new_request_that_names_its_origin(
    invoke: Invoke, nobody: Mapping[str, str], client: EcsQueue
) -> None:
    words: dict[str, Any] = {"priority": 7, "expires_in": 600.0, "time_limit": 5.0, "relaunch": "interrupted"}
    bury(client, "k", body("job", owner="somebody", **words), reason="it arrived after its accept_until")
    (line,) = json_lines(invoke("dead", "requeue", "k", "--yes", "--json", env=nobody).stdout)
    assert (line["key"], line["result"], line["origin"], line["queue"]) == ("k", "requeued", "job", "default")
    assert line["id"].startswith("job-r-")
    request = request_of(client, line["id"])
    assert (request.origin, request.owner, request.command) == ("job", "", ["login", _SECRET])
    assert {name: getattr(request, name) for name in words} == words
    assert request.executor_config == {"environment": [{"name": "TOKEN", "value": _SECRET}]}
    assert request.accept_until > client.ledger.now()
    assert keys(client) == set()
    assert client.backlog("default") == 1


def test_a_letter_requeued_again_after_a_crash_is_one_request(
    invoke: Invoke, nobody: Mapping[str, str], client: EcsQueue
) -> None:
    bury(client, "k", body("job"))
    first = json_lines(invoke("dead", "requeue", "k", "--yes", "--json", env=nobody).stdout)
    bury(client, "k", body("job"))  # the process died before it could drop the letter
    assert json_lines(invoke("dead", "requeue", "k", "--yes", "--json", env=nobody).stdout) == first
    assert len(client.ledger.page("", 10)[0]) == 1
    assert keys(client) == set()


def test_letters_that_cannot_be_requests_stay_and_the_others_go(
    invoke: Invoke, nobody: Mapping[str, str], client: EcsQueue
) -> None:
    bury(client, "good", body("good"))
    bury(client, "garbage", b"\xff")
    bury(client, "foreign", body("foreign", queue="etl"))
    bury(client, "wrong", body("wrong", executor_config={"no_such_key": 1}))
    bury(client, "taken", body("taken"))
    taken = json_lines(invoke("dead", "requeue", "taken", "--json", env=nobody).stdout)[0]["id"]
    client.submit(["another"], id=taken)
    done = invoke("dead", "requeue", "--all", "--yes", "--json", env=nobody)
    assert done.exit_code == 1
    problems = {line["key"]: line["problem"] for line in json_lines(done.stdout)}
    assert problems["good"] is None
    assert "not JSON" in problems["garbage"]
    assert "it names the queue etl and came from default: say where to with --to" in problems["foreign"]
    assert "no_such_key" in problems["wrong"]
    assert "another request was submitted under the id" in problems["taken"]
    assert keys(client) == {"garbage", "foreign", "wrong", "taken"}
    (line,) = json_lines(invoke("dead", "requeue", "foreign", "--to", "etl", "--yes", "--json", env=nobody).stdout)
    assert request_of(client, line["id"]).queue == "etl"


def test_what_is_purged_is_gone_and_the_rest_stays(invoke: Invoke, nobody: Mapping[str, str], client: EcsQueue) -> None:
    bury(client, "a", b"x", "default", "not JSON")
    bury(client, "b", b"x", "etl", "not JSON")
    done = invoke("dead", "purge", "--queue", "etl", "--yes", env=nobody)
    assert done.exit_code == 0
    assert "1 of 1 were dropped" in done.stderr
    assert keys(client) == {"a"}
    (pile,) = json_lines(invoke("dead", "purge", "a", "--yes", "--json", env=nobody).stdout)
    assert (pile["queue"], pile["letters"]) == ("default", 1)
    assert keys(client) == set()


def test_what_a_worker_buries_runs_when_it_is_requeued(installation: Installation) -> None:
    with installation.client() as client:
        draft = client.prepare({"id": "twice", "command": ["sh", "-c", "exit 5"]})
        client.send([draft])
        other = envelope.encode(envelope.new_request(id="twice", command=["true"], now=1.7e9, accept_seconds=1e9))
        client._broker.publish_requests([_outgoing(other)])
        wait_for(lambda: any(b"true" in letter.body for letter in client.ledger.dead(10)), 20, "the letter is buried")
        letter = next(letter for letter in client.ledger.dead(10) if b"true" in letter.body)
        done = installation.run("dead", "requeue", letter.key, "--yes", "--json")
        (line,) = json_lines(done.stdout)
        result = client.handle(line["id"]).result(timeout=30)
        assert (result.state, result.exit_code) == ("SUCCESS", 0)


def _outgoing(message: bytes) -> Any:
    from ecs_queue.broker.base import Outgoing

    return Outgoing("default", message, 0)


def test_a_forged_letter_is_not_signed_anew(invoke: Invoke, nobody: Mapping[str, str], client: EcsQueue) -> None:
    """Whoever can write to a queue would else have the operator sign what he wrote."""
    bury(client, "forged", body("job"), reason="it is not signed")
    keys_set = {**nobody, "AIRFLOW__ECS_QUEUE__SIGNING_KEYS": "k1:" + "a" * 32}
    done = invoke("dead", "requeue", "forged", "--yes", env=keys_set)
    assert "it is not signed" in done.stdout + done.stderr
    assert keys(client) == {"forged"}
    assert client.ledger.counts() == {}
