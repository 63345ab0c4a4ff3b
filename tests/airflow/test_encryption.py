"""The adapter signs and encrypts its requests, and ignores results without a valid signature."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from cryptography.fernet import Fernet

from ecs_queue.airflow.ledger_access import LedgerAccess
from ecs_queue.airflow.task_log import read_task_log
from ecs_queue.broker import open_broker
from ecs_queue.config.keyring import open_keyring
from ecs_queue.errors import InvalidRequest
from ecs_queue.messages import envelope
from ecs_queue.messages.result import build_result
from ecs_queue.protocol.operations import ResultCode
from ecs_queue.protocol.record import Record
from ecs_queue.protocol.states import State
from tests.worker.harness import WorkerHarness, make_config

KEYS: dict[str, Any] = {"signing_keys": "k1:" + "a" * 32, "encryption_keys": Fernet.generate_key().decode()}
PAYLOAD = '{"token": "eyJhbGciOi.hunter2.x"}'


@pytest.fixture
def ledger_access() -> Iterator[LedgerAccess]:
    config = make_config(namespace=f"t{uuid.uuid4().hex[:12]}", **KEYS)
    opened = LedgerAccess.open(config, "airflow-1", logging.getLogger("test"), lambda _: None)
    yield opened
    opened.close()


def make_task_line(**fields: Any) -> dict[str, Any]:
    return {"id": "a", "command": ["python", "--json-string", PAYLOAD], **fields}


def test_the_task_token_leaves_the_scheduler_encrypted_and_signed(ledger_access: LedgerAccess) -> None:
    prepared = ledger_access.prepare(make_task_line())

    assert b"hunter2" not in prepared.submission.request
    assert (
        envelope.decode_request(prepared.submission.request, open_keyring(ledger_access.config)).command[-1] == PAYLOAD
    )


def test_a_result_is_accepted_when_it_is_signed_and_in_the_ledger(
    ledger_access: LedgerAccess, caplog: pytest.LogCaptureFixture
) -> None:
    put_results = ledger_access.send_in_background([ledger_access.prepare(make_task_line())]).result(timeout=10)
    assert put_results[0].code is ResultCode.CREATED
    stopped = ledger_access.stop(["a"], "test") or []
    ended = stopped[0].record
    assert ended is not None
    broker, keyring = open_broker(ledger_access.config), open_keyring(ledger_access.config)
    true = build_result(ended)
    unknown = build_result(Record(id="b", nonce="n", owner="airflow-1", state=State.SUCCESS))
    for body in (envelope.encode(true), envelope.encode(unknown, keyring), envelope.encode(true, keyring)):
        broker.publish_results([("airflow-1", body)])
    received: list[tuple[str, str]] = []
    for _ in range(200):
        received += [(found.id, found.state) for found in ledger_access.receive_results(0.0)]
        if received and "Ignoring a result message" in caplog.text:
            break

    assert received == [("a", "REVOKED")]
    assert "Ignoring a result message, the ledger is read instead: it is not signed" in caplog.text
    broker.close()


def test_a_task_that_overrides_its_role_is_rejected_before_it_is_queued(ledger_access: LedgerAccess) -> None:
    with pytest.raises(InvalidRequest, match=r"overrides\.taskRoleArn"):
        ledger_access.prepare(
            make_task_line(executor_config={"overrides": {"taskRoleArn": "arn:aws:iam::123456789012:role/admin"}})
        )


def test_the_log_of_an_encrypted_task_is_found_by_its_profile(monkeypatch: pytest.MonkeyPatch) -> None:
    """The API server need not have the keys."""
    worker_harness = WorkerHarness(**KEYS)
    worker_harness.launch()
    task_definitions: list[str] = []

    class Aws:
        def make_client(self, service: str, region: str, profile: object) -> Any:
            return self

        def describe_task_definition(self, taskDefinition: str) -> Any:  # noqa: N803 - boto3's
            task_definitions.append(taskDefinition)
            return {"taskDefinition": {"containerDefinitions": []}}

    monkeypatch.setattr("ecs_queue.airflow.task_log.open_ledger", lambda config: worker_harness.memory_ledger)
    messages, _ = read_task_log(make_config(), "a", make_client=Aws().make_client, environ={})

    assert task_definitions == ["family:1"]
    assert "no container 'main'" in messages[0]
