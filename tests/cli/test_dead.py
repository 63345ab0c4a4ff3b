"""`dead`: what is shown, what becomes requests again, what is dropped, and what nothing happens to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from ecs_queue.client.client import EcsQueue
from ecs_queue.ledger.base import DeadLetter
from ecs_queue.messages import envelope
from ecs_queue.messages.request import TaskRequest, new_request
from tests.cli.conftest import Deployment, Invoke, json_lines
from tests.wait import wait_until

_SECRET = "hunter2"


@pytest.fixture
def client(no_worker_environ: dict[str, str]) -> Iterator[EcsQueue]:
    with EcsQueue.from_config(environ=no_worker_environ, owner="") as queue:
        yield queue


def add_dead_letter(client: EcsQueue, key: str, body: bytes, queue: str = "default", reason: str = "because") -> None:
    client.ledger.add_dead_letter(DeadLetter(key=key, queue=queue, reason=reason, body=body))


def body(record_id: str, **fields: Any) -> bytes:
    config = {"environment": [{"name": "TOKEN", "value": _SECRET}]}
    known: dict[str, Any] = {
        "command": ["login", _SECRET],
        "now": 1_700_000_000.0,
        "accept_seconds": 60.0,
        "executor_config": config,
    }
    return envelope.encode(new_request(id=record_id, **(known | fields)))


def request_of(client: EcsQueue, record_id: str) -> TaskRequest:
    record = client.ledger.get_with_payload([record_id])[0]
    assert record is not None
    return envelope.decode_request(record.request)


def keys(client: EcsQueue) -> set[str]:
    return {found.key for found in client.ledger.list_dead_letters(1000)}


def test_dead_letters_are_counted_by_queue_and_kind_of_reason_then_listed(
    invoke: Invoke, no_worker_environ: Mapping[str, str], client: EcsQueue
) -> None:
    for n in range(3):
        add_dead_letter(client, f"k{n}", body(f"job-{n}"), reason=f"another request has the id job-{n}")
    add_dead_letter(client, "bad", b"\xff\x00", "etl", "not JSON: byte 17")
    counts = json_lines(invoke("dead", "list", "--counts", "--json", env=no_worker_environ).stdout)
    assert [(pile["count"], pile["queue"], pile["reason"]) for pile in counts] == [
        (3, "default", "another request has the id ID"),
        (1, "etl", "not JSON: byte N"),
    ]
    lines = {line["key"]: line for line in json_lines(invoke("dead", "list", "--json", env=no_worker_environ).stdout)}
    facts = {key: (line["queue"], line["id"], line["bytes"]) for key, line in lines.items()}
    assert len(facts) == 4
    assert facts["bad"] == ("etl", None, 2)
    assert facts["k2"] == ("default", "job-2", len(body("job-2")))
    assert len(json_lines(invoke("dead", "list", "--json", "--limit", "2", env=no_worker_environ).stdout)) == 2
    shown = invoke("dead", "list", "--limit", "2", env=no_worker_environ)
    assert shown.stdout.splitlines()[1].split()[:2] == ["3", "default"]
    assert {line.split()[0] for line in shown.stdout.splitlines()[-2:]} < set(lines)
    assert "the newest 2 of 4" in shown.stderr


def test_an_id_of_one_letter_does_not_change_the_words_of_a_reason(
    invoke: Invoke, no_worker_environ: Mapping[str, str], client: EcsQueue
) -> None:
    for name in ("a", "e", "an"):
        add_dead_letter(client, f"k-{name}", body(name), reason=f"another request has the id {name}")
    counts = json_lines(invoke("dead", "list", "--counts", "--json", env=no_worker_environ).stdout)
    assert [(pile["count"], pile["reason"]) for pile in counts] == [(3, "another request has the id ID")]


def test_no_dead_letters_is_nothing_on_stdout(invoke: Invoke, no_worker_environ: Mapping[str, str]) -> None:
    done = invoke("dead", "list", env=no_worker_environ)
    assert (done.exit_code, done.stdout, done.stderr) == (0, "", "no dead letters\n")
    assert invoke("dead", "list", "--queue", "etl", env=no_worker_environ).stderr == "no such dead letters\n"


def test_filters_leave_dead_letters_out(invoke: Invoke, no_worker_environ: Mapping[str, str], client: EcsQueue) -> None:
    add_dead_letter(client, "a", b"x", "default", "not JSON")
    add_dead_letter(client, "b", b"x", "etl", "not JSON")
    add_dead_letter(client, "c", b"x", "etl", "too late")

    def found(*arguments: str) -> set[str]:
        return {
            line["key"]
            for line in json_lines(invoke("dead", "list", "--json", *arguments, env=no_worker_environ).stdout)
        }

    assert found("--reason", "NOT json") == {"a", "b"}
    assert found("--queue", "etl", "--reason", "late") == {"c"}
    assert found("--newer-than", "1h") == {"a", "b", "c"}
    assert found("--older-than", "1h") == set()


def test_a_dead_letter_is_shown_without_its_payload_unless_requested(
    invoke: Invoke, no_worker_environ: Mapping[str, str], client: EcsQueue
) -> None:
    add_dead_letter(client, "k", body("job", queue="etl", owner="me"), reason="it names the queue etl")
    for flags in ([], ["--json"]):
        done = invoke("dead", "show", "k", *flags, env=no_worker_environ)
        assert done.exit_code == 0
        assert "it names the queue etl" in done.stdout
        assert _SECRET not in done.stdout + done.stderr
    (facts,) = json_lines(invoke("dead", "show", "k", "--json", env=no_worker_environ).stdout)
    assert "requeue --to NAME`" in invoke("dead", "show", "k", env=no_worker_environ).stdout
    assert (facts["id"], facts["usable"], facts["names_queue"], facts["owner"]) == ("job", True, "etl", "me")
    assert invoke("dead", "show", "k", "--body", env=no_worker_environ).stdout_bytes == body(
        "job", queue="etl", owner="me"
    )


def test_bytes_that_are_no_text_are_written_as_they_came(
    invoke: Invoke, no_worker_environ: Mapping[str, str], client: EcsQueue
) -> None:
    add_dead_letter(client, "k", bytes(range(256)))
    assert invoke("dead", "show", "k", "--body", env=no_worker_environ).stdout_bytes == bytes(range(256))
    (facts,) = json_lines(invoke("dead", "show", "k", "--json", env=no_worker_environ).stdout)
    assert (facts["usable"], facts["id"]) == (False, None)


def test_an_unknown_key_is_named_and_nothing_is_done(
    invoke: Invoke, no_worker_environ: Mapping[str, str], client: EcsQueue
) -> None:
    add_dead_letter(client, "k", body("job"))
    assert invoke("dead", "show", "nope", env=no_worker_environ).exit_code == 1
    for command in ("requeue", "purge"):
        done = invoke("dead", command, "k", "nope", "--yes", env=no_worker_environ)
        assert done.exit_code == 2
        assert "no dead letter nope is known" in done.stderr
    assert keys(client) == {"k"}


@pytest.mark.parametrize("command", ["requeue", "purge"])
def test_requeue_and_purge_need_a_selection_and_yes(
    invoke: Invoke, no_worker_environ: Mapping[str, str], client: EcsQueue, command: str
) -> None:
    add_dead_letter(client, "k", body("job"))
    bare = invoke("dead", command, "--yes", env=no_worker_environ)
    assert bare.exit_code == 2
    assert "expected keys, filters or --all, found none" in bare.stderr
    assert invoke("dead", command, "--all", "--queue", "default", "--yes", env=no_worker_environ).exit_code == 2
    dry = invoke("dead", command, "--all", env=no_worker_environ)
    assert dry.exit_code == 0
    assert dry.stdout.splitlines()[1].split()[:2] == ["1", "default"]  # the counts come first
    assert "dry run: nothing was done" in dry.stderr
    assert keys(client) == {"k"}
    assert client.ledger.list_records("", 10)[0] == []


def test_a_requeued_dead_letter_is_a_new_request_that_names_its_origin(
    invoke: Invoke, no_worker_environ: Mapping[str, str], client: EcsQueue
) -> None:
    words: dict[str, Any] = {"priority": 7, "expires_in": 600.0, "time_limit": 5.0, "relaunch": "interrupted"}
    add_dead_letter(client, "k", body("job", owner="client-1", **words), reason="it arrived after its accept_until")
    (line,) = json_lines(invoke("dead", "requeue", "k", "--yes", "--json", env=no_worker_environ).stdout)
    assert (line["key"], line["result"], line["origin"], line["queue"]) == ("k", "requeued", "job", "default")
    assert line["id"].startswith("job-r-")
    request = request_of(client, line["id"])
    assert (request.origin, request.owner, request.command) == ("job", "", ["login", _SECRET])
    assert {name: getattr(request, name) for name in words} == words
    assert request.executor_config == {"environment": [{"name": "TOKEN", "value": _SECRET}]}
    assert request.accept_until > client.ledger.now()
    assert keys(client) == set()
    assert client.backlog("default") == 1


def test_a_dead_letter_requeued_again_after_a_crash_is_one_request(
    invoke: Invoke, no_worker_environ: Mapping[str, str], client: EcsQueue
) -> None:
    add_dead_letter(client, "k", body("job"))
    first = json_lines(invoke("dead", "requeue", "k", "--yes", "--json", env=no_worker_environ).stdout)
    add_dead_letter(client, "k", body("job"))  # the process died before it could drop the letter
    assert json_lines(invoke("dead", "requeue", "k", "--yes", "--json", env=no_worker_environ).stdout) == first
    assert len(client.ledger.list_records("", 10)[0]) == 1
    assert keys(client) == set()


def test_dead_letters_that_cannot_be_requests_stay_and_the_others_go(
    invoke: Invoke, no_worker_environ: Mapping[str, str], client: EcsQueue
) -> None:
    add_dead_letter(client, "good", body("good"))
    add_dead_letter(client, "garbage", b"\xff")
    add_dead_letter(client, "foreign", body("foreign", queue="etl"))
    add_dead_letter(client, "wrong", body("wrong", executor_config={"no_such_key": 1}))
    add_dead_letter(client, "taken", body("taken"))
    taken = json_lines(invoke("dead", "requeue", "taken", "--json", env=no_worker_environ).stdout)[0]["id"]
    client.submit(["another"], id=taken)
    done = invoke("dead", "requeue", "--all", "--yes", "--json", env=no_worker_environ)
    assert done.exit_code == 1
    problems = {line["key"]: line["problem"] for line in json_lines(done.stdout)}
    assert problems["good"] is None
    assert "not JSON" in problems["garbage"]
    assert "it names the queue etl and came from default: choose one with --to" in problems["foreign"]
    assert "no_such_key" in problems["wrong"]
    assert "another request was submitted under the id" in problems["taken"]
    assert keys(client) == {"garbage", "foreign", "wrong", "taken"}
    (line,) = json_lines(
        invoke("dead", "requeue", "foreign", "--to", "etl", "--yes", "--json", env=no_worker_environ).stdout
    )
    assert request_of(client, line["id"]).queue == "etl"


def test_what_is_purged_is_gone_and_the_rest_stays(
    invoke: Invoke, no_worker_environ: Mapping[str, str], client: EcsQueue
) -> None:
    add_dead_letter(client, "a", b"x", "default", "not JSON")
    add_dead_letter(client, "b", b"x", "etl", "not JSON")
    done = invoke("dead", "purge", "--queue", "etl", "--yes", env=no_worker_environ)
    assert done.exit_code == 0
    assert "1 of 1 were purged" in done.stderr
    assert keys(client) == {"a"}
    (pile,) = json_lines(invoke("dead", "purge", "a", "--yes", "--json", env=no_worker_environ).stdout)
    assert (pile["queue"], pile["count"]) == ("default", 1)
    assert keys(client) == set()


def test_a_dead_letter_of_a_worker_runs_when_it_is_requeued(deployment: Deployment) -> None:
    with deployment.make_client() as client:
        prepared = client.prepare({"id": "twice", "command": ["sh", "-c", "exit 5"]})
        client.send([prepared])
        other = envelope.encode(new_request(id="twice", command=["true"], now=1.7e9, accept_seconds=1e9))
        client._broker.publish_requests([_outgoing(other)])
        wait_until(
            lambda: any(b"true" in found.body for found in client.ledger.list_dead_letters(10)),
            "the message is a dead letter",
            20,
        )
        found = next(found for found in client.ledger.list_dead_letters(10) if b"true" in found.body)
        done = deployment.run("dead", "requeue", found.key, "--yes", "--json")
        (line,) = json_lines(done.stdout)
        result = client.handle(line["id"]).result(timeout=30)
        assert (result.state, result.exit_code) == ("SUCCESS", 0)


def _outgoing(message: bytes) -> Any:
    from ecs_queue.broker.base import RequestMessage

    return RequestMessage("default", message, 0)


def test_a_forged_dead_letter_is_not_signed_again(
    invoke: Invoke, no_worker_environ: Mapping[str, str], client: EcsQueue
) -> None:
    """Otherwise the operator would sign what a forger wrote to the queue."""
    add_dead_letter(client, "forged", body("job"), reason="it is not signed")
    keys_set = {**no_worker_environ, "AIRFLOW__ECS_QUEUE__SIGNING_KEYS": "k1:" + "a" * 32}
    done = invoke("dead", "requeue", "forged", "--yes", env=keys_set)
    assert "it is not signed" in done.stdout + done.stderr
    assert keys(client) == {"forged"}
    assert client.ledger.count_by_state() == {}
