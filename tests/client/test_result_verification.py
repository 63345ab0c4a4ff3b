"""A result message only names a request; the ledger's record is the result."""

from __future__ import annotations

import logging

import pytest

from ecs_queue.client.result_verification import decode_result_keys, iter_confirmed_results
from ecs_queue.messages.envelope import encode
from ecs_queue.messages.keyring import NO_KEYS
from ecs_queue.messages.result import build_result
from ecs_queue.protocol.record import Record
from ecs_queue.protocol.states import State

LOG = logging.getLogger("test")


def _record(state: State = State.SUCCESS, nonce: str = "n", owner: str = "me") -> Record:
    return Record(id="a", nonce=nonce, owner=owner, queue="q", state=state)


def test_messages_give_each_key_once_and_garbage_gives_none() -> None:
    body, other = encode(build_result(_record())), encode(build_result(_record(nonce="m")))

    assert decode_result_keys([body, b"garbage", other, body], NO_KEYS, LOG) == [("a", "n"), ("a", "m")]


def test_the_result_is_the_records() -> None:
    (result,) = iter_confirmed_results([("a", "n")], [_record(State.FAILED)], "me", LOG)

    assert result.state == State.FAILED


@pytest.mark.parametrize(
    "record",
    [None, _record(State.LAUNCHED), _record(nonce="other"), _record(owner="another")],
    ids=["an unknown id", "not ended", "a wrong nonce", "another owner's"],
)
def test_what_the_ledger_does_not_confirm_is_ignored_with_a_warning(
    record: Record | None, caplog: pytest.LogCaptureFixture
) -> None:
    assert list(iter_confirmed_results([("a", "n")], [record], "me", LOG)) == []
    assert "Ignoring a result message for a: the ledger does not confirm it" in caplog.text
