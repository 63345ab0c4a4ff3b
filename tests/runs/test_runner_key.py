"""The key of a queue's runners: without it, what it signs cannot be forged, and what it seals cannot be read."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from ecs_queue.errors import ConfigError, SealedMessage, UndecodableMessage, UnverifiedMessage
from ecs_queue.protocol.runs import RunEnd
from ecs_queue.runs.runner_key import Assignment, RunnerCommand, RunnerKeys, derive_runner_key

PLACE = Assignment("ns", "etl", "job", "nonce-01", 1)
COMMAND = RunnerCommand(["echo", "a:b"], {"PASSWORD": "secret"})
END = RunEnd(turn=2, exit_code=0)
KEY = derive_runner_key("ns", "etl", b"signing", b"encryption")
OTHERS = [
    derive_runner_key("ns", "other", b"signing", b"encryption"),
    derive_runner_key("other", "etl", b"signing", b"encryption"),
    derive_runner_key("ns", "etl", b"signin", b"gencryption"),
    derive_runner_key("ns", "etl", b"", b"signingencryption"),
]


def keys(*texts: str) -> RunnerKeys:
    return RunnerKeys(texts)


@pytest.mark.parametrize("encrypts", [False, True])
def test_a_runner_of_the_queue_opens_the_payload(encrypts: bool) -> None:
    payload = keys(KEY).seal_payload(COMMAND, PLACE, encrypts=encrypts)

    assert keys(OTHERS[0], KEY).open_payload(payload, PLACE) == COMMAND
    assert ("secret" in payload) is not encrypts


@pytest.mark.parametrize("other", OTHERS)
def test_no_other_key_opens_it(other: str) -> None:
    payload = keys(KEY).seal_payload(COMMAND, PLACE, encrypts=True)

    with pytest.raises(SealedMessage, match="runner-key etl"):
        keys(other).open_payload(payload, PLACE)


@pytest.mark.parametrize("field", ["namespace", "queue", "id", "nonce", "launch"])
def test_a_payload_of_another_request_is_refused(field: str) -> None:
    payload = keys(KEY).seal_payload(COMMAND, PLACE, encrypts=False)
    other: Any = 2 if field == "launch" else "other"

    with pytest.raises(UnverifiedMessage):
        keys(KEY).open_payload(payload, msgspec.structs.replace(PLACE, **{field: other}))


def test_a_changed_and_an_unsigned_payload_are_refused() -> None:
    payload = keys(KEY).seal_payload(COMMAND, PLACE, encrypts=False)

    with pytest.raises(UnverifiedMessage):
        keys(KEY).open_payload(payload.replace("a:b", "rm"), PLACE)
    with pytest.raises(UnverifiedMessage, match="unsigned"):
        keys(KEY).open_payload(keys().seal_payload(COMMAND, PLACE, encrypts=False), PLACE)


def test_without_keys_a_payload_is_plain_and_every_end_counts() -> None:
    payload = keys().seal_payload(COMMAND, PLACE, encrypts=False)

    assert keys().open_payload(payload, PLACE) == COMMAND
    assert keys().sign_end("ns", "etl", "runner", END) == END
    assert keys().verify_end("ns", "etl", "runner", END)


@pytest.mark.parametrize("payload", ["", "v1", "v2:::{}", "v1:::", "v1:::{}", "v1:::[", "v1:::" + "[" * 5000])
def test_what_is_no_payload_is_refused(payload: str) -> None:
    with pytest.raises(UndecodableMessage):
        keys().open_payload(payload, PLACE)


def test_an_end_is_verified_for_its_runner_its_turn_and_its_exit_code() -> None:
    signed = keys(KEY).sign_end("ns", "etl", "runner", END)
    changes: list[dict[str, Any]] = [{"turn": 3}, {"exit_code": 1}, {"cancelled": True}, {"mac": ""}]

    assert keys(OTHERS[0], KEY).verify_end("ns", "etl", "runner", signed)
    assert not keys(KEY).verify_end("ns", "etl", "another", signed)
    assert not any(keys(other).verify_end("ns", "etl", "runner", signed) for other in OTHERS)
    for change in changes:
        assert not keys(KEY).verify_end("ns", "etl", "runner", msgspec.structs.replace(signed, **change)), change


def test_an_end_is_signed_with_the_key_of_its_command_which_the_launcher_has() -> None:
    of_runner = keys(OTHERS[0], KEY)
    payload = keys(KEY).seal_payload(COMMAND, PLACE, encrypts=True)
    signed = of_runner.sign_end("ns", "etl", "runner", END, of_runner.id_in(payload))
    assert keys(KEY).verify_end("ns", "etl", "runner", signed)


@pytest.mark.parametrize("payload", ["", "v1", keys().seal_payload(COMMAND, PLACE, encrypts=False), "v1:none:00:{}"])
def test_the_end_of_a_command_of_no_known_key_is_signed_with_the_first(payload: str) -> None:
    assert keys(KEY, OTHERS[0]).id_in(payload) == keys(KEY).first_id
    assert keys().id_in(payload) == ""


@pytest.mark.parametrize("text", ["", "short", "ä" * 44, KEY[:-4]])
def test_a_text_that_is_no_key_is_named(text: str) -> None:
    with pytest.raises(ConfigError, match="runner-key QUEUE"):
        keys(text)


def test_no_representation_shows_a_key_or_a_command() -> None:
    assert KEY not in repr(keys(KEY))
    assert "secret" not in repr(COMMAND)
    assert "echo" not in repr(COMMAND)
