"""The wire format: old messages always decode, bad ones say why and do no harm, digests and nonces distinguish."""

from __future__ import annotations

import json
import re
import string
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecs_queue.errors import InvalidRequest, UndecodableMessage
from ecs_queue.messages.envelope import compute_nonce, decode_request, decode_result, encode
from ecs_queue.messages.request import MAX_BODY_BYTES, VERSION, TaskRequest, new_request
from ecs_queue.messages.result import TaskResult
from ecs_queue.protocol.record import build_client_token, build_started_by
from tests.messages.golden_messages import GOLDEN, golden

_START = 1_700_000_000.25


def _request(**fields: Any) -> TaskRequest:
    known: dict[str, Any] = {"id": "job-1", "command": ["true"], "now": _START, "accept_seconds": 86400.0}
    return new_request(**(known | fields))


_MINIMAL = TaskRequest(v=1, id="job-1", command=["true"], submitted_at=_START, accept_until=_START + 86400)


@pytest.mark.parametrize("name", ["request-v1-minimal", "request-v1-of-a-newer-producer"])
def test_a_minimal_request_and_one_with_unknown_fields_decode(name: str) -> None:
    assert decode_request(golden(name)) == _MINIMAL


def test_a_full_request_decodes() -> None:
    assert decode_request(golden("request-v1-full")) == TaskRequest(
        v=1,
        id="0f8fad5b-d9cb-469f-a165-70867728950e",
        command=["python", "-c", "print('grüße')", ""],
        submitted_at=1_700_000_000.0,
        accept_until=_START + 86400,
        queue="gpu.large-1",
        executor_config={"cpu": 512, "environment": [{"name": "DAY", "value": "2024-01-01"}]},
        priority=9,
        expires_in=600.0,
        expires_at=1_700_000_600.0,
        time_limit=90.5,
        relaunch="any_failure",
        owner="airflow-1",
    )


def test_a_request_that_repeats_another_one_decodes() -> None:
    assert decode_request(golden("request-v1-repeated")) == msgspec.structs.replace(
        _MINIMAL, id="job-1-r-0a1b2c3d", origin="job-1"
    )


def test_a_result_decodes() -> None:
    start = datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC)
    assert decode_result(golden("result-v1-failed")) == TaskResult(
        v=1,
        id="job-1",
        nonce="aB3-_x9Z",
        state="FAILED",
        queue="default",
        owner="airflow-1",
        exit_code=3,
        task_arn="arn:aws:ecs:eu-central-1:123456789012:task/production/0123456789abcdef0123456789abcdef",
        attempts=2,
        reason="Essential container in task exited (container main: exit 3)",
        stop_code="EssentialContainerExited",
        queued_at=start + timedelta(seconds=0.25),
        launched_at=start + timedelta(seconds=1),
        started_at=start + timedelta(seconds=15.125),
        finished_at=start + timedelta(seconds=16),
    )


def test_a_result_of_what_was_never_launched_decodes() -> None:
    result = decode_result(golden("result-v1-never-launched"))
    assert (result.state, result.attempts, result.exit_code, result.task_arn) == ("EXPIRED", 0, None, None)
    assert (result.launched_at, result.started_at) == (None, None)
    assert not result.succeeded


def test_digests_are_the_same_in_every_release() -> None:
    # A changed digest turns every request that is submitted again after an upgrade into a conflict.
    digests = [decode_request(golden(f"request-v1-{name}")).digest() for name in ("minimal", "full")]
    assert digests == ["9261c399504e229e09c297e3446aa021", "3eaec00b649cf77cbdab09391f8cbf4c"]


def test_nonces_are_the_same_in_every_release() -> None:
    assert compute_nonce("ecs-queue", golden("request-v1-minimal")) == "xWh2YsTK"


_REASONS = {
    "another-kind": r"\$\.kind",
    "deep": "nested",
    "empty": "not JSON",
    "id-too-long": r"\$\.id",
    "id-with-line-break": r"\$\.id",
    "invalid-utf-8": "(?i)utf-8",  # as msgspec writes it before 0.23, and since
    "list": "object",
    "lone-surrogate": "surrogate",
    "milliseconds": r"\$\.accept_until",
    "missing-field": "accept_until",
    "no-command": r"\$\.command",
    "not-json": "not JSON",
    "pickle": "not JSON",
    "too-long": f"more than {MAX_BODY_BYTES}",
    "truncated": "not JSON",
    "unknown-version": "version 3 is unknown",
    "unknown-version-of-another-shape": "version 3 is unknown",
    "very-deep": "recursion|nested",
    "wrong-type": r"\$\.command",
}


def test_every_golden_message_is_tested() -> None:
    names = {path.stem for path in GOLDEN.glob("undecodable-*.json")}
    assert names == {f"undecodable-{name}" for name in _REASONS}


@pytest.mark.parametrize(("name", "reason"), _REASONS.items())
def test_an_undecodable_message_says_why(name: str, reason: str) -> None:
    with pytest.raises(UndecodableMessage) as caught:
        decode_request(golden(f"undecodable-{name}"))
    assert re.search(reason, str(caught.value))
    assert len(str(caught.value)) < 300


def test_a_result_of_another_version_or_with_a_naive_time_is_refused() -> None:
    known = json.loads(golden("result-v1-failed"))
    for change, reason in (
        ({"v": VERSION + 1}, f"version {VERSION + 1}"),
        ({"queued_at": "2023-11-14T22:13:20"}, "queued_at"),
    ):
        with pytest.raises(UndecodableMessage, match=reason):
            decode_result(json.dumps(known | change).encode())


@given(st.binary(max_size=300))
def test_no_bytes_raise_anything_but_undecodable(body: bytes) -> None:
    for decode in (decode_request, decode_result):
        with pytest.raises(UndecodableMessage):
            decode(body)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from(TaskRequest.__struct_fields__), _JSON))
def test_any_values_in_the_fields_decode_to_something_usable_or_are_undecodable(changes: dict[str, Any]) -> None:
    body = json.dumps(json.loads(golden("request-v1-full")) | changes).encode()
    try:
        request = decode_request(body)
    except UndecodableMessage:
        return
    assert decode_request(encode(request)) == request
    assert re.fullmatch(r"[0-9a-f]{32}", request.digest())


@given(st.data())
def test_a_damaged_message_never_raises_anything_but_undecodable(data: st.DataObject) -> None:
    body = bytearray(golden("request-v1-full"))
    for _ in range(data.draw(st.integers(1, 4))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    try:
        request = decode_request(bytes(body))
    except UndecodableMessage:
        return
    request.digest()


@pytest.mark.parametrize("depth", [30, 31, 32, 33, 100, 300, 900, 1100, 3000])
def test_whatever_decodes_can_be_digested_and_written_again_at_any_depth(depth: int) -> None:
    config = '{"a":' * depth + "1" + "}" * depth
    body = json.dumps(msgspec.to_builtins(_MINIMAL) | {"executor_config": "CONFIG"}).replace('"CONFIG"', config)
    if depth > 32:
        with pytest.raises(UndecodableMessage, match=r"recursion|nested"):
            decode_request(body.encode())
        return
    request = decode_request(body.encode())
    assert decode_request(encode(request)).digest() == request.digest()


def test_integers_of_any_length_do_no_harm() -> None:
    def body(digits: int) -> bytes:
        text = json.dumps(msgspec.to_builtins(_MINIMAL) | {"executor_config": "CONFIG"})
        return text.replace('"CONFIG"', '{"cpu": ' + "9" * digits + "}").encode()

    for digits in (20, 400):
        request = decode_request(body(digits))
        assert decode_request(encode(request)).digest() == request.digest()
    with pytest.raises(UndecodableMessage, match="out of range"):
        decode_request(body(10_000))


@given(
    st.lists(st.text(max_size=20), min_size=1, max_size=5),
    st.none() | st.dictionaries(st.text(max_size=8), _JSON, max_size=3),
    st.none() | st.floats(0.001, 1e9),
)
def test_a_request_survives_the_wire_with_its_digest(command: Any, config: Any, expires_in: Any) -> None:
    try:
        request = _request(command=command, executor_config=config, expires_in=expires_in)
    except InvalidRequest:
        assert any("\ud800" <= char <= "\udfff" for char in json.dumps([command, config], ensure_ascii=False))
        return
    decoded = decode_request(encode(request))
    assert decoded == request
    assert decoded.digest() == request.digest()


@given(st.text(string.ascii_lowercase, max_size=8), st.binary(max_size=50), st.binary(max_size=50))
def test_a_nonce_is_eight_characters_that_ecs_accepts_and_distinguishes_submissions(
    namespace: str, one: bytes, two: bytes
) -> None:
    assert re.fullmatch(r"[A-Za-z0-9_-]{8}", compute_nonce(namespace, one))
    assert (compute_nonce(namespace, one) == compute_nonce(namespace, two)) == (one == two)
    assert compute_nonce(namespace, one) != compute_nonce(namespace + "x", one)


def test_the_same_request_submitted_at_another_time_has_another_nonce() -> None:
    bodies = [encode(_request(now=_START + later)) for later in (0.0, 0.001)]
    assert compute_nonce("n", bodies[0]) != compute_nonce("n", bodies[1])


def test_the_longest_names_fit_what_ecs_takes() -> None:
    record_id, nonce = "x" * 48, compute_nonce("n", b"")
    token = build_client_token(record_id, nonce, 999_999)
    assert len(token) == 64
    assert re.fullmatch(r"[!-~]+", token)
    started_by = build_started_by("n" * 32, record_id, nonce, 999_999)
    assert len(started_by) <= 128
    assert re.fullmatch(r"[A-Za-z0-9_/-]+", started_by)


def test_defaults_are_left_out_of_a_message() -> None:
    assert json.loads(encode(_request())) == json.loads(golden("request-v1-minimal"))
