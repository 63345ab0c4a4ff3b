"""Where a past request comes from, and what the journal has redacted in it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from cryptography.fernet import Fernet

from ecs_queue.client.client import EcsQueue
from ecs_queue.errors import InvalidRequest, SealedMessage, UnknownTask
from ecs_queue.journal import JournalEvent
from ecs_queue.journal.redact import REDACTED
from ecs_queue.local.ecs import local_environment
from ecs_queue.messages.request import TaskRequest, new_request
from ecs_queue.protocol.operations import ClaimRequest
from ecs_queue.replay.past_request import find_past_request
from ecs_queue.runtask.launch_spec import LaunchSpec
from tests.journal.memory_journal import MemoryJournal

EMPTY = MemoryJournal([])
SECRETS = {"environment": [{"name": "TOKEN", "value": REDACTED}, {"name": "DAY", "value": "1"}]}
SPEC = LaunchSpec("main", 3, {"overrides": {"containerOverrides": [{"name": "main", **SECRETS}]}})


@pytest.fixture
def client(redis_url: str) -> Iterator[EcsQueue]:
    with EcsQueue.from_config(environ=local_environment("http://127.0.0.1:1", redis_url), owner="") as queue:
        yield queue


def request(record_id: str = "job", **fields: Any) -> TaskRequest:
    known: dict[str, Any] = {"command": ["run"], "now": 1.7e9, "accept_seconds": 60.0}
    return new_request(id=record_id, **(known | fields))


def journal(past: TaskRequest, *specs: LaunchSpec) -> MemoryJournal:
    """As workers write it: envelopes and specs as JSON values."""
    events = [("request.submitted", {"envelope": msgspec.to_builtins(past)})]
    for launch, spec in enumerate(specs, 1):
        data = {
            "launch": launch,
            "attempt": 1,
            "launch_spec": msgspec.to_builtins(spec),
            "target": {"region": "eu-west-1"},
        }
        events.append(("launch.called", data))
    return MemoryJournal(
        JournalEvent(v=1, seq=f"{n}-0.0", at=1.7e9 + n, name=name, id=past.id, data=data)
        for n, (name, data) in enumerate(events)
    )


def test_a_live_request_comes_from_the_ledger(client: EcsQueue) -> None:
    client.submit(["live"], id="job")
    past = find_past_request(client, journal(request(command=["old"])), "job")
    assert (past.source, past.request.command, past.last_call, past.redacted) == ("ledger", ["live"], None, ())


def test_a_launching_request_has_its_frozen_arguments(client: EcsQueue) -> None:
    client.submit(["live"], id="job")
    target = '{"cluster":"prod","region":"eu-west-1"}'
    client.ledger.claim("job", ClaimRequest(claim="c", worker="w", args=SPEC.encode(), target=target))
    sent = find_past_request(client, EMPTY, "job").last_call
    assert sent is not None
    assert (sent.launch, sent.launch_spec, sent.target) == (1, SPEC, {"cluster": "prod", "region": "eu-west-1"})


def test_an_ended_request_comes_from_the_journal_with_its_newest_launch(client: EcsQueue) -> None:
    client.submit(["live"], id="job")
    client.stop("job")
    newest = msgspec.structs.replace(SPEC, max_attempts=9)
    past = find_past_request(client, journal(request(command=["old"]), SPEC, newest), "job")
    assert (past.source, past.request.command) == ("journal", ["old"])
    assert past.last_call is not None
    assert (past.last_call.launch, past.last_call.launch_spec, past.last_call.at) == (2, newest, 1.7e9 + 2)


def test_an_unknown_request_is_an_error_with_advice(client: EcsQueue) -> None:
    with pytest.raises(UnknownTask, match=r"no request nope is known.*[Ss]ubmit it anew"):
        find_past_request(client, EMPTY, "nope")
    client.submit(["live"], id="job")
    client.stop("job")
    with pytest.raises(
        UnknownTask, match=r"job: it has ended \(REVOKED\).*journal has nothing of it.*[Ss]ubmit it anew"
    ):
        find_past_request(client, EMPTY, "job")


@pytest.mark.parametrize(
    "config",
    [SECRETS, {"overrides": {"containerOverrides": [{"name": "main", **SECRETS}, {"name": "side", **SECRETS}]}}],
)
def test_redacted_variables_are_filled_everywhere_and_the_rest_is_returned(
    client: EcsQueue, config: dict[str, Any]
) -> None:
    past = find_past_request(client, journal(request(executor_config=config)), "job")
    assert past.redacted
    filled, left = past.with_secrets({"TOKEN": "hunter2", "DAY": "2"})
    assert REDACTED not in str(msgspec.to_builtins(filled.request))
    assert "hunter2" in str(msgspec.to_builtins(filled.request))
    assert left == {"DAY": "2"}  # it was not hidden: a change
    assert "hunter2" not in repr(filled)


def test_what_is_still_redacted_is_named_with_what_to_give(client: EcsQueue) -> None:
    past = find_past_request(client, journal(request(executor_config=SECRETS)), "job")
    with pytest.raises(InvalidRequest, match=r"give --env TOKEN=\.\.\. \(--env NAME alone"):
        past.with_secrets({})


def test_a_variable_whose_name_has_dots_can_be_given(client: EcsQueue) -> None:
    name = "spring.datasource.password"
    past = find_past_request(
        client, journal(request(executor_config={"environment": [{"name": name, "value": REDACTED}]})), "job"
    )
    with pytest.raises(InvalidRequest, match=rf"give --env {name}=\.\.\. "):
        past.with_secrets({})
    filled, left = past.with_secrets({name: "hunter2"})
    assert filled.request.executor_config == {"environment": [{"name": name, "value": "hunter2"}]}
    assert left == {}


def test_a_secret_in_the_command_cannot_be_given(client: EcsQueue) -> None:
    past = find_past_request(client, journal(request(command=["login", REDACTED], executor_config=SECRETS)), "job")
    with pytest.raises(InvalidRequest, match=r"not keep what stood in command\[1\]; submit the request anew"):
        past.with_secrets({"TOKEN": "hunter2"})


@pytest.mark.parametrize("value", ["{}", REDACTED])
@pytest.mark.parametrize("place", ["flat", "override"])
def test_the_call_of_a_function_is_not_repeated(client: EcsQueue, place: str, value: str) -> None:
    """Its arguments are dropped when it has ended, also where the journal keeps everything."""
    container = {"environment": [{"name": "ECS_QUEUE_CALL", "value": value}]}
    config = container if place == "flat" else {"overrides": {"containerOverrides": [{"name": "main", **container}]}}
    past = find_past_request(client, journal(request(executor_config=config)), "job")
    with pytest.raises(InvalidRequest, match="it is the call of a function"):
        past.with_secrets({"ECS_QUEUE_CALL": "{}"})


@pytest.mark.parametrize(
    "spec", [None, "", {"container_name": "main", "max_attempts": 3, "sealed": "gAAAA"}, "no JSON"]
)
def test_a_launch_with_unreadable_arguments_has_no_last_call(client: EcsQueue, spec: object) -> None:
    past_events = list(journal(request(), SPEC).all_events())
    odd = msgspec.structs.replace(past_events[1], data={**past_events[1].data, "launch_spec": spec})
    assert find_past_request(client, MemoryJournal([past_events[0], odd]), "job").last_call is None


def test_encrypted_requests_of_ledger_and_journal_are_opened_with_the_configured_keys(
    redis_url: str,
) -> None:
    keys = {
        "AIRFLOW__ECS_QUEUE__SIGNING_KEYS": "k1:" + "a" * 32,
        "AIRFLOW__ECS_QUEUE__ENCRYPTION_KEYS": Fernet.generate_key().decode(),
    }
    environ = local_environment("http://127.0.0.1:1", redis_url)
    with EcsQueue.from_config(environ={**environ, **keys}, owner="") as locked:
        prepared = locked.prepare({"id": "job", "command": ["login", "hunter2"]})
        locked.submit(["login", "hunter2"], id="job")
        kept = {"envelope": msgspec.json.decode(prepared.submission.request)}
        past = MemoryJournal([JournalEvent(v=1, seq="1-0.0", at=1.7e9, name="request.submitted", id="old", data=kept)])
        assert find_past_request(locked, EMPTY, "job").request.command == ["login", "hunter2"]
        assert find_past_request(locked, past, "old").request.command == ["login", "hunter2"]
    with EcsQueue.from_config(environ=environ, owner="") as keyless, pytest.raises(SealedMessage):
        find_past_request(keyless, past, "old")
