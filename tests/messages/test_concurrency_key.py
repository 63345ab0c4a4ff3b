"""The concurrency key of a request: what it may be, and that earlier workers refuse it."""

from __future__ import annotations

from typing import Any

import pytest

from ecs_queue.errors import InvalidRequest, UndecodableMessage
from ecs_queue.messages.envelope import decode_request, encode
from ecs_queue.messages.request import TaskRequest, new_request
from ecs_queue.runtask.launch_spec import build_submission
from tests.messages.golden_messages import golden


def request(**fields: Any) -> TaskRequest:
    return new_request(id="a", command=["true"], now=1_700_000_000.0, accept_seconds=86400.0, **fields)


def test_a_key_is_of_version_2_and_is_read_as_it_was_written() -> None:
    made = request(concurrency_key="Kunde 7 ä", priority=5)
    assert made == decode_request(golden("request-v2-concurrency-key")) == decode_request(encode(made))
    assert (made.v, request().v) == (2, 1)


def test_the_ledger_gets_it_with_what_orders_the_requests_of_a_key() -> None:
    stored = build_submission(request(concurrency_key="k", priority=5), b"", "nonce-01", 60.0)
    assert (stored.concurrency_key, stored.priority) == ("k", 5)
    plain = build_submission(request(priority=5), b"", "nonce-01", 60.0)
    assert (plain.concurrency_key, plain.priority) == ("", 0)


def test_the_same_request_with_another_key_is_another_request() -> None:
    digests = {request().digest(), request(concurrency_key="a").digest(), request(concurrency_key="b").digest()}
    assert len(digests) == 3


@pytest.mark.parametrize("key", ["customer-7", "a", "x" * 128, "a/b:c|d {e}", "Größe 1", "日本", "%s\\1"])
def test_any_visible_text_is_a_key(key: str) -> None:
    assert decode_request(encode(request(concurrency_key=key))).concurrency_key == key


@pytest.mark.parametrize("key", ["", "x" * 129, "a\nb", "a\n", "\x00", "a\x7f", "a\u202eb", " a", "\u2028", 7, ["a"]])
def test_anything_else_is_refused(key: Any) -> None:
    with pytest.raises(
        InvalidRequest,
        match=r"key: expected 1 to 128 characters, .* without spaces at the ends",
    ):
        request(concurrency_key=key)


def test_half_of_a_surrogate_pair_is_no_text() -> None:
    with pytest.raises(InvalidRequest, match="cannot be written as JSON"):
        request(concurrency_key="\udcff")


def test_a_message_with_a_bad_key_or_of_version_1_is_refused() -> None:
    body = golden("request-v2-concurrency-key")
    with pytest.raises(UndecodableMessage, match="concurrency_key needs the envelope version 2"):
        decode_request(body.replace(b'"v": 2', b'"v": 1'))
    for bad in (b'""', b'"a\\nb"', b'"a\\u202eb"', b"7"):
        with pytest.raises(UndecodableMessage, match="not a valid envelope"):
            decode_request(body.replace(b'"Kunde 7 \\u00e4"', bad))
