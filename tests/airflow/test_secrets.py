"""The adapter signs and seals what it sends, and believes no result that anybody may have written."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from cryptography.fernet import Fernet

from ecs_queue.airflow.desk import Desk
from ecs_queue.airflow.logs import read_task_log
from ecs_queue.broker import open_broker
from ecs_queue.core import envelope
from ecs_queue.core.protocol import Word
from ecs_queue.core.record import Record
from ecs_queue.core.states import State
from ecs_queue.errors import InvalidRequest
from ecs_queue.keyring import open_keyring
from tests.launcher.lab import Lab, config_of

KEYS: dict[str, Any] = {"signing_keys": "k1:" + "a" * 32, "encryption_keys": Fernet.generate_key().decode()}
PAYLOAD = '{"token": "eyJhbGciOi.hunter2.x"}'


@pytest.fixture
def desk() -> Iterator[Desk]:
    config = config_of(namespace=f"t{uuid.uuid4().hex[:12]}", **KEYS)
    made = Desk.open(config, "airflow-1", logging.getLogger("test"), lambda _: None)
    yield made
    made.close()


def line(**fields: Any) -> dict[str, Any]:
    return {"id": "a", "command": ["python", "--json-string", PAYLOAD], **fields}


def test_the_task_token_leaves_the_scheduler_sealed_and_signed(desk: Desk) -> None:
    draft = desk.prepare(line())

    assert b"hunter2" not in draft.body
    assert envelope.decode_request(draft.body, open_keyring(desk.config)).command[-1] == PAYLOAD
    assert draft.submission.body == draft.body


def test_a_result_is_taken_when_it_is_signed_and_the_ledger_has_it(
    desk: Desk, caplog: pytest.LogCaptureFixture
) -> None:
    answers = desk.send_soon([desk.prepare(line())]).result(timeout=10)
    assert answers[0].word is Word.CREATED
    stopped = desk.stop(["a"], "test") or []
    ended = stopped[0].record
    assert ended is not None
    broker, keyring = open_broker(desk.config), open_keyring(desk.config)
    true = envelope.result_of(ended)
    unknown = envelope.result_of(Record(id="b", nonce="n", owner="airflow-1", state=State.SUCCESS))
    for body in (envelope.encode(true), envelope.encode(unknown, keyring), envelope.encode(true, keyring)):
        broker.publish_results([("airflow-1", body)])
    taken: list[tuple[str, str]] = []
    for _ in range(200):
        taken += [(found.id, found.state) for found in desk.results(0.0)]
        if taken and "not believed" in caplog.text:
            break

    assert taken == [("a", "REVOKED")]
    assert "a result message is not believed, the ledger is asked: it is not signed" in caplog.text
    broker.close()


def test_a_task_that_asks_for_a_role_is_refused_before_it_is_queued(desk: Desk) -> None:
    with pytest.raises(InvalidRequest, match=r"overrides\.taskRoleArn"):
        desk.prepare(line(executor_config={"overrides": {"taskRoleArn": "arn:aws:iam::123456789012:role/admin"}}))


def test_the_log_of_a_sealed_task_is_found_by_its_profile(monkeypatch: pytest.MonkeyPatch) -> None:
    """The API server need not have the keys."""
    lab = Lab(**KEYS)
    lab.launched()
    asked: list[str] = []

    class Aws:
        def client(self, service: str, region: str, profile: object) -> Any:
            return self

        def describe_task_definition(self, taskDefinition: str) -> Any:  # noqa: N803 - boto3's
            asked.append(taskDefinition)
            return {"taskDefinition": {"containerDefinitions": []}}

    monkeypatch.setattr("ecs_queue.airflow.logs.open_ledger", lambda config: lab.memory)
    said, _ = read_task_log(config_of(), "a", clients=Aws(), environ={})

    assert asked == ["family:1"]
    assert "no container 'main'" in said[0]
