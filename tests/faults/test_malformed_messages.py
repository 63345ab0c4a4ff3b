"""Malformed and forged messages: a worker on a real server stores them as dead letters and continues."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import pytest
import redis

from ecs_queue.broker import open_broker
from ecs_queue.errors import InvalidRequest, ResultTimeout
from ecs_queue.messages import envelope
from ecs_queue.messages.request import MAX_BODY_BYTES, POLICY_VERSION
from ecs_queue.messages.result import build_result
from ecs_queue.protocol.record import Record
from ecs_queue.protocol.states import State
from tests.faults.harness import FaultHarness
from tests.faults.raw_messages import encode_kombu_message, push_messages
from tests.wait import wait_until

pytestmark = [pytest.mark.server, pytest.mark.slow]

_UNKNOWN_VERSION = POLICY_VERSION + 1


def _request(**changes: Any) -> bytes:
    now = time.time()
    known = {"kind": "request", "v": 1, "id": "x", "command": ["true"], "submitted_at": now, "accept_until": now + 600}
    return json.dumps({**known, **changes}).encode()


def _nested(levels: int) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for _ in range(levels):
        value = {"a": value}
    return value


#: (the element on the list, a part of the reason)
MALFORMED: dict[str, tuple[bytes, str]] = {
    "undecodable bytes": (b"\xff\xfe\x00garbage", "not JSON"),
    "no message": (b"[1, 2, 3]", "not a message in kombu's format"),
    "no base64": (encode_kombu_message(b"{}").replace(b"e30=", b"e30"), "its body is not base64"),
    "a body of no text": (encode_kombu_message(b"\x80\x81"), "not JSON"),
    "an empty body": (encode_kombu_message(b""), "not JSON"),
    "another kind": (encode_kombu_message(_request(kind="result")), "not a valid envelope"),
    "a wrong type": (encode_kombu_message(_request(command="rm -rf /")), "not a valid envelope"),
    "an id with a slash": (encode_kombu_message(_request(id="../../etc")), "not a valid envelope"),
    "a number that is none": (
        encode_kombu_message(_request().replace(b'"v": 1', b'"v": 1, "priority": NaN')),
        "not JSON",
    ),
    "a time in milliseconds": (encode_kombu_message(_request(submitted_at=1.8e12)), "not a valid envelope"),
    "more than 128 KiB": (encode_kombu_message(_request(command=["x" * MAX_BODY_BYTES])), "are not accepted"),
    "nested 40 deep": (encode_kombu_message(_request(executor_config=_nested(40))), "nested more than 32 deep"),
    "nested 50,000 deep": (
        encode_kombu_message(_request().replace(b'["true"]', b"[" * 50_000 + b"]" * 50_000)),
        "not",
    ),
    "an unknown version": (
        encode_kombu_message(_request(v=_UNKNOWN_VERSION, command={"of": "the future"})),
        f"version {_UNKNOWN_VERSION} is unknown",
    ),
    "another queue": (encode_kombu_message(_request(queue="gpu")), "it names the queue gpu"),
    "a pickle": (encode_kombu_message(b"\x80\x04\x95", body_encoding="base64").replace(b"/json", b"/x-python"), "not"),
}


@pytest.mark.parametrize("concurrency", [1, 8])
def test_each_is_a_dead_letter_with_its_reason_and_the_next_request_is_launched(
    concurrency: int, redis_url: str, make_harness: Callable[..., FaultHarness]
) -> None:
    harness = make_harness(redis_url, concurrency=concurrency)
    with redis.Redis.from_url(redis_url) as client:
        push_messages(client, *[raw for raw, _ in MALFORMED.values()])
    harness.start_worker()
    harness.submit("good")

    wait_until(lambda: len(harness.queue.ledger.list_dead_letters(100)) == len(MALFORMED), "each is a dead letter")
    harness.wait_for_state(State.LAUNCHED, "good")

    reasons = [letter.reason for letter in reversed(harness.queue.ledger.list_dead_letters(100))]
    if concurrency > 1:  # they are stored in any order
        assert [kind for kind, (_, words) in MALFORMED.items() if not any(words in reason for reason in reasons)] == []
    else:
        assert [
            (kind, reason)
            for (kind, (_, words)), reason in zip(MALFORMED.items(), reasons, strict=True)
            if words not in reason
        ] == []
    assert harness.states("x") == [None]
    assert not harness.service_failures("")


def test_a_request_that_json_or_run_task_could_not_hold_never_leaves_the_producer(
    redis_url: str, make_harness: Callable[..., FaultHarness]
) -> None:
    harness = make_harness(redis_url)
    for fields in ({"command": ["x" * MAX_BODY_BYTES]}, {"command": ["true"], "executor_config": _nested(40)}):
        with pytest.raises(InvalidRequest):
            harness.queue.submit_many([fields])

    assert harness.queue.backlog("default") == 0


def _result(record_id: str, nonce: str, owner: str, state: str = "SUCCESS") -> bytes:
    truth = Record(id=record_id, nonce=nonce, owner=owner, queue="default", state=State(state), arn="arn:forged")
    forged = build_result(truth)
    return envelope.encode(forged)


def test_an_owner_believes_the_ledger_and_no_forged_result(
    redis_url: str, make_harness: Callable[..., FaultHarness]
) -> None:
    harness = make_harness(redis_url)
    harness.start_worker()
    (handle,) = harness.queue.submit_many([{"id": "a", "command": ["false"]}])
    harness.wait_for_state(State.LAUNCHED, "a")
    me, broker = harness.queue.owner, open_broker(harness.config)
    forged = [("a", handle.nonce), ("a", "another1"), ("never-submitted", handle.nonce)]
    broker.publish_results([(me, _result(record_id, nonce, me)) for record_id, nonce in forged])
    broker.publish_results([(me, b"\xff"), (me, b'{"kind": "result"}')])
    broker.close()

    with pytest.raises(ResultTimeout):
        handle.result(timeout=2.0)
    for arn in list(harness.ecs.tasks):
        harness.ecs.finish(arn, exit_code=3)
    result = handle.result(timeout=30.0)

    assert (result.state, result.exit_code) == ("FAILED", 3)
    assert result.task_arn in harness.ecs.tasks
