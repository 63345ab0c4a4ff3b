"""Signed and sealed messages: the exact bytes for every language, and what becomes of forged ones."""

from __future__ import annotations

import hmac
import json
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cryptography.fernet import Fernet
from hypothesis import given
from hypothesis import strategies as st

from ecs_queue.config.keyring import FernetCipher
from ecs_queue.errors import InvalidRequest, SealedMessage, UndecodableMessage, UnverifiedMessage
from ecs_queue.messages.envelope import compute_nonce, decode_record_request, decode_request, decode_result, encode
from ecs_queue.messages.keyring import Keyring
from ecs_queue.messages.request import MAX_BODY_BYTES, POLICY_VERSION, TaskRequest, new_request
from ecs_queue.protocol.record import Record
from ecs_queue.runtask.launch_spec import (
    LaunchSpec,
    LaunchSpecHeader,
    args_scope,
    build_submission,
    decode_launch_spec,
    launch_spec_header,
)
from tests.messages.golden_messages import BOTH, FERNET_KEY, SEALS, SECRET, SIGNS, golden

ARGS = args_scope("job-1", "xWh2YsTK", 2, '{"region": "eu-west-1", "cluster": "prod"}')
FULL = decode_request(golden("request-v1-full"))


def request(**fields: Any) -> TaskRequest:
    return new_request(**{"id": "a", "command": ["login", "hunter2"], "now": 1e9, "accept_seconds": 60.0, **fields})


@pytest.mark.parametrize("name", ["signed", "sealed", "sealed-and-signed"])
def test_old_protected_requests_always_decode(name: str) -> None:
    assert decode_request(golden(f"request-v1-{name}"), BOTH if "signed" in name else SEALS) == FULL


def test_old_signed_results_always_decode() -> None:
    assert decode_result(golden("result-v1-signed"), SIGNS) == decode_result(golden("result-v1-failed"))


@pytest.mark.parametrize("name", ["signed", "sealed-and-signed"])
def test_old_protected_arguments_always_decode(name: str) -> None:
    args = golden(f"args-v1-{name}").decode()

    spec = decode_launch_spec(args, BOTH, ARGS)
    assert spec.run_task["overrides"]["containerOverrides"][0]["command"] == ["echo", "grüße"]
    assert launch_spec_header(Record(id="job", args=args)) == LaunchSpecHeader("main", 3)


def test_without_keys_a_signed_message_is_read_as_any_other() -> None:
    assert decode_request(golden("request-v1-signed")) == FULL


def test_signing_the_same_request_again_gives_the_same_bytes() -> None:
    """They are its nonce, and with it the request."""
    assert encode(FULL, SIGNS) == golden("request-v1-signed") == encode(FULL, SIGNS)


def test_another_language_signs_with_a_few_lines() -> None:
    """docs/messages.md, without a line of ours."""
    text = json.dumps(
        {"kind": "request", "v": 1, "id": "x", "command": ["é"], "submitted_at": 1e9, "accept_until": 2e9}, indent=1
    ).encode()
    signed = text[: text.rindex(b"}")]
    mac = hmac.new(SECRET, b"ecs-queue request v1\n" + b"ecs-queue\n" + signed, "sha256").hexdigest()
    body = signed + b',"signature":"2026-11:' + mac.encode() + b'"}'

    assert decode_request(body, SIGNS).command == ["é"]


def test_the_lines_of_the_docs_sign() -> None:
    page = (Path(__file__).parents[2] / "docs" / "messages.md").read_text()
    (code,) = [code for code in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "hmac" in code]
    known: dict[str, Any] = {"json": json, "hmac": hmac, "SECRET": SECRET, "NAMESPACE": b"ecs-queue"}
    known |= {"KEY_ID": b"2026-11", "request": json.loads(golden("request-v1-full"))}
    exec(code, known)

    assert decode_request(known["body"], SIGNS) == FULL


def test_another_language_seals_with_a_few_lines() -> None:
    secret = json.dumps({"command": ["é"], "executor_config": {"cpu": 1}})
    token = Fernet(FERNET_KEY).encrypt(f"ecs-queue request v1\necs-queue\nx\ngpu\n{secret}".encode()).decode()
    clear = {"kind": "request", "v": 1, "id": "x", "queue": "gpu", "submitted_at": 1e9, "accept_until": 2e9}

    found = decode_request(json.dumps({**clear, "sealed": token}).encode(), SEALS)
    assert (found.command, found.executor_config) == (["é"], {"cpu": 1})


def test_what_routes_a_sealed_request_is_clear_and_what_is_secret_is_not() -> None:
    sent = request(executor_config={"environment": [{"name": "PW", "value": "hunter2"}]}, queue="gpu", priority=3)
    body = encode(sent, BOTH)

    assert {"id": "a", "queue": "gpu", "priority": 3}.items() <= json.loads(body).items()
    assert b"hunter2" not in body
    assert b"login" not in body
    assert decode_request(body, BOTH) == sent


def test_sealing_again_is_another_text_of_the_same_request() -> None:
    one, two = encode(FULL, SEALS), encode(FULL, SEALS)

    assert one != two
    assert compute_nonce("ecs-queue", one) != compute_nonce("ecs-queue", two)
    assert decode_request(one, SEALS).digest() == decode_request(two, SEALS).digest() == FULL.digest()


def test_without_the_key_a_sealed_request_says_what_to_do() -> None:
    other = Keyring("ecs-queue", [], FernetCipher([Fernet.generate_key().decode()]))

    for keyring, reason in (
        (Keyring(), "no encryption_keys are set here"),
        (other, "none of the encryption_keys here"),
    ):
        with pytest.raises(SealedMessage, match=reason):
            decode_request(golden("request-v1-sealed"), keyring)


@pytest.mark.parametrize("name", ["minimal", "full", "sealed"])
def test_an_unsigned_request_is_refused_where_there_is_a_key(name: str) -> None:
    with pytest.raises(UnverifiedMessage, match="not signed"):
        decode_request(golden(f"request-v1-{name}"), BOTH)


@pytest.mark.parametrize(
    "change",
    [
        {"id": "other"},
        {"command": ["evil"]},
        {"queue": "admin"},
        {"submitted_at": 1800000000.0},
        {"accept_until": 9e9},
        {"executor_config": {}},
        {"priority": 0},
        {"expires_in": 9.0},
        {"expires_at": 9e9},
        {"time_limit": 1.0},
        {"relaunch": "never_started"},
        {"owner": "thief"},
        {"added": 1},
    ],
    ids=lambda change: next(iter(change)),
)
def test_every_member_of_a_request_is_signed(change: dict[str, Any]) -> None:
    body = json.loads(golden("request-v1-signed"))
    signature = body.pop("signature")
    forged = json.dumps(body | change, separators=(",", ":"), ensure_ascii=False)[:-1] + f',"signature":"{signature}"}}'

    with pytest.raises(UnverifiedMessage, match="is wrong"):
        decode_request(forged.encode(), SIGNS)


def test_the_signature_of_a_result_is_none_of_a_request() -> None:
    with pytest.raises(UnverifiedMessage):
        decode_result(golden("request-v1-signed"), SIGNS)
    with pytest.raises(UnverifiedMessage):
        decode_result(golden("result-v1-failed"), SIGNS)


def test_a_sealed_part_of_another_request_is_refused() -> None:
    stolen = json.loads(encode(request(id="victim"), SEALS))["sealed"]

    for member in ({"id": "thief"}, {"queue": "thieves"}):
        forged = json.loads(encode(request(id="victim"), SEALS)) | {"sealed": stolen} | member
        with pytest.raises(UnverifiedMessage, match="another request"):
            decode_request(json.dumps(forged).encode(), SEALS)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"command": ["x"]}, "both"),
        ({"executor_config": None}, "both"),
        ({"sealed": 1}, "Expected `str`"),
        ({"id": "no id"}, r"\$\.id"),
        ({"v": POLICY_VERSION + 1}, f"version {POLICY_VERSION + 1}"),
        ({"kind": "result"}, "kind"),
    ],
)
def test_a_bad_sealed_request_says_why(change: dict[str, Any], reason: str) -> None:
    body = json.dumps(json.loads(golden("request-v1-sealed")) | change).encode()

    with pytest.raises(UndecodableMessage, match=reason):
        decode_request(body, SEALS)


@pytest.mark.parametrize("secret", [b"", b"[]", b'{"command":[]}', b'{"command":"x"}', b'{"command":[1]}', b"\xff"])
def test_what_is_no_payload_within_the_seal_is_undecodable(secret: bytes) -> None:
    token = SEALS.seal(secret, ("request", "a", "default"))
    body = {"kind": "request", "v": 1, "id": "a", "submitted_at": 1.0, "accept_until": 2.0, "sealed": token}

    with pytest.raises(UndecodableMessage):
        decode_request(json.dumps(body).encode(), SEALS)


def test_a_payload_nested_too_deep_is_undecodable_within_the_seal_too() -> None:
    deep: dict[str, Any] = {}
    for _ in range(40):
        deep = {"a": deep}
    body = encode(msgspec.structs.replace(FULL, executor_config=deep), SEALS)

    with pytest.raises(UndecodableMessage, match="nested"):
        decode_request(body, SEALS)


@given(st.data())
def test_a_damaged_sealed_message_never_raises_anything_but_undecodable(data: st.DataObject) -> None:
    body = bytearray(golden("request-v1-sealed"))
    for _ in range(data.draw(st.integers(1, 4))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    try:
        decode_request(bytes(body), SEALS)
    except UndecodableMessage:
        return


def test_a_request_that_is_too_long_when_sealed_is_refused_before_it_is_queued() -> None:
    long = request(command=["x" * (MAX_BODY_BYTES - 1000)])

    assert encode(long)
    with pytest.raises(InvalidRequest, match="bytes as sent"):
        encode(long, SEALS)


class TestTheRequestOfARecord:
    def record(self, sent: TaskRequest, keyring: Keyring, **changes: Any) -> Record:
        body = encode(sent, keyring)
        new = build_submission(sent, body, compute_nonce("ecs-queue", body), 60.0)
        known = {"id": new.id, "nonce": new.nonce, "queue": new.queue, "relaunch": new.relaunch, "request": body}
        return Record(**(known | changes))

    def test_it_is_what_was_submitted(self) -> None:
        sent = request()
        assert decode_record_request(self.record(sent, BOTH), BOTH) == sent

    @pytest.mark.parametrize(
        "change", [{"id": "b"}, {"nonce": "xWh2YsTK"}, {"queue": "admin"}, {"relaunch": "any_failure"}]
    )
    def test_a_good_request_in_the_record_of_another_one_is_refused(self, change: dict[str, Any]) -> None:
        with pytest.raises(UnverifiedMessage, match="who can write to the ledger"):
            decode_record_request(self.record(request(), SIGNS, **change), SIGNS)

    def test_one_that_is_not_signed_is_refused(self) -> None:
        with pytest.raises(UnverifiedMessage, match="not signed"):
            decode_record_request(self.record(request(), Keyring("ecs-queue")), SIGNS)


class TestFrozenArguments:
    spec = LaunchSpec("main", 3, {"overrides": {"containerOverrides": [{"command": ["hunter2"], "name": "sealed"}]}})

    @pytest.mark.parametrize("keyring", [Keyring(), SIGNS, SEALS, BOTH], ids=["none", "signs", "seals", "both"])
    def test_they_are_the_same_after_they_were_kept_in_the_ledger(self, keyring: Keyring) -> None:
        args = self.spec.encode(keyring, ARGS)

        assert decode_launch_spec(args, keyring, ARGS) == self.spec
        assert launch_spec_header(Record(id="job", args=args)) == LaunchSpecHeader("main", 3)
        assert ("hunter2" in args) is not keyring.has_encryption_keys

    @pytest.mark.parametrize("position", range(1, 5))
    @pytest.mark.parametrize("keyring", [SIGNS, SEALS], ids=["signs", "seals"])
    def test_they_are_good_for_one_launch_of_one_submission_to_one_target(
        self, keyring: Keyring, position: int
    ) -> None:
        elsewhere = (*ARGS[:position], "other", *ARGS[position + 1 :])

        with pytest.raises(UnverifiedMessage):
            decode_launch_spec(self.spec.encode(keyring, ARGS), keyring, elsewhere)

    def test_changed_ones_are_refused(self) -> None:
        args = self.spec.encode(SIGNS, ARGS).replace("hunter2", "hunter3")
        with pytest.raises(UnverifiedMessage):
            decode_launch_spec(args, SIGNS, ARGS)

    @pytest.mark.parametrize("keyring", [Keyring(), SIGNS, SEALS, BOTH], ids=["none", "signs", "seals", "both"])
    def test_those_of_a_newer_version_are_left_to_newer_workers(self, keyring: Keyring) -> None:
        newer = LaunchSpec("main", 3, {"taskDefinition": "jobs:7"}, v=4).encode(keyring, ARGS)

        with pytest.raises(UndecodableMessage, match="of version 4, this worker knows up to 3") as caught:
            decode_launch_spec(newer, keyring, ARGS)
        assert not isinstance(caught.value, UnverifiedMessage | SealedMessage)
        with pytest.raises(UndecodableMessage, match="of version 4"):
            launch_spec_header(Record(id="job", args=newer))

    def test_the_version_of_unsigned_arguments_does_not_count(self) -> None:
        newer = LaunchSpec("main", 3, {"taskDefinition": "jobs:7"}, v=4).encode()
        with pytest.raises(UnverifiedMessage):
            decode_launch_spec(newer, SIGNS, ARGS)

    def test_sealed_ones_need_the_key(self) -> None:
        with pytest.raises(SealedMessage):
            decode_launch_spec(self.spec.encode(SEALS, ARGS))
