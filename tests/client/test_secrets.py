"""The client signs what it sends, and ignores results that are not signed."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import pytest
from cryptography.fernet import Fernet

from ecs_queue.client.client import EcsQueue
from ecs_queue.config.keyring import open_keyring
from ecs_queue.errors import IdConflict, InvalidRequest, ResultTimeout, UnverifiedMessage
from ecs_queue.messages import envelope
from ecs_queue.messages.result import build_result
from ecs_queue.protocol.states import State
from tests.client.harness import TIMEOUT, ClientHarness
from tests.worker.harness import make_config

FERNET = Fernet.generate_key().decode()
KEYS: dict[str, Any] = {"signing_keys": "k1:" + "a" * 32, "encryption_keys": FERNET}
CONFIG = {"environment": [{"name": "PASSWORD", "value": "hunter2"}]}


class KeyedClientHarness(ClientHarness):
    def __init__(self) -> None:
        super().__init__()
        self.config = make_config(namespace=self.config.namespace, **KEYS)
        self.keyring = open_keyring(self.config)

    def publish_result(self, queue: EcsQueue, record_id: str, *, signed: bool, **changes: Any) -> None:
        """Publish a result that may be forged."""
        result = build_result(self.record(record_id))
        forged = type(result)(**{name: getattr(result, name) for name in result.__struct_fields__} | changes)
        body = envelope.encode(forged, self.keyring) if signed else envelope.encode(forged)
        self.broker.publish_results([(queue.owner, body)])


@pytest.fixture
def harness() -> Iterator[KeyedClientHarness]:
    harness = KeyedClientHarness()
    yield harness
    for client in harness.clients:
        client.close()


@pytest.fixture
def queue(harness: KeyedClientHarness) -> EcsQueue:
    return harness.make_client()


def test_published_and_stored_requests_are_signed_and_encrypted(harness: KeyedClientHarness, queue: EcsQueue) -> None:
    queue.submit(["login"], id="a", executor_config=CONFIG)

    (message,) = harness.broker.published
    assert message.body == harness.record("a").request
    assert b"hunter2" not in message.body
    assert b"login" not in message.body
    with pytest.raises(UnverifiedMessage):
        envelope.decode_request(message.body.replace(b'"a"', b'"b"'), harness.keyring)
    assert envelope.decode_request(message.body, harness.keyring).executor_config == CONFIG


def test_the_same_request_again_is_the_same_though_its_envelope_differs(
    harness: KeyedClientHarness, queue: EcsQueue
) -> None:
    first = queue.submit(["login"], id="a", executor_config=CONFIG)
    again = harness.make_client().submit(["login"], id="a", executor_config=CONFIG)

    assert first.nonce == again.nonce
    with pytest.raises(IdConflict):
        queue.submit(["logout"], id="a")


def test_a_lost_put_is_repeated_with_the_same_envelope(harness: KeyedClientHarness, queue: EcsQueue) -> None:
    handle = queue.submit(["login"], id="a")
    before = harness.record("a")
    del harness.memory_ledger._records["a"]
    with pytest.raises(ResultTimeout):
        handle.result(2.5)

    assert (harness.record("a").request, harness.record("a").nonce) == (before.request, before.nonce)


def test_an_unsigned_result_is_ignored_and_the_ledger_is_read(
    harness: KeyedClientHarness, queue: EcsQueue, caplog: pytest.LogCaptureFixture
) -> None:
    handle = queue.submit(["true"])
    with caplog.at_level(logging.WARNING):
        harness.publish_result(queue, handle.id, signed=False, state="SUCCESS", exit_code=0)
        with pytest.raises(ResultTimeout):
            handle.result(1.0)
    assert "Ignoring a result message, the ledger is read instead: it is not signed" in caplog.text
    harness.finish(handle.id, exit_code=3, publish_result=False)

    assert handle.result(TIMEOUT).state == State.FAILED


def test_a_signed_result_is_yielded_at_once_as_the_ledger_has_it(harness: KeyedClientHarness, queue: EcsQueue) -> None:
    handle = queue.submit(["true"])
    harness.finish(handle.id, exit_code=3, publish_result=False)
    harness.publish_result(queue, handle.id, signed=True, state="SUCCESS", exit_code=0)

    assert handle.result(TIMEOUT).state == State.FAILED


def test_a_signed_result_that_the_ledger_does_not_confirm_is_ignored(
    harness: KeyedClientHarness, queue: EcsQueue
) -> None:
    handle = queue.submit(["true"])
    harness.publish_result(queue, handle.id, signed=True, state="SUCCESS", exit_code=0)

    with pytest.raises(ResultTimeout):
        handle.result(1.0)


def test_the_result_of_a_request_that_is_stopped_before_its_launch_is_signed(
    harness: KeyedClientHarness, queue: EcsQueue
) -> None:
    other = harness.make_client(owner="other")
    handle = other.submit(["true"])
    queue.stop(handle.id)

    ((owner, body),) = harness.broker.published_results  # the other client's thread may have read the queue already
    assert owner == "other"
    assert envelope.decode_result(body, harness.keyring).state == State.REVOKED


def test_what_may_not_be_overridden_is_refused_before_anything_is_queued(
    harness: KeyedClientHarness, queue: EcsQueue
) -> None:
    with pytest.raises(InvalidRequest, match=r"overrides\.taskRoleArn may not be overridden"):
        queue.submit(["true"], executor_config={"overrides": {"taskRoleArn": "arn:aws:iam::123456789012:role/admin"}})
    assert not harness.broker.published
