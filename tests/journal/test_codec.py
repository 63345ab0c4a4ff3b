"""Encoding of events."""

from __future__ import annotations

import datetime
from typing import Any

import msgspec
import pytest

from ecs_queue.journal.codec import decision_facts, encode_event
from ecs_queue.journal.redact import REDACTED
from ecs_queue.messages import envelope
from ecs_queue.messages.request import new_request
from ecs_queue.protocol.decisions import PollInput, decide_call, decide_poll
from ecs_queue.protocol.ecs_results import RunTaskResult, RunTaskResultKind
from ecs_queue.protocol.record import Record
from ecs_queue.protocol.retry import Backoff, RecordedDraw
from ecs_queue.telemetry import EVENTS
from tests.journal.golden_journal import record_every_decision

SECRET = "hunter2-4711"
SAID = f"cannot pull from https://robot:{SECRET}@registry.example.com/x"


def encoded(name: str, **fields: Any) -> dict[str, Any]:
    found: dict[str, Any] = msgspec.json.decode(encode_event(1.23456789, name, fields))
    return found


def call_event(result: RunTaskResult, record: Record) -> dict[str, Any]:
    backoff, draw = Backoff(2.0, 60.0), RecordedDraw(value=0.5)
    decision = decide_call(result, record, backoff, draw)
    inputs = {"record": record, "result": result, "backoff": backoff, "draw": draw.value, "decision": decision}
    return encoded("decision.run_task", id="a", launch=1, write=decision.write.value, **inputs)


def poll_event(task: dict[str, Any], record: Record | None = None) -> dict[str, Any]:
    shown = {"taskArn": "arn:1", "lastStatus": "STOPPED", "desiredStatus": "STOPPED", "version": 3, **task}
    poll_input = PollInput(
        record=record or Record(id="a"),
        task=shown,
        container_name="main",
        max_attempts=1,
        now=5.0,
        in_flight=1,
        describe_tasks_rate=20.0,
        backoff=Backoff(2.0, 60.0),
    )
    draw = RecordedDraw(value=0.5)
    decision = decide_poll(poll_input, draw)
    return encoded(
        "decision.poll",
        id="a",
        arn="arn:1",
        status="STOPPED",
        poll_input=poll_input,
        draw=draw.value,
        decision=decision,
    )


def submitted_event(body: bytes) -> Any:
    fields = {"id": "a", "queue": "q", "owner": "me", "nonce": "n", "namespace": "ns"}
    return encoded("request.submitted", **fields, envelope=body)["data"]["envelope"]


def test_an_event_has_its_version_time_name_id_and_data() -> None:
    event = encoded("request.received", id="a", queue="q")

    assert event == {"v": 1, "at": 1.234568, "name": "request.received", "id": "a", "data": {"queue": "q"}}


def test_an_event_of_no_request_has_no_id() -> None:
    assert encoded("circuit.closed", queue="q")["id"] == ""


def test_an_envelope_is_kept_as_unchanged_json() -> None:
    request = new_request(id="a", command=["run", "grüße"], now=1.0, accept_seconds=2.0, priority=3)

    assert submitted_event(envelope.encode(request)) == msgspec.to_builtins(request)


def test_an_encrypted_payload_stays_encrypted() -> None:
    encrypted = b'{"v":1,"kind":"request","id":"a","sealed":"gAAAAABnmZ0xyz","signature":"k1:%s"}' % (b"0f" * 32)

    assert submitted_event(encrypted) == msgspec.json.decode(encrypted)


@pytest.mark.parametrize("body", [b"gAAAA no json", b"\xff\xfe", b"{" * 5000], ids=["text", "bytes", "nested"])
def test_a_payload_that_is_not_json_is_kept_as_text(body: bytes) -> None:
    assert submitted_event(body) == body.decode("utf-8", "replace")


def test_a_record_is_kept_without_payloads_and_claims() -> None:
    record = Record(
        id="a",
        request=b"envelope",
        args='{"run_task": {}}',
        claim="random",
        target="{}",
        owner="me",
        digest="d",
        launch=2,
        exit_code=0,
        created_at=5.0,
    )

    assert decision_facts(record) == {"id": "a", "launch": 2, "exit_code": 0, "created_at": 5.0}


def test_a_record_made_from_its_facts_gives_the_same_decision() -> None:
    record = Record(id="a", calls=3, launch=2, stop_requested_by="alice", expires_at=9.5, relaunch="interrupted")

    assert msgspec.convert(decision_facts(record), Record) == record


def test_a_task_is_kept_with_its_times_and_without_overrides() -> None:
    at = datetime.datetime(2025, 1, 31, 12, tzinfo=datetime.UTC)
    task = {"createdAt": at, "pullStartedAt": 1.5, "overrides": {"containerOverrides": [SECRET]}, "attachments": [1]}

    task_facts = poll_event({**task, "containers": [{"name": "main", "exitCode": 0}]})["data"]["poll_input"]["task"]

    assert task_facts["createdAt"] == "2025-01-31T12:00:00Z"
    assert task_facts["pullStartedAt"] == 1.5
    assert "overrides" not in task_facts
    assert "attachments" not in task_facts


@pytest.mark.parametrize(
    "event",
    [
        call_event(RunTaskResult(RunTaskResultKind.CAPACITY, reason=SAID), Record(id="a")),
        call_event(RunTaskResult(RunTaskResultKind.STARTED, arn="arn:1"), Record(id="a", reason=SAID)),
        poll_event({"stoppedReason": SAID}),
        poll_event({"containers": [{"name": "main", "reason": SAID}]}),
        poll_event({}, Record(id="a", reason=SAID)),
        encoded("launch.no_effect", id="a", launch=1, reason=SAID),
        encoded("health.degraded", queue="q", reason=SAID),
    ],
    ids=["result", "record at a call", "stopped reason", "container", "record at a look", "reason", "health"],
)
def test_a_secret_in_a_message_of_ecs_is_redacted(event: dict[str, Any]) -> None:
    assert SECRET not in str(event)
    assert REDACTED in str(event)


def test_a_value_that_json_cannot_represent_is_kept_as_text() -> None:
    assert encoded("health.degraded", queue="q", reason=OSError(5, "no"))["data"]["reason"] == "[Errno 5] no"


def test_all_fields_of_every_event_are_kept() -> None:
    for event in record_every_decision():
        kind = EVENTS[event.name]
        assert set(event.data) == {*kind.fields, *kind.journal_only} - {"id"}, event.name
